//! Federation between Matrix servers: events, signatures, and the state of rooms. No storage, no sockets, no clock.
//!
//! The modules, in reading order:
//!
//! - [`room_version`]: the supported room versions, 6 to 12, and their rules.
//! - [`signing`]: this server's signing keys, and signed JSON. [`key_file`]: files of signing keys, also of other
//!   homeservers.
//! - [`pdu`]: an event as it is stored and sent, parsed once for the auth rules and state resolution.
//! - [`build`]: building, hashing and signing a local user's event. The only way to sign an event.
//! - [`auth`]: the state that authorizes an event, and the auth rules.
//! - [`redact`](mod@redact): an event after its redaction.
//! - [`discovery`]: the address of a server name, by the specification's steps. [`x_matrix`]: requests with a server's
//!   signature.
//! - [`published_keys`]: the published keys of servers, ours and those of others. [`known_keys`]: the keys of a server by
//!   time.
//! - [`ids`], [`state_log`]: a room's state and its changes, by short ids. [`standing`]: the place of an event in its
//!   room. [`varint`]: the parts of their stored form.
//! - [`held`]: the entries of a state, wherever it is kept, and the difference of two states.
//! - [`model`]: reads of one room, as traits: its states, the graph of its events, and the events themselves.
//! - [`sides`]: the states of branches, which the state log does not have. [`graph`]: the graph of a room's events: its
//!   forward extremities, auth chains and places.
//! - [`resolve`]: one state from those of several branches.
//! - [`received`]: events that other servers sent: their form, hashes and signatures, checked in one place.
//! - [`receive`]: deciding what an event of another server, or of a local user, does to its room. **Not yet**: no endpoint of
//!   the server takes such events, so its rooms have no branches.
//! - [`sender`]: the delivery to other servers, as a machine. **Not yet**: nothing drives it.
//! - [`access`]: the parts of an event that another server may see. [`acl`]: the servers that a room shuts out.
//! - [`jobs`]: joins, knocks and leaves through other servers, as jobs that survive restarts. **Not yet**: the server does
//!   not use these three.
//! - [`verify`]: checks that an event of ours still has its hash, its signature and its ID.

pub mod access;
pub mod acl;
pub mod auth;
mod broken_keys;
pub mod build;
pub mod discovery;
pub mod graph;
pub mod held;
pub mod ids;
pub mod jobs;
pub mod key_file;
pub mod known_keys;
pub mod model;
pub mod pdu;
pub mod published_keys;
pub mod receive;
pub mod received;
pub mod redact;
pub mod resolve;
pub mod room_version;
pub mod sender;
pub mod sides;
pub mod signing;
pub mod standing;
pub mod state_log;
pub mod varint;
pub mod verify;
pub mod x_matrix;

pub use self::{
    auth::{AuthRuleError, auth_types},
    build::{BuildError, EventDraft, EventPosition, build_and_sign},
    discovery::{Host, Network, Route, Service, find_route},
    key_file::KeyFileError,
    known_keys::{KnownKey, KnownKeys, Source},
    pdu::{Pdu, PduError},
    published_keys::{PublicKey, PublishedKeys, PublishedKeysError},
    redact::{RedactError, redact},
    room_version::{rules, supported_room_versions},
    signing::{FormerKey, OwnKey, ServerSigner, SignJsonError},
    verify::{VerifyError, verify_own},
};

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod test_ready;
#[cfg(test)]
mod test_room;
#[cfg(test)]
mod test_world;

//! Federation between Matrix servers: events, signatures, and the state of rooms. No storage, no sockets, no clock.
//!
//! The modules, in reading order:
//!
//! - [`room_version`]: the supported room versions, 6 to 12, and their rules.
//! - [`signing`]: this server's signing key, its file, and signed JSON.
//! - [`pdu`]: an event as it is stored and sent, parsed once for the auth rules and state resolution.
//! - [`build`]: building, hashing and signing a local user's event. The only way to sign an event.
//! - [`auth`]: the state that authorizes an event, and the auth rules.
//! - [`redact`](mod@redact): an event after its redaction.
//! - [`discovery`]: the address of a server name, by the specification's steps. [`x_matrix`]: requests with a server's
//!   signature.
//! - [`published_keys`]: the published keys of servers, ours and those of others.
//! - [`ids`], [`state_log`]: a room's state and its changes, by short ids. [`standing`]: the place of an event in its
//!   room. [`varint`]: the parts of their stored form.
//! - [`held`]: the entries of a state, wherever it is kept, and the difference of two states.
//! - [`model`]: reads of one room, as traits: its states, the graph of its events, and the events themselves.
//! - [`sides`]: the states of branches, which the state log does not have. [`graph`]: the graph of a room's events: its
//!   forward extremities, auth chains and places.
//! - [`resolve`]: one state from those of several branches.
//! - [`received`]: events that other servers sent: their form, hashes and signatures, checked in one place.
//!   **Not yet**: the server does not use these four; it has rooms without branches only.
//! - [`sender`]: the delivery to other servers, as a machine. **Not yet**: nothing drives it.
//! - [`verify`]: checks that an event of ours still has its hash, its signature and its ID.

pub mod auth;
pub mod build;
pub mod discovery;
pub mod graph;
pub mod held;
pub mod ids;
pub mod model;
pub mod pdu;
pub mod published_keys;
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
    pdu::{Pdu, PduError},
    published_keys::{PublicKey, PublishedKeys, PublishedKeysError},
    redact::{RedactError, redact},
    room_version::{rules, supported_room_versions},
    signing::{KeyFileError, ServerSigner, SignJsonError},
    verify::{VerifyError, verify_own},
};

#[cfg(test)]
mod test_ready;
#[cfg(test)]
mod test_room;
#[cfg(test)]
mod test_world;

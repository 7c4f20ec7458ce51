//! How Matrix servers talk to each other: events and signatures. No storage, no sockets, no clock.
//!
//! The map, in reading order:
//!
//! - [`room_version`]: the room versions we speak, 6 to 12, and their rules.
//! - [`signing`]: this server's signing key, its file, and signed JSON.
//! - [`pdu`]: an event as it is stored and sent, parsed once; what the auth rules and state resolution read.
//! - [`build`]: a local user's event, made field by field, hashed and signed. The only way to sign an event.
//! - [`auth`]: which state authorizes an event, and whether it does.
//! - [`redact`](mod@redact): what is left of an event after its redaction.
//! - [`discovery`]: where a server name is, by the specification's steps. [`x_matrix`]: requests with a server's signature.
//! - [`published_keys`]: the keys a server publishes, ours and those of others.
//! - [`verify`]: whether an event of ours still carries its hash, its signature and its ID.

pub mod auth;
pub mod build;
pub mod discovery;
pub mod pdu;
pub mod published_keys;
pub mod redact;
pub mod room_version;
pub mod signing;
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
mod test_room;

//! How Matrix servers talk to each other: events and signatures. No storage, no sockets, no clock.
//!
//! The map, in reading order:
//!
//! - [`room_version`]: the room versions we speak, 6 to 12, and their rules.
//! - [`signing`]: this server's signing key, its file, and signed JSON.
//! - [`pdu`]: an event as it is stored and sent, parsed once; what the auth rules and state resolution read.
//! - [`build`]: a local user's event, made field by field, hashed and signed. The only way to sign an event.
//! - [`auth`]: which state authorizes an event, and whether it does.
//! - [`redact`]: what is left of an event after its redaction.
//! - [`verify`]: whether an event of ours still carries its hash, its signature and its ID.

pub mod auth;
pub mod build;
pub mod pdu;
pub mod redact;
pub mod room_version;
pub mod signing;
pub mod verify;

pub use self::{
    auth::{AuthRuleError, auth_types},
    build::{BuildError, EventDraft, EventPosition, build_and_sign},
    pdu::{Pdu, PduError},
    redact::{RedactError, redact},
    room_version::{rules, supported_room_versions},
    signing::{KeyFileError, ServerSigner, SignJsonError},
    verify::{VerifyError, verify_own},
};

#[cfg(test)]
mod test_room;

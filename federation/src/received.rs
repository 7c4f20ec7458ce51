//! Events that other servers sent: the checks of their form, their signatures and their hashes.
//!
//! Promise: [`Verified`] is the only form in which another server's event can be stored, and [`Unverified::verify`] is
//! the only way to make one, whatever endpoint the event came from. It has the form of its room version, belongs to
//! the expected room, carries the signatures that it needs, and its ID is its reference hash. If its content hash is
//! wrong, it is redacted. Its bytes are canonical JSON that we can always read again.
//!
//! The room may still refuse it: [`crate::auth`] has the next checks. The steps are those of the server-server API,
//! [Checks performed on receipt of a
//! PDU](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu).
//!
//! [`object`] reads the JSON within bounds, [`format`](mod@format) checks the fields, [`hash`] computes the hashes and
//! the signed bytes, and [`signatures`] checks the signatures.

use std::fmt;

use ruma::{EventId, RoomId, UserId, canonical_json::redact_in_place, room_version_rules::RoomVersionRules};
use serde_json::value::RawValue;

use crate::pdu::{Pdu, event_id_of};

mod format;
mod hash;
mod object;
mod signatures;

pub use self::{
    format::FormatError,
    signatures::{Ed25519, KeyOf, NeededSignature, SignatureError, Signatures},
};

/// Reads an event that another server sent as one of the room `room_id`: the steps 1 and 3, its form and its content
/// hash.
///
/// `unsigned` and `event_id` are left out: a server may put anything there. Everything else in the result depends on
/// `json` alone.
///
/// # Errors
/// When the event must be dropped. Nothing about it is stored then.
pub fn read(rules: &RoomVersionRules, room_id: &RoomId, json: &RawValue) -> Result<Unverified, FormatError> {
    let mut event = object::read(json)?;
    let too_long = format::check(rules, room_id, &event)?;
    let whole = object::to_json(&event)?;
    let signed = hash::signed_bytes(rules, &event)?;
    let event_id = event_id_of(&signed);
    let mut servers = signatures::needed_servers(rules, &event)?;
    // Step 3: "Passes hash checks, otherwise it is redacted before being processed further." The ID and the signatures
    // stay right, because both are of the redacted event.
    let (form, json) = if hash::matches(&event) {
        (Form::Whole, whole)
    } else {
        redact_in_place(&mut event, &rules.redaction, None).map_err(FormatError::NotRedactable)?;
        // Up to room version 10 this removes the mark of a third-party invite, which alone excused the missing
        // signature of its sender's server. Anyone could forge an invitation otherwise.
        servers.extend(signatures::needed_servers(rules, &event)?);
        // Someone may have added only what a redaction removes. Then the event is as it was made.
        let form = if hash::matches(&event) { Form::Whole } else { Form::Redacted };
        (form, object::to_json(&event)?)
    };
    let needed = signatures::of_servers(servers, &event)?;
    let pdu = Pdu::from_stored(rules, event_id, json).map_err(FormatError::Malformed)?;
    // A create event from room version 12 on does not name its room, but makes it.
    if pdu.room_id != room_id {
        return Err(FormatError::OtherRoom);
    }
    Ok(Unverified { pdu, form, too_long, signed, needed })
}

/// Whether an event is as its sender's server made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Whole,
    /// The content hash was wrong, so only the redacted event can be trusted. Another copy of it, with the same ID, may
    /// be whole.
    Redacted,
}

/// An event with a correct form, whose signatures are not checked. Nothing that it says may be trusted.
pub struct Unverified {
    pdu: Pdu,
    form: Form,
    too_long: bool,
    signed: String,
    needed: Vec<NeededSignature>,
}

impl Unverified {
    /// The ID, which the bytes alone determine. So an event that is stored already need not be verified again.
    pub fn event_id(&self) -> &EventId {
        &self.pdu.event_id
    }

    pub fn sender(&self) -> &UserId {
        &self.pdu.sender
    }

    /// The time at which its sender's server says it was sent, in milliseconds since the Unix epoch. The keys must be
    /// valid at this time.
    pub fn ts(&self) -> i64 {
        self.pdu.origin_server_ts
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// The signatures that the event needs. None for an invitation by third-party ID, whose proof is in its content: the
    /// auth rules check it.
    pub fn needed(&self) -> &[NeededSignature] {
        &self.needed
    }

    /// Step 2: checks that each needed server has signed the event with one key of those that it had at the time of the
    /// event. Other signatures with such keys must be correct too. Signatures with unknown keys do not matter.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(self, signatures: &dyn Signatures, key: &KeyOf<'_>) -> Result<Verified, SignatureError> {
        self.check(signatures, key)?;
        Ok(Verified { pdu: self.pdu, form: self.form, too_long: self.too_long })
    }

    fn check(&self, signatures: &dyn Signatures, key: &KeyOf<'_>) -> Result<(), SignatureError> {
        let mut result = Ok(());
        for needed in &self.needed {
            match needed.check(self.signed.as_bytes(), signatures, key) {
                Ok(()) => {}
                // One wrong signature settles it, whatever the keys of other servers say.
                Err(error) if error.is_definite() => return Err(error),
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

// Written by hand, so that no log shows the signed bytes.
impl fmt::Debug for Unverified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Unverified").field("pdu", &self.pdu).field("form", &self.form).finish_non_exhaustive()
    }
}

/// An event that passed the checks of its form, its signatures and its content hash.
#[derive(Clone, Debug)]
pub struct Verified {
    pdu: Pdu,
    form: Form,
    too_long: bool,
}

impl Verified {
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns whether a field has more than 255 bytes, but not more than 255 characters. Up to room version 10, other
    /// servers store such an event as a rejected one, whatever the auth rules say. From version 11 on it is dropped.
    pub fn ends_rejected(&self) -> bool {
        self.too_long
    }

    /// The event, its form, and whether it [ends rejected](Self::ends_rejected).
    pub fn into_parts(self) -> (Pdu, Form, bool) {
        (self.pdu, self.form, self.too_long)
    }
}

#[cfg(test)]
mod tests;

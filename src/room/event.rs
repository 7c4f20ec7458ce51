//! A stored event, and how clients see it.
//!
//! Events are rendered once and spliced into every answer: [`StoredEvent::write`] copies finished bytes and adds the
//! parts under `unsigned` that differ for each reader.

use std::sync::{Arc, OnceLock};

use ruma::{EventId, OwnedEventId, OwnedUserId, UserId};
use sabha_federation::{
    Pdu,
    standing::{Flags, Standing},
    state_log::Membership,
};
use serde_json::value::RawValue;

use crate::{
    account_data::ignored::Ignored,
    store::{EventNid, KeyNid, Position, RoomNid, TimelinePlace},
};

/// An event of a room, as it is stored.
#[derive(Debug)]
pub struct StoredEvent {
    pub nid: EventNid,
    pub room: RoomNid,
    pub standing: Standing,
    /// One more than the greatest `auth_depth` of its auth events.
    pub auth_depth: i64,
    /// Set for state events.
    pub key: Option<KeyNid>,
    pub pdu: Arc<Pdu>,
    /// The state event that this one replaced.
    pub replaces: Option<Replaced>,
    /// The redaction of this event.
    pub redacted_because: Option<Arc<StoredEvent>>,
    rendered: OnceLock<Box<str>>,
}

/// The state event that another one replaced.
#[derive(Debug, Clone)]
pub struct Replaced {
    pub event_id: OwnedEventId,
    pub sender: OwnedUserId,
    pub content: Box<RawValue>,
}

/// The parts of an event that differ for each reader.
#[derive(Debug, Default, Clone, Copy)]
pub struct View<'a> {
    /// Set if the event needs a `room_id`, because the answer does not say the room elsewhere.
    pub with_room_id: bool,
    /// The transaction ID, for the device that sent the event.
    pub transaction_id: Option<&'a str>,
    /// The reader's membership when the event was sent.
    pub membership: Option<Membership>,
    /// The time of the answer, for `age`; 0 leaves it out.
    pub now_ms: i64,
}

impl StoredEvent {
    #[expect(clippy::too_many_arguments, reason = "a plain record with one private field")]
    pub fn new(
        nid: EventNid,
        room: RoomNid,
        standing: Standing,
        auth_depth: i64,
        key: Option<KeyNid>,
        pdu: Arc<Pdu>,
        replaces: Option<Replaced>,
        redacted_because: Option<Arc<Self>>,
    ) -> Self {
        Self { nid, room, standing, auth_depth, key, pdu, replaces, redacted_because, rendered: OnceLock::new() }
    }

    /// A copy of the event with new content for the event that it replaced.
    pub(super) fn replacing(&self, content: &RawValue) -> Self {
        let replaces = self.replaces.clone().map(|replaced| Replaced { content: content.to_owned(), ..replaced });
        self.shown_as(Arc::clone(&self.pdu), replaces, self.redacted_because.clone())
    }

    /// A copy of the event in its redacted form.
    pub(super) fn redacted(&self, left: Arc<Pdu>, because: Arc<Self>) -> Self {
        self.shown_as(left, self.replaces.clone(), Some(because))
    }

    /// A copy of the redacted event with the present form of its redaction.
    pub(super) fn with_redaction(&self, because: Arc<Self>) -> Self {
        self.shown_as(Arc::clone(&self.pdu), self.replaces.clone(), Some(because))
    }

    /// A copy of the event with another standing.
    pub(super) fn restated(&self, standing: Standing) -> Self {
        let mut pdu = Arc::clone(&self.pdu);
        let is_rejected = standing.flags.contains(Flags::REJECTED);
        if pdu.rejected != is_rejected {
            Arc::make_mut(&mut pdu).rejected = is_rejected;
        }
        Self { standing, ..self.shown_as(pdu, self.replaces.clone(), self.redacted_because.clone()) }
    }

    fn shown_as(&self, pdu: Arc<Pdu>, replaces: Option<Replaced>, because: Option<Arc<Self>>) -> Self {
        let Self { nid, room, standing, auth_depth, key, .. } = *self;
        Self::new(nid, room, standing, auth_depth, key, pdu, replaces, because)
    }

    /// Returns whether this event shows a part of the other one: its content, if this event replaced it, or its reason,
    /// if it redacted this event.
    pub(super) fn shows(&self, other: &Self) -> bool {
        self.replaces.as_ref().is_some_and(|replaced| replaced.event_id == other.pdu.event_id)
            || self.redacted_because.as_ref().is_some_and(|because| because.nid == other.nid)
    }

    /// The event's place in the timeline. `None`: it is stored, but clients do not read it there.
    pub fn place(&self) -> Option<TimelinePlace> {
        self.standing.place
    }

    /// The position up to which somebody has read the line who has read this event: its own, or that of the event before
    /// its gap. `None`: it is not part of the timeline.
    pub fn read_at(&self) -> Option<Position> {
        self.place().map(TimelinePlace::line_upto)
    }

    /// Returns whether the event is on the line, as news for clients.
    pub fn is_on_line(&self) -> bool {
        self.place().is_some_and(TimelinePlace::is_on_line)
    }

    pub fn event_id(&self) -> &EventId {
        &self.pdu.event_id
    }

    pub fn sender(&self) -> &UserId {
        &self.pdu.sender
    }

    /// The content, parsed as one of ruma's types or one of ours. `None` if it does not parse.
    pub fn content<'a, T: serde::Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(self.pdu.content.get()).ok()
    }

    /// Returns whether the event is hidden from an account that ignores these users. State is never hidden, so that a
    /// room looks the same to all ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
    pub fn is_hidden_by(&self, ignored: &Ignored) -> bool {
        !ignored.is_empty() && self.pdu.state_key.is_none() && ignored.contains(self.sender())
    }

    /// The membership in an `m.room.member` event. `None` for other events.
    pub fn membership(&self) -> Option<Membership> {
        if self.pdu.event_type != "m.room.member" {
            return None;
        }
        membership_of(&self.pdu.content)
    }

    /// The approximate bytes of the event in an answer.
    pub fn size_bytes(&self) -> usize {
        let replaced = self.replaces.as_ref().map_or(0, |replaced| replaced.content.get().len());
        let redaction = self.redacted_because.as_ref().map_or(0, |redaction| redaction.pdu.json.len());
        self.pdu.json.len() + replaced + redaction
    }

    /// The approximate memory that it takes once it was rendered, in bytes. It must not change, or the cache would
    /// miscount: the cache asks when an event is added and again when it is evicted.
    pub fn weight(&self) -> u64 {
        let replaces = self.replaces.as_ref().map_or(0, |replaced| replaced.content.get().len() + 128);
        // A redaction may give a long reason, and whoever redacts their own messages may do so often.
        let redaction = self.redacted_because.as_ref().map_or(0, |redaction| redaction.weight());
        (self.pdu.json.len() + 2 * self.pdu.content.get().len() + replaces + 1376) as u64 + redaction
    }

    /// Appends the event as JSON in the client format ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-event-format
    pub fn write(&self, out: &mut Vec<u8>, view: View<'_>) {
        let write_age = |out: &mut Vec<u8>| write_age(out, self.sent_at(), view.now_ms);
        self.write_aged(out, view, (view.now_ms > 0).then_some(write_age));
    }

    /// Appends the event as [`Self::write`] does, without the digits of its age. Returns their place: [`write_age`] writes
    /// them for each reader.
    pub fn write_ageless(&self, out: &mut Vec<u8>, view: View<'_>) -> usize {
        let mut place = 0;
        self.write_aged(out, view, Some(|out: &mut Vec<u8>| place = out.len()));
        place
    }

    fn write_aged(&self, out: &mut Vec<u8>, view: View<'_>, write_age: Option<impl FnOnce(&mut Vec<u8>)>) {
        out.extend_from_slice(self.rendered().as_bytes());
        if view.with_room_id {
            out.extend_from_slice(br#","room_id":"#);
            write_string(out, self.pdu.room_id.as_str());
        }
        self.write_unsigned(out, view, write_age);
        out.push(b'}');
    }

    /// The time at which its sender says it was sent, in milliseconds since 1970.
    pub fn sent_at(&self) -> i64 {
        self.pdu.origin_server_ts
    }

    /// The JSON up to, but without, `room_id`, `unsigned` and the closing brace.
    fn rendered(&self) -> &str {
        self.rendered.get_or_init(|| {
            let pdu = &self.pdu;
            let mut out = Vec::with_capacity(pdu.content.get().len() + 320);
            out.extend_from_slice(br#"{"content":"#);
            out.extend_from_slice(pdu.content.get().as_bytes());
            out.extend_from_slice(br#","event_id":"#);
            write_string(&mut out, pdu.event_id.as_str());
            out.extend_from_slice(br#","origin_server_ts":"#);
            out.extend_from_slice(pdu.origin_server_ts.to_string().as_bytes());
            out.extend_from_slice(br#","sender":"#);
            write_string(&mut out, pdu.sender.as_str());
            if let Some(state_key) = &pdu.state_key {
                out.extend_from_slice(br#","state_key":"#);
                write_string(&mut out, state_key);
            }
            if let Some(redacts) = &pdu.redacts {
                // Clients from before room version 11 look for it here, in rooms of every version.
                out.extend_from_slice(br#","redacts":"#);
                write_string(&mut out, redacts.as_str());
            }
            out.extend_from_slice(br#","type":"#);
            write_string(&mut out, &pdu.event_type);
            String::from_utf8(out).expect("pieces of JSON text are UTF-8").into_boxed_str()
        })
    }

    fn write_unsigned(&self, out: &mut Vec<u8>, view: View<'_>, write_age: Option<impl FnOnce(&mut Vec<u8>)>) {
        let start = out.len();
        out.extend_from_slice(br#","unsigned":{"#);
        let first = out.len();
        let field = |out: &mut Vec<u8>, name: &str| {
            if out.len() > first {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
        };
        if let Some(write_age) = write_age {
            field(out, "age");
            write_age(out);
        }
        if let Some(membership) = view.membership {
            field(out, "membership");
            write_string(out, membership_name(membership));
        }
        if let Some(replaced) = &self.replaces {
            field(out, "prev_content");
            out.extend_from_slice(replaced.content.get().as_bytes());
            field(out, "prev_sender");
            write_string(out, replaced.sender.as_str());
            field(out, "replaces_state");
            write_string(out, replaced.event_id.as_str());
        }
        if let Some(redaction) = &self.redacted_because {
            field(out, "redacted_because");
            redaction.write(out, View { with_room_id: view.with_room_id, ..View::default() });
        }
        if let Some(transaction_id) = view.transaction_id {
            field(out, "transaction_id");
            write_string(out, transaction_id);
        }
        if out.len() == first {
            out.truncate(start);
        } else {
            out.push(b'}');
        }
    }
}

/// Appends the digits of the age of an event that was sent at `sent_at`.
pub fn write_age(out: &mut Vec<u8>, sent_at: i64, now_ms: i64) {
    write_number(out, now_ms.saturating_sub(sent_at));
}

/// Appends a number.
pub(crate) fn write_number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    use std::io::Write as _;
    write!(out, "{number}").expect("writing a number to memory succeeds");
}

/// Appends a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory succeeds");
}

/// The membership in the content of an `m.room.member` event.
pub(crate) fn membership_of(content: &RawValue) -> Option<Membership> {
    #[derive(serde::Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        membership: std::borrow::Cow<'a, str>,
    }
    let content: Content<'_> = serde_json::from_str(content.get()).ok()?;
    Membership::named(&content.membership)
}

/// The spec's name for a membership.
pub fn membership_name(membership: Membership) -> &'static str {
    match membership {
        Membership::Join => "join",
        Membership::Invite => "invite",
        Membership::Leave => "leave",
        Membership::Ban => "ban",
        Membership::Knock => "knock",
    }
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, event_id};

    use super::*;

    fn event(content: &serde_json::Value) -> StoredEvent {
        let rules = sabha_federation::room_version::rules(&RoomVersionId::V12).unwrap();
        let json = serde_json::json!({
            "type": "m.room.message", "room_id": "!r", "sender": "@a:x", "content": content, "depth": 1,
            "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": { "sha256": "" }, "signatures": {},
        });
        let pdu = Pdu::from_stored(&rules, event_id!("$e").to_owned(), json.to_string()).unwrap();
        StoredEvent::new(EventNid(1), RoomNid(1), Standing::OUTLIER, 0, None, Arc::new(pdu), None, None)
    }

    #[test]
    fn rendering_an_event_does_not_change_what_it_weighs() {
        let event = event(&serde_json::json!({ "body": "hello" }));
        let before = event.weight();
        event.write(&mut Vec::new(), View::default());
        assert_eq!(event.weight(), before);
    }

    #[test]
    fn a_redacted_event_weighs_as_much_as_its_redaction_too() {
        let (plain, left) = (event(&serde_json::json!({ "body": "hello" })), event(&serde_json::json!({})));
        let because = Arc::new(event(&serde_json::json!({ "reason": "x".repeat(50_000) })));
        let redacted = plain.redacted(Arc::clone(&left.pdu), Arc::clone(&because));
        assert_eq!(redacted.weight(), left.weight() + because.weight());
        assert!(redacted.weight() > 50_000);
    }
}

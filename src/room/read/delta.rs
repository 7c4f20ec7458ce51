//! The new events of a room as all members see them who have followed it: rendered once, and copied into each answer.
//!
//! Promise: a delta is what each of these members would be shown alone, but for the ages of the events. So it has no state,
//! and nothing in it differs for its readers. What a reader must check is in it too: who sent the events, and since when the
//! reader must have been in the room. A change of an event, such as by a redaction, makes another delta ([`Span`]).

use std::sync::Arc;

use ruma::OwnedUserId;
use sabha_federation::state_log::Membership;

use super::timeline::Placed;
use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    room::{
        Room, RoomView, Rooms,
        event::{View, write_age},
        ring::Span,
    },
    store::{EventNid, KeyNid, Position, RoomNid, TimelinePlace},
};

/// The maximum number of events in a delta: the limit of common clients. With more, clients get timelines of different
/// lengths.
const MAX_EVENTS: usize = 20;

/// The maximum bytes of a delta's events. Rendering it takes a few microseconds, under the lock of the room's view.
const MAX_BYTES: usize = 32 << 10;

/// The memory of a delta besides its bytes, and of each of its events.
const DELTA_BYTES: usize = 256;
const EVENT_BYTES: usize = 128;

/// New events of a room.
#[derive(Debug)]
pub struct Delta {
    /// The events as a JSON array, without the digits of their ages.
    json: Box<[u8]>,
    /// The place of each age in `json`, and the time at which its event was sent.
    ages: Box<[(usize, i64)]>,
    pub senders: Box<[DeltaSender]>,
    /// The number of events.
    pub events: usize,
    /// The place just before the first event.
    pub start: TimelinePlace,
    /// The position of the oldest state that an event stands in. A reader who has been joined since then sees all events.
    pub oldest_state: Position,
}

/// A user who sent an event of a delta.
#[derive(Debug)]
pub struct DeltaSender {
    pub user_id: OwnedUserId,
    /// The sender's key in the state and their member event, if these are in memory.
    pub member: Option<(KeyNid, EventNid)>,
}

impl Delta {
    /// Appends the events as a JSON array, as of this time.
    pub fn write(&self, out: &mut Vec<u8>, now_ms: i64) {
        let mut written = 0;
        for (place, sent_at) in &self.ages {
            out.extend_from_slice(&self.json[written..*place]);
            write_age(out, *sent_at, now_ms);
            written = *place;
        }
        out.extend_from_slice(&self.json[written..]);
    }

    /// Returns `None` if the events are not the same for all readers, or too large.
    fn render(view: &RoomView, events: &[Placed], key_of: impl Fn(&str) -> Option<KeyNid>) -> Option<Self> {
        let (first, _) = events.first()?;
        let bytes: usize = events.iter().map(|(_, event)| event.size_bytes()).sum();
        if bytes > MAX_BYTES || events.iter().any(|(_, event)| event.key.is_some() || event.pdu.state_key.is_some()) {
            return None;
        }
        // The readers may have other memberships on a branch than in the room.
        if events.iter().any(|(_, event)| event.standing.before.side.is_some()) {
            return None;
        }
        let (mut json, mut ages) = (vec![b'['], Vec::with_capacity(events.len()));
        let mut senders: Vec<DeltaSender> = Vec::new();
        let shown = View { membership: Some(Membership::Join), ..View::default() };
        for (_, event) in events {
            if json.len() > 1 {
                json.push(b',');
            }
            ages.push((event.write_ageless(&mut json, shown), event.sent_at()));
            if senders.iter().all(|sender| sender.user_id != event.sender()) {
                let key = key_of(event.sender().as_str());
                let member = key.and_then(|key| Some((key, view.state.get(key)?.event_nid)));
                senders.push(DeltaSender { user_id: event.sender().to_owned(), member });
            }
        }
        json.push(b']');
        Some(Self {
            json: json.into(),
            ages: ages.into(),
            senders: senders.into(),
            events: events.len(),
            start: TimelinePlace::on_line(*first).just_before(),
            oldest_state: events.iter().map(|(_, event)| event.standing.before.pos).min()?,
        })
    }
}

impl HasBytes for Delta {
    fn bytes(&self) -> u64 {
        (self.json.len() + DELTA_BYTES + EVENT_BYTES * self.events) as u64
    }
}

/// The deltas that were rendered lately.
pub(in crate::room) struct Deltas(Arc<ByteCache<(RoomNid, Span), Arc<Delta>>>);

impl Deltas {
    pub(in crate::room) fn new(budget: &Budget) -> Self {
        Self(budget.cache(Part::Deltas))
    }
}

impl Rooms {
    /// The new events in (`after`, `upto`], for readers who were in the room all that time. `Some(None)`: there are none.
    /// `None`: they are not in memory, or not the same for all readers, or the state has changed.
    pub fn delta(&self, room: &Room, after: Position, upto: Position) -> Option<Option<Arc<Delta>>> {
        let view = room.view();
        if view.state.changed_at_most(after) > 0 {
            return None;
        }
        let Some(span) = view.ring.span(after, upto).ok()? else { return Some(None) };
        if span.events > MAX_EVENTS {
            return None;
        }
        let key = (room.nid, span);
        let key_of = |user_id: &str| self.db.state_key_in_memory("m.room.member", user_id).map(|key| key.nid);
        // A sender who was not in memory may be by now.
        let is_complete = |sender: &DeltaSender| sender.member.is_some() || key_of(sender.user_id.as_str()).is_none();
        if let Some(delta) = self.deltas.0.get(&key)
            && delta.senders.iter().all(is_complete)
        {
            return Some(Some(delta));
        }
        let delta = Arc::new(Delta::render(&view, &view.ring.between(after, upto)?, key_of)?);
        self.deltas.0.insert(key, Arc::clone(&delta));
        Some(Some(delta))
    }
}

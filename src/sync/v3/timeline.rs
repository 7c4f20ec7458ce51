//! The new events of a room's timeline that the user may see and the client wants.

use sabha_federation::state_log::Membership;

use super::{Look, budget::written_bytes, membership::RoomLook};
use crate::{
    room::{
        event::{StoredEvent, View},
        read::{
            pages::{PageRange, PageSource},
            timeline::Placed,
        },
    },
    store::{Error, EventNid, Position, TimelinePlace},
    sync::{
        json::{Array, Object},
        token::PageToken,
    },
};

/// The default number of events per room ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering
const DEFAULT_TIMELINE: u64 = 10;

/// The maximum number of events that are examined for one room with a filtered timeline.
const MAX_SCANNED: usize = 5_000;

/// The maximum size of one room's timeline in one answer, in bytes of its events: sixteen of the largest. A client that
/// wants more of a room reads it with `/messages`.
const MAX_BYTES: usize = 1 << 20;

/// The new events of a timeline.
pub(super) struct Timeline {
    /// Oldest first.
    pub(super) events: Vec<Placed>,
    limited: bool,
    /// The place just before the first event.
    pub(super) start: TimelinePlace,
}

impl Timeline {
    pub(super) fn shows(&self, event: EventNid) -> bool {
        self.events.iter().any(|(_, shown)| shown.nid == event)
    }

    /// Leaves out the events up to `pos`. The client finds them with `/messages`, like events that a limit leaves out.
    pub(super) fn begin_after(&mut self, pos: Position) {
        self.events.retain(|(at, _)| *at > pos);
        self.start = TimelinePlace::on_line(pos);
        self.limited = true;
    }

    /// The size of its part of an answer, in bytes of its events.
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|(_, event)| written_bytes(event)).sum()
    }

    /// Leaves out the oldest events if all together have more bytes than `most`. The newest event stays, whatever its
    /// size.
    fn within_bytes(mut self, most: usize) -> Self {
        let mut bytes = 0;
        let newest_left_out = self.events.iter().rev().find(|(_, event)| {
            let is_newest = bytes == 0;
            bytes += written_bytes(event);
            !is_newest && bytes > most
        });
        if let Some((pos, _)) = newest_left_out {
            let pos = *pos;
            self.begin_after(pos);
        }
        self
    }

    /// Reads the timeline.
    pub(super) async fn load(look: &Look<'_>, room: &RoomLook) -> Result<Self, Error> {
        let left = look.budgets.timelines.left();
        Ok(Self::load_all(look, room, left > 0).await?.within_bytes(left.min(MAX_BYTES)))
    }

    /// Reads all wanted events, or only the newest event if `fits` is false.
    async fn load_all(look: &Look<'_>, room: &RoomLook, fits: bool) -> Result<Self, Error> {
        let filter = &look.request.filter.room.timeline;
        let limit = if fits { timeline_limit(look) } else { timeline_limit(look).min(1) };
        let wants_room = filter.accepts_room(&room.room.room_id) && limit > 0;
        if room.only_departure {
            let just_before = Position(room.upto.0 - 1);
            let (mut events, _) = look.app.rooms.timeline(&room.room, just_before, room.upto, 1).await?;
            let accepts = |event: &StoredEvent| wants_room && filter.accepts(event);
            let parents = match filter.related(room.upto) {
                Some(related) => Some(Box::pin(look.app.rooms.related(&room.room, &events, related, accepts)).await?),
                None => None,
            };
            let is_parent = |event: &StoredEvent| parents.as_ref().is_none_or(|parents| parents.contains(&event.nid));
            events.retain(|(_, event)| accepts(event) && is_parent(event));
            // A user who forgot a room at once is not told the events in between, so the client must not take the
            // departure for the next event.
            let limited = match room.since {
                Some(since) => !look.app.rooms.timeline(&room.room, since, just_before, 1).await?.0.is_empty(),
                None => false,
            };
            return Ok(Self { events, limited, start: TimelinePlace::on_line(room.upto).just_before() });
        }
        let after = room.since.unwrap_or(Position::BEFORE_ALL);
        if !wants_room {
            let limited = room.room.last_pos() > after;
            return Ok(Self { events: Vec::new(), limited, start: TimelinePlace::on_line(room.upto) });
        }
        if filter.accepts_all()
            && let Some(timeline) = Self::latest(look, room, after, limit).await?
        {
            return Ok(timeline);
        }
        Self::scan(look, room, after, limit).await
    }

    /// Returns the latest events, for a filter that accepts all. `None` if too many of them are hidden for good.
    async fn latest(look: &Look<'_>, room: &RoomLook, after: Position, limit: usize) -> Result<Option<Self>, Error> {
        let ignored = look.ignored().await?;
        let known = room.latest.as_ref().filter(|_| after.is_before_all()).and_then(|latest| latest.latest(limit));
        let (mut events, mut limited) = match known {
            Some(known) => known,
            None => look.app.rooms.timeline(&room.room, after, room.upto, limit).await?,
        };
        if limited && !ignored.is_empty() && events.iter().any(|(_, event)| event.is_hidden_by(ignored)) {
            // Events that are hidden for good must not cause a gap, so more events must be examined.
            return Ok(None);
        }
        events.retain(|(_, event)| !event.is_hidden_by(ignored));
        let start = before_first(&events, TimelinePlace::on_line(room.upto));
        events.retain(|(_, event)| is_visible(look, room, event));
        // Before hidden events there may be older ones that the user sees, such as those from before the history was
        // hidden. Then a cut remains a gap. A user who has just joined and sees nothing older has no gap to fill.
        limited = limited && (room.since.is_some() || room.sight.sees_any_up_to(start.line_upto()));
        let start = if limited { start } else { before_first(&events, start) };
        Ok(Some(Self { events, limited: limited || may_have_gap(look, room), start }))
    }

    /// The latest events that the filter accepts.
    async fn scan(look: &Look<'_>, room: &RoomLook, after: Position, limit: usize) -> Result<Self, Error> {
        let filter = &look.request.filter.room.timeline;
        let ignored = look.ignored().await?;
        let accepts = |event: &StoredEvent| {
            event.is_on_line() && is_visible(look, room, event) && filter.accepts(event) && !event.is_hidden_by(ignored)
        };
        // One more event than wanted shows whether any is missing.
        let most = (limit + 1, look.budgets.scans.left().min(MAX_SCANNED));
        let source = PageSource::Timeline(filter.related(room.upto));
        let end = TimelinePlace::on_line(room.upto);
        let range = PageRange::Back { from: end, until: TimelinePlace::on_line(after) };
        let (page, scanned) = look.app.rooms.scan(&room.room, source, range, most, accepts).await?;
        look.budgets.scans.spend(scanned);
        let mut events: Vec<Placed> = page.events.into_iter().map(|(place, event)| (place.pos, event)).collect();
        let more = events.len() > limit;
        events.truncate(limit);
        events.reverse();
        let start = before_first(&events, end);
        // A scan that stopped early may have missed some.
        let gave_up = !more && page.next.is_some_and(|next| next.line_upto() > after);
        Ok(Self { events, limited: may_have_gap(look, room) || more || gave_up, start })
    }

    /// Writes the timeline.
    pub(super) async fn write(&self, look: &Look<'_>, room: &RoomLook, object: &mut Object<'_>) -> Result<(), Error> {
        let mut transaction_ids = Vec::with_capacity(self.events.len());
        for (_, event) in &self.events {
            transaction_ids.push(if event.sender() == look.caller.user_id() {
                look.app.rooms.transaction_id_of(look.caller.device_nid, event.event_id()).await?
            } else {
                None
            });
        }
        let mut json = Object::begin(object.key("timeline"));
        let mut array = Array::begin(json.key("events"));
        for ((_, event), transaction_id) in self.events.iter().zip(&transaction_ids) {
            let view = View {
                transaction_id: transaction_id.as_deref(),
                // A user who has never been here counts as one who has left.
                membership: Some(room.sight.membership_after(event).unwrap_or(Membership::Leave)),
                now_ms: look.now_ms,
                with_room_id: false,
            };
            write_event(look, event, view, &mut array);
        }
        array.end();
        json.raw("limited", if self.limited { "true" } else { "false" });
        json.token("prev_batch", PageToken(self.start));
        json.end();
        Ok(())
    }
}

/// The maximum number of events in the timeline of a room.
pub(super) fn timeline_limit(look: &Look<'_>) -> usize {
    let limit = look.request.filter.room.timeline.limit.unwrap_or(DEFAULT_TIMELINE);
    usize::try_from(limit).unwrap_or(usize::MAX).min(look.app.config.limits.sync_timeline_events as usize)
}

/// Returns whether the client may still have an older timeline of this room, from before the user left it or before the
/// room could not be read. Then the new events do not follow directly on it.
fn may_have_gap(look: &Look<'_>, room: &RoomLook) -> bool {
    room.since.is_none() && !look.is_initial()
}

/// The place just before the first of these events of the line; `end` if there are none.
fn before_first(events: &[Placed], end: TimelinePlace) -> TimelinePlace {
    events.first().map_or(end, |(pos, _)| TimelinePlace::on_line(*pos).just_before())
}

fn is_visible(look: &Look<'_>, room: &RoomLook, event: &StoredEvent) -> bool {
    // A user always sees their own membership changes, such as a withdrawn invitation.
    room.sight.sees(event) || event.pdu.is_state("m.room.member", look.caller.user_id().as_str())
}

/// Writes an event in the format that the filter asks for.
pub(super) fn write_event(look: &Look<'_>, event: &StoredEvent, view: View<'_>, array: &mut Array<'_>) {
    if look.request.filter.federation_format {
        array.raw(&event.pdu.json);
    } else {
        event.write(array.item(), view);
    }
}

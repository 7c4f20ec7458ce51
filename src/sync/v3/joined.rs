//! One room that the user is in, or has left: its timeline, state, summary, ephemeral events and account data.

use tracing::{Instrument as _, debug_span};

use super::{Look, account::AccountDataNews, membership::RoomLook, state};
use crate::{
    push::unread::{Counts, Unread},
    room::{
        Room,
        event::{StoredEvent, View},
        state_log::Membership,
        timeline::Placed,
    },
    store::{Error, Position},
    sync::{
        filter::{accepts_all, accepts_event, accepts_room, accepts_room_type},
        json::{Array, Object},
        token::Place,
    },
};

/// How many events of a room a client gets that does not say how many it wants ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering
const DEFAULT_TIMELINE: u64 = 10;

/// Which part of the answer the room belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Joined,
    Left,
}

/// A room's part of the answer.
pub(super) struct Written {
    pub(super) room_id: String,
    pub(super) json: Vec<u8>,
}

/// Whether there are new receipts or typing users. Looks only at numbers in memory when there are none.
pub(super) async fn has_ephemeral_news(look: &Look<'_>, room: &Room) -> Result<bool, Error> {
    Ok(!ephemeral(look, room, (look.since_pos(), look.since_ephemeral())).await?.is_empty())
}

/// What is new in the timeline.
pub(super) struct Timeline {
    pub(super) events: Vec<Placed>,
    limited: bool,
    /// Just before the first event.
    pub(super) start: Position,
}

/// Writes the room; `None` if nothing of it is new.
pub(super) async fn write(
    look: &Look<'_>,
    room: &RoomLook,
    account_data: &AccountDataNews,
    section: Section,
) -> Result<Option<Written>, Error> {
    let timeline = timeline(look, room).instrument(debug_span!("sync.timeline")).await?;
    let state = state::load(look, room, &timeline).instrument(debug_span!("sync.state")).await?;
    let summary = state::summary(look, room).await?;
    let joined = section == Section::Joined;
    // Of a room that is new to the client, everything is news.
    let since = if room.since.is_some() { (look.since_pos(), look.since_ephemeral()) } else { (Position::ZERO, 0) };
    let ephemeral = if joined { ephemeral(look, &room.room, since).await? } else { Vec::new() };
    let account_data = account_data.of_room(look, room.room.nid);
    let unread = if joined { Some(unread(look, room).instrument(debug_span!("sync.unread")).await?) } else { None };
    let counts_changed = match (&unread, room.since) {
        (Some(unread), Some(since)) => unread.changed_at > Some(since) || has_read_on(look, &room.room).await?,
        _ => false,
    };
    let full = room.since.is_none() || look.request.full_state;
    let nothing_to_show = timeline.events.is_empty() && state.is_empty() && ephemeral.is_empty();
    if !full && nothing_to_show && account_data.is_empty() && !counts_changed {
        return Ok(None);
    }
    let mut json = Vec::with_capacity(1024 + 700 * (timeline.events.len() + state.len()));
    let mut object = Object::begin(&mut json);
    write_timeline(look, room, &timeline, &mut object).await?;
    let name = match (look.request.state_after, look.request.state_after_unstable) {
        (false, _) => "state",
        (true, false) => "state_after",
        (true, true) => "org.matrix.msc4222.state_after",
    };
    object.events(name, |array| {
        for event in &state {
            write_event(look, event, View { now_ms: look.now_ms, ..View::default() }, array);
        }
    });
    object.events("account_data", |array| account_data.iter().for_each(|event| array.raw(event.get())));
    if joined {
        object.events("ephemeral", |array| ephemeral.iter().for_each(|event| array.raw(event.get())));
        if let Some(summary) = summary {
            object.raw("summary", &summary);
        }
        if let Some(unread) = unread {
            write_unread(look, &unread, &mut object);
        }
    }
    object.end();
    Ok(Some(Written { room_id: room.room.room_id.as_str().to_owned(), json }))
}

/// Whether the user has read on in the room, on whatever device: that changes the counts.
pub(super) async fn has_read_on(look: &Look<'_>, room: &Room) -> Result<bool, Error> {
    let user = look.caller.user.nid;
    look.app.ephemeral.has_read_since(room.nid, user, (look.since_pos(), look.upto)).await
}

async fn unread(look: &Look<'_>, room: &RoomLook) -> Result<Unread, Error> {
    let Look { app, caller, .. } = look;
    let services = (&app.rooms, &app.ephemeral);
    app.push.unread(services, (&room.room, &room.sight), &caller.user, room.upto).await
}

/// Writes the counts of the room, or of its main timeline and of each thread if the filter asks for that.
fn write_unread(look: &Look<'_>, unread: &Unread, object: &mut Object<'_>) {
    let json = |Counts { notifications, highlights }: Counts| {
        format!(r#"{{"highlight_count":{highlights},"notification_count":{notifications}}}"#)
    };
    if !look.request.filter.room.timeline.unread_thread_notifications {
        object.raw("unread_notifications", &json(unread.total()));
        return;
    }
    object.raw("unread_notifications", &json(unread.main));
    if !unread.threads.is_empty() {
        let mut threads = Object::begin(object.key("unread_thread_notifications"));
        unread.threads.iter().for_each(|(thread, counts)| threads.raw(thread, &json(*counts)));
        threads.end();
    }
}

async fn timeline(look: &Look<'_>, room: &RoomLook) -> Result<Timeline, Error> {
    let filter = &look.request.filter.room.timeline;
    let limit = filter.limit.map_or(DEFAULT_TIMELINE, u64::from);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(look.app.config.limits.sync_timeline_events as usize);
    let after = room.since.unwrap_or(Position::ZERO);
    // The client may still have a timeline of this room, from before the user left it: what comes does not follow on it.
    let may_have_gap = room.since.is_none() && !look.is_initial();
    if room.only_departure {
        let just_before = Position(room.upto.0 - 1);
        let (events, _) = look.app.rooms.timeline(&room.room, just_before, room.upto, 1).await?;
        return Ok(Timeline { events, limited: false, start: just_before });
    }
    if !accepts_room(filter.rooms.as_deref(), &filter.not_rooms, &room.room.room_id) || limit == 0 {
        let limited = room.room.last_pos() > after;
        return Ok(Timeline { events: Vec::new(), limited, start: room.upto });
    }
    let visible = |pos: Position, event: &StoredEvent| {
        // A user always sees what became of themselves, such as an invitation that was withdrawn.
        room.sight.can_see(pos) || event.pdu.is_state("m.room.member", look.caller.user_id().as_str())
    };
    let ignored = look.ignored().await?;
    let latest = if accepts_all(filter) {
        let (events, limited) = look.app.rooms.timeline(&room.room, after, room.upto, limit).await?;
        // A gap must not come from what is hidden for good: then there is more to look through.
        let hides = !ignored.is_empty() && events.iter().any(|(_, event)| event.is_hidden_by(ignored));
        (!limited || !hides).then_some((events, limited))
    } else {
        None
    };
    if let Some((mut events, mut limited)) = latest {
        events.retain(|(_, event)| !event.is_hidden_by(ignored));
        let all = events.len();
        let start = events.first().map_or(room.upto, |(pos, _)| Position(pos.0 - 1));
        events.retain(|(pos, event)| visible(*pos, event));
        // For one who has just come, what is hidden before the first visible event is not a gap to fill. For one who was
        // here before, there may be more that they could see.
        if room.since.is_none() {
            limited &= events.len() == all;
        }
        let start = if limited { start } else { events.first().map_or(start, |(pos, _)| Position(pos.0 - 1)) };
        return Ok(Timeline { events, limited: limited || may_have_gap, start });
    }
    let accepts =
        |pos, event: &StoredEvent| visible(pos, event) && accepts_event(filter, event) && !event.is_hidden_by(ignored);
    // One more than wanted says whether any is missing.
    let page = look.app.rooms.scan_back(&room.room, (room.upto, after), limit + 1, accepts).await?;
    let mut events = page.events;
    let more = events.len() > limit;
    events.truncate(limit);
    events.reverse();
    let start = events.first().map_or(room.upto, |(pos, _)| Position(pos.0 - 1));
    // A scan that was given up may have missed some.
    let gave_up = !more && page.next.is_some_and(|next| next > after);
    Ok(Timeline { events, limited: may_have_gap || more || gave_up, start })
}

async fn write_timeline(
    look: &Look<'_>,
    room: &RoomLook,
    timeline: &Timeline,
    object: &mut Object<'_>,
) -> Result<(), Error> {
    let mut transaction_ids = Vec::with_capacity(timeline.events.len());
    for (_, event) in &timeline.events {
        transaction_ids.push(if event.sender() == look.caller.user_id() {
            look.app.rooms.transaction_id_of(look.caller.device_nid, event.event_id()).await?
        } else {
            None
        });
    }
    let mut json = Object::begin(object.key("timeline"));
    let mut array = Array::begin(json.key("events"));
    for ((pos, event), transaction_id) in timeline.events.iter().zip(&transaction_ids) {
        let view = View {
            transaction_id: transaction_id.as_deref(),
            // Who has never been here is like one who has left.
            membership: Some(room.sight.membership_at(*pos).unwrap_or(Membership::Leave)),
            now_ms: look.now_ms,
            with_room_id: false,
        };
        write_event(look, event, view, &mut array);
    }
    array.end();
    json.raw("limited", if timeline.limited { "true" } else { "false" });
    json.string("prev_batch", &Place(timeline.start).to_string());
    json.end();
    Ok(())
}

/// Writes an event in the format that the filter asks for.
fn write_event(look: &Look<'_>, event: &StoredEvent, view: View<'_>, array: &mut Array<'_>) {
    if look.request.filter.event_format == ruma::api::client::filter::EventFormat::Federation {
        array.raw(&event.pdu.json);
    } else {
        event.write(array.item(), view);
    }
}

async fn ephemeral(
    look: &Look<'_>,
    room: &Room,
    (since, since_ephemeral): (Position, u64),
) -> Result<Vec<Box<serde_json::value::RawValue>>, Error> {
    let filter = &look.request.filter.room.ephemeral;
    let mut events = Vec::new();
    if !accepts_room(filter.rooms.as_deref(), &filter.not_rooms, &room.room_id) {
        return Ok(events);
    }
    let Look { app, caller, .. } = look;
    let ignored = look.ignored().await?;
    if accepts_room_type(filter, "m.receipt") {
        let range = (since, look.upto);
        events.extend(app.ephemeral.receipts_since(room.nid, caller.user.nid, ignored, range).await?);
    }
    if accepts_room_type(filter, "m.typing") {
        events.extend(app.ephemeral.typing_since(room.nid, since_ephemeral, ignored));
    }
    Ok(events)
}

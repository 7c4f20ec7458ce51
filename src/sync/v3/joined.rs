//! One room that the user is in, or has left: its timeline, state, summary, ephemeral events and account data.

use serde_json::value::RawValue;
use tracing::{Instrument as _, debug_span};

use super::{
    Look, account::AccountDataNews, budget::RoomBytes, membership::RoomLook, state, summary::Summary,
    timeline::Timeline,
};
use crate::{
    account_data::ignored::Ignored,
    ephemeral::typing::TypingNews,
    push::unread::{Counts, Unread},
    room::{Room, event::write_number},
    store::{Error, Position},
    sync::json::{Array, Object},
};

/// The section of the answer that the room belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Joined,
    Left,
}

/// The outcome of writing a room's part of the answer. The written bytes count only if it is `Written`.
pub(super) enum RoomPart {
    /// The room has no news.
    NoNews,
    /// The answer has no space left for the room.
    DoesNotFit,
    Written {
        bytes: RoomBytes,
        /// The typing state that the client is told, if any: true if a user is typing.
        typing: Option<bool>,
    },
}

/// Returns whether there are new receipts or typing users. If there are none, only numbers in memory are compared.
pub(super) async fn has_ephemeral_news(look: &Look<'_>, room: &Room) -> Result<bool, Error> {
    let news = Ephemeral::load(look, room, (look.since_pos(), look.since_ephemeral())).await?;
    Ok(!news.is_empty())
}

/// Writes the room into its section of the answer.
pub(super) async fn write(
    look: &Look<'_>,
    room: &RoomLook,
    account_data: &AccountDataNews,
    section: Section,
    rooms: &mut Object<'_>,
) -> Result<RoomPart, Error> {
    let joined = section == Section::Joined;
    let mut timeline = Timeline::load(look, room).instrument(debug_span!("sync.timeline")).await?;
    let summary = if joined { Summary::load(look, room).await? } else { None };
    let heroes = summary.as_ref().map(Summary::hero_keys).unwrap_or_default();
    let state = state::find(look, room, &mut timeline, &heroes).instrument(debug_span!("sync.state")).await?;
    // Everything is news in a room that is new to the client.
    let since =
        if room.since.is_some() { (look.since_pos(), look.since_ephemeral()) } else { (Position::BEFORE_ALL, 0) };
    let ephemeral = if joined { Ephemeral::load(look, &room.room, since).await? } else { Ephemeral::default() };
    let account_data = account_data.of_room(look, &room.room);
    let unread = if joined { Some(unread(look, room).instrument(debug_span!("sync.unread")).await?) } else { None };
    let counts_changed = match (&unread, room.since) {
        (Some(unread), Some(since)) => unread.changed_at > Some(since) || has_read_on(look, &room.room).await?,
        _ => false,
    };
    // A departure is always news, even if the filter excludes the room's events.
    let told_anyway = room.since.is_none() || look.request.full_state || section == Section::Left;
    let other_news = !timeline.events.is_empty() || !ephemeral.is_empty() || !account_data.is_empty() || counts_changed;
    if !told_anyway && !other_news && state.is_empty() {
        return Ok(RoomPart::NoNews);
    }
    let timeline_bytes = timeline.bytes();
    let Some(left_for_state) = look.budgets.left_for_state(timeline_bytes) else { return Ok(RoomPart::DoesNotFit) };
    let mut object = Object::begin(rooms.key(room.room.room_id.as_str()));
    object.out.reserve(1024 + 700 * (timeline.events.len() + state.len()));
    timeline.write(look, room, &mut object).await?;
    let mut field = Object::begin(object.key(state_field(look)));
    let mut array = Array::begin(field.key("events"));
    let state = state::write(look, room, &state, left_for_state, &mut array);
    let Some(state) = state.instrument(debug_span!("sync.state")).await? else { return Ok(RoomPart::DoesNotFit) };
    array.end();
    field.end();
    if !told_anyway && !other_news && state.events == 0 {
        return Ok(RoomPart::NoNews);
    }
    object.events("account_data", |array| account_data.iter().for_each(|event| array.raw(event.get())));
    if joined {
        object.events("ephemeral", |array| ephemeral.events.iter().for_each(|event| array.raw(event.get())));
        if let Some(summary) = summary {
            object.raw("summary", &summary.json());
        }
        if let Some(unread) = unread {
            write_unread(look, &unread, &mut object);
        }
    }
    object.end();
    Ok(RoomPart::Written {
        bytes: RoomBytes { timeline: timeline_bytes, state: state.bytes },
        typing: ephemeral.typing,
    })
}

/// Returns whether the user has read further in the room, on any device: that changes the counts.
pub(super) async fn has_read_on(look: &Look<'_>, room: &Room) -> Result<bool, Error> {
    let user = look.caller.user.nid;
    look.app.ephemeral.has_read_since(room.nid, user, (look.since_pos(), look.upto)).await
}

async fn unread(look: &Look<'_>, room: &RoomLook) -> Result<Unread, Error> {
    let Look { app, caller, .. } = look;
    let services = (&app.rooms, &app.ephemeral);
    app.push.unread(services, (&room.room, &room.sight), &caller.user, room.upto, &look.budgets.unread).await
}

/// Writes the counts of the room, or of its main timeline and of each thread if the filter asks for that.
pub(super) fn write_unread(look: &Look<'_>, unread: &Unread, object: &mut Object<'_>) {
    if !look.request.filter.room.timeline.unread_threads {
        write_unread_counts(object.key("unread_notifications"), unread.total());
        return;
    }
    write_unread_counts(object.key("unread_notifications"), unread.main);
    if !unread.threads.is_empty() {
        let mut threads = Object::begin(object.key("unread_thread_notifications"));
        unread.threads.iter().for_each(|(thread, counts)| write_unread_counts(threads.key(thread), *counts));
        threads.end();
    }
}

fn write_unread_counts(out: &mut Vec<u8>, Counts { notifications, highlights }: Counts) {
    out.extend_from_slice(br#"{"highlight_count":"#);
    write_number(out, highlights);
    out.extend_from_slice(br#","notification_count":"#);
    write_number(out, notifications);
    out.push(b'}');
}

/// The name of the field that has the state.
pub(super) fn state_field(look: &Look<'_>) -> &'static str {
    match (look.request.state_after, look.request.state_after_unstable) {
        (false, _) => "state",
        (true, false) => "state_after",
        (true, true) => "org.matrix.msc4222.state_after",
    }
}

/// The new list of typing users, if the client wants it.
pub(super) fn typing(look: &Look<'_>, room: &Room, since: u64, ignored: &Ignored) -> Option<TypingNews> {
    let filter = &look.request.filter.room.ephemeral;
    if !filter.accepts_room(&room.room_id) || !filter.accepts_type("m.typing") {
        return None;
    }
    let was_told = look.hints().is_some_and(|hints| hints.typing.contains(&room.nid));
    let typing = look.app.ephemeral.typing_since(room.nid, (since, was_told), ignored);
    typing.filter(|typing| filter.accepts_unsent("m.typing", &typing.event))
}

/// The new receipts and typing users.
#[derive(Default)]
struct Ephemeral {
    events: Vec<Box<RawValue>>,
    typing: Option<bool>,
}

impl Ephemeral {
    async fn load(look: &Look<'_>, room: &Room, (since, since_ephemeral): (Position, u64)) -> Result<Self, Error> {
        let filter = &look.request.filter.room.ephemeral;
        let mut news = Self::default();
        if !filter.accepts_room(&room.room_id) {
            return Ok(news);
        }
        let Look { app, caller, .. } = look;
        let ignored = look.ignored().await?;
        if filter.accepts_type("m.receipt") {
            let receipts = app.ephemeral.receipts_since(room.nid, caller.user.nid, ignored, (since, look.upto)).await?;
            news.events.extend(receipts.filter(|event| filter.accepts_unsent("m.receipt", event)));
        }
        if let Some(typing) = typing(look, room, since_ephemeral, ignored) {
            news.typing = Some(typing.anybody);
            news.events.push(typing.event);
        }
        Ok(news)
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

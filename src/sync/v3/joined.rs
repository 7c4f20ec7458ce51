//! One room that the user is in, or has left: its timeline, state, summary, ephemeral events and account data.

use serde_json::value::RawValue;
use tracing::{Instrument as _, debug_span};

use super::{
    Look,
    account::AccountDataNews,
    membership::RoomLook,
    state,
    summary::Summary,
    timeline::{Timeline, write_event},
};
use crate::{
    push::unread::{Counts, Unread},
    room::{Room, event::View},
    store::{Error, Position},
    sync::json::Object,
};

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
    /// Whether anybody types, if the client is told.
    pub(super) typing: Option<bool>,
}

/// Whether there are new receipts or typing users. Looks only at numbers in memory when there are none.
pub(super) async fn has_ephemeral_news(look: &Look<'_>, room: &Room) -> Result<bool, Error> {
    let news = Ephemeral::load(look, room, (look.since_pos(), look.since_ephemeral())).await?;
    Ok(!news.is_empty())
}

/// Writes the room; `None` if nothing of it is new.
pub(super) async fn write(
    look: &Look<'_>,
    room: &RoomLook,
    account_data: &AccountDataNews,
    section: Section,
) -> Result<Option<Written>, Error> {
    let joined = section == Section::Joined;
    let mut timeline = Timeline::load(look, room).instrument(debug_span!("sync.timeline")).await?;
    let summary = if joined { Summary::load(look, room).await? } else { None };
    let heroes = summary.as_ref().map(Summary::hero_keys).unwrap_or_default();
    let state = state::load(look, room, &mut timeline, &heroes).instrument(debug_span!("sync.state")).await?;
    // Everything is news in a room that is new to the client.
    let since = if room.since.is_some() { (look.since_pos(), look.since_ephemeral()) } else { (Position::ZERO, 0) };
    let ephemeral = if joined { Ephemeral::load(look, &room.room, since).await? } else { Ephemeral::default() };
    let account_data = account_data.of_room(look, &room.room);
    let unread = if joined { Some(unread(look, room).instrument(debug_span!("sync.unread")).await?) } else { None };
    let counts_changed = match (&unread, room.since) {
        (Some(unread), Some(since)) => unread.changed_at > Some(since) || has_read_on(look, &room.room).await?,
        _ => false,
    };
    // A departure is news by itself, whatever the filter says of the room's events.
    let told_anyway = room.since.is_none() || look.request.full_state || section == Section::Left;
    let nothing_to_show = timeline.events.is_empty() && state.is_empty() && ephemeral.is_empty();
    if !told_anyway && nothing_to_show && account_data.is_empty() && !counts_changed {
        return Ok(None);
    }
    let mut json = Vec::with_capacity(1024 + 700 * (timeline.events.len() + state.len()));
    let mut object = Object::begin(&mut json);
    timeline.write(look, room, &mut object).await?;
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
        object.events("ephemeral", |array| ephemeral.events.iter().for_each(|event| array.raw(event.get())));
        if let Some(summary) = summary {
            object.raw("summary", &summary.json());
        }
        if let Some(unread) = unread {
            write_unread(look, &unread, &mut object);
        }
    }
    object.end();
    Ok(Some(Written { room_id: room.room.room_id.as_str().to_owned(), json, typing: ephemeral.typing }))
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
    if !look.request.filter.room.timeline.unread_threads {
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

/// The receipts and the typing users that are news.
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
        if filter.accepts_type("m.typing") {
            let was_told = look.hints().is_some_and(|hints| hints.typing.contains(&room.nid));
            let typing = app.ephemeral.typing_since(room.nid, (since_ephemeral, was_told), ignored);
            if let Some(typing) = typing.filter(|typing| filter.accepts_unsent("m.typing", &typing.event)) {
                news.typing = Some(typing.anybody);
                news.events.push(typing.event);
            }
        }
        Ok(news)
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

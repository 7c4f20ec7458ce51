//! `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid

use std::{collections::HashSet, sync::Arc};

use axum::extract::State;
use bytes::Bytes;
use ruma::api::client::context::get_context::v3::Request;

use crate::{
    app::App,
    client_api::events::Events,
    http::{ApiError, Authed, RawJson},
    room::{
        event::StoredEvent,
        history::{ReadError, Surroundings},
    },
    sync::{filter::EventFilter, json::Object, token::Place},
};

/// An event, what happened right before and after it, and the room's state at the last of these.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    let (room, sight) = app.rooms.readable(&caller, &request.room_id).await?;
    let filter = EventFilter::new(&request.filter)?;
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX);
    // Of a room that the filter leaves out, only the event itself is shown.
    let limit = if filter.accepts_room(&room.room_id) { limit.min(app.config.limits.page_events as usize) } else { 0 };
    let ignored = app.account_data.ignored(&caller.user).await?;
    let wanted = |event: &StoredEvent| filter.accepts(event) && !event.is_hidden_by(&ignored);
    let around = app.rooms.surroundings(&room, &sight, &request.event_id, limit, wanted).await?;
    if around.event.1.is_hidden_by(&ignored) {
        return Err(ReadError::UnknownEvent.into());
    }

    let mut state = app.rooms.state_events(&room, around.end).await?;
    if !filter.lazy_load.is_disabled() {
        keep_members_of_senders(&mut state, &around);
    }
    let events = Events::new(&app, &caller, &sight);
    let mut out = Vec::new();
    let mut object = Object::begin(&mut out);
    events.write(object.key("event"), &around.event.1).await?;
    events.write_timeline(object.key("events_before"), &around.before).await?;
    events.write_timeline(object.key("events_after"), &around.after).await?;
    events.write_state(object.key("state"), &state);
    object.string("start", &Place(around.start).to_string());
    object.string("end", &Place(around.end).to_string());
    object.end();
    Ok(RawJson(Bytes::from(out)))
}

/// Of the member events, only those of users whose events are shown stay.
fn keep_members_of_senders(state: &mut Vec<Arc<StoredEvent>>, around: &Surroundings) {
    let shown = around.before.iter().chain(&around.after).chain([&around.event]);
    let senders: HashSet<_> = shown.map(|(_, event)| event.sender().as_str()).collect();
    state.retain(|event| {
        let is_member = event.pdu.event_type == "m.room.member";
        !is_member || event.pdu.state_key.as_deref().is_some_and(|user_id| senders.contains(user_id))
    });
}

//! `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid

use std::collections::HashSet;

use axum::extract::State;
use bytes::Bytes;
use ruma::{
    UInt, UserId,
    api::{IncomingRequest, client::context::get_context::v3::Request, error::DeserializationError},
};

use crate::{
    app::App,
    client_api::{events::Events, large_state::StateTurn, with::same_endpoint},
    endpoint::Authed,
    filter::{EventFilter, fields_in_query},
    http::{ApiError, RawJson},
    room::{
        event::StoredEvent,
        read::{
            pages::{PageLimit, PageRange, PageSource},
            relations::RelatedBy,
            timeline::TimelineEvent,
        },
    },
    store::TimelinePlace,
    sync::{json::Object, token::PageToken},
};

/// Returns an event, the events right before and after it, and the room's state at the last of them.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Asked { request, related }, .. }: Authed<Asked>,
) -> Result<RawJson, ApiError> {
    let viewer = app.rooms.viewer(&app.account_data, &caller, &request.room_id).await?;
    let filter = EventFilter::new(&request.filter, related)?;
    // If the filter excludes the room, only the event itself is shown.
    let wanted_events = if filter.accepts_room(&viewer.room.room_id) { request.limit } else { UInt::MIN };
    let source = PageSource::Timeline(filter.related(app.rooms.state_horizon(&viewer.sight)));
    let wanted = |event: &StoredEvent| filter.accepts(event);
    let event = app.rooms.event(&viewer, &request.event_id).await?;
    let (place, now) = (event.0, TimelinePlace::on_line(app.db.committer().published()));
    let mut turn = StateTurn::of(&app, &caller, &viewer.room).await?;
    let (limit_before, limit_after) = PageLimit::new(&app.config.limits, wanted_events.into()).halves();
    let back = PageRange::Back { from: place.just_before(), until: TimelinePlace::BEFORE_ALL };
    let before = app.rooms.page(&viewer, source, back, limit_before, wanted).await?.events;
    let forward = PageRange::Forward { after: place, upto: now };
    let after = app.rooms.page(&viewer, source, forward, limit_after, wanted).await?.events;
    let start = before.last().map_or(place, |(place, _)| *place).just_before();
    let end = after.last().map_or(place, |(place, _)| *place);

    let state = if filter.lazy_load.is_disabled() {
        turn.read(|| app.rooms.state_events(&viewer.room, end.line_upto())).await?
    } else {
        let senders = senders(before.iter().chain(&after).chain([&event]));
        turn.read(|| app.rooms.state_events_with_members(&viewer.room, end.line_upto(), &senders)).await?
    };
    let events = Events::new(&app, &viewer);
    let mut out = Vec::new();
    let mut object = Object::begin(&mut out);
    events.write(object.key("event"), &event.1).await?;
    events.write_timeline(object.key("events_before"), &before).await?;
    events.write_timeline(object.key("events_after"), &after).await?;
    events.write_state(object.key("state"), &state);
    object.string("start", &PageToken(start).to_string());
    object.string("end", &PageToken(end).to_string());
    object.end();
    Ok(RawJson(Bytes::from(out)))
}

/// Ruma's request, with the filter fields that Ruma does not know.
pub(super) struct Asked {
    request: Request,
    related: RelatedBy,
}

same_endpoint!(Asked as Request);

impl IncomingRequest for Asked {
    type EndpointError = <Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = <Request as IncomingRequest>::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let related = fields_in_query(request.uri().query());
        let request = Request::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, related: related? })
    }
}

/// The senders of these events.
fn senders<'a>(shown: impl Iterator<Item = &'a TimelineEvent>) -> HashSet<&'a UserId> {
    shown.map(|(_, event)| event.sender()).collect()
}

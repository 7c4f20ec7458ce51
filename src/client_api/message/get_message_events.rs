//! `GET /_matrix/client/v3/rooms/{roomId}/messages` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages

use std::{collections::BTreeSet, sync::Arc};

use axum::{extract::State, http::StatusCode};
use bytes::Bytes;
use ruma::api::{
    Direction, IncomingRequest,
    client::message::get_message_events::v3::Request,
    error::{DeserializationError, ErrorKind},
};

use crate::{
    app::App,
    client_api::{events::Events, with::same_endpoint},
    endpoint::Authed,
    filter::{EventFilter, fields_in_query},
    http::{ApiError, RawJson},
    room::{
        Room,
        event::StoredEvent,
        read::{
            pages::{Page, PageLimit, PageRange, PageSource},
            relations::RelatedBy,
            timeline::TimelineEvent,
        },
    },
    store::{self, TimelinePlace},
    sync::{json::Object, token::PageToken},
};

/// A page of the room's history, in either direction. `end` is missing when no more events can follow: at the room's
/// beginning, at `to`, and for a caller who cannot see new events. At the live end, the client continues from `end`
/// when new events arrive.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Asked>,
) -> Result<RawJson, ApiError> {
    let Asked { request, related, names_direction } = request;
    let viewer = app.rooms.viewer(&app.account_data, &caller, &request.room_id).await?;
    if !names_direction {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::MissingParam, "dir is missing: b or f."));
    }
    let horizon = app.rooms.state_horizon(&viewer.sight);
    let now = TimelinePlace::on_line(horizon);
    // As in /sync, an empty token is none.
    let place =
        |token: &Option<String>| token.as_deref().filter(|token| !token.is_empty()).map(PageToken::parse).transpose();
    let (from, to) = (place(&request.from)?.map(|from| from.0), place(&request.to)?.map(|to| to.0));
    let filter = EventFilter::new(&request.filter, related)?;
    let wanted = filter.limit.map_or(u64::from(request.limit), |limit| limit.min(request.limit.into()));
    let limit = PageLimit::new(&app.config.limits, wanted);
    let source = PageSource::Timeline(filter.related(horizon));
    let wanted = |event: &StoredEvent| filter.accepts(event);

    let (start, page) = if !filter.accepts_room(&viewer.room.room_id) {
        (from.unwrap_or(now), Page::default())
    } else if request.dir == Direction::Backward {
        let start = from.unwrap_or(now);
        let range = PageRange::Back { from: start.min(now), until: to.unwrap_or(TimelinePlace::BEFORE_ALL) };
        let mut page = app.rooms.page(&viewer, source, range, limit, wanted).await?;
        // No event precedes the room's first, so the client need not ask.
        if page.events.last().is_some_and(|(_, event)| event.pdu.event_type == "m.room.create") {
            page.next = None;
        }
        (start, page)
    } else {
        // A place after all events would be the end of each page for ever, without the events that come before it.
        let start = from.unwrap_or(TimelinePlace::BEFORE_ALL).min(now);
        let upto = to.map_or(now, |to| to.min(now));
        let range = PageRange::Forward { after: start, upto };
        let mut page = app.rooms.page(&viewer, source, range, limit, wanted).await?;
        if page.next.is_none() && upto == now && viewer.sight.sees_now(horizon) {
            // The token stays the same while no event arrives; clients notice by this that they are at the live end.
            page.next = Some(start.max(TimelinePlace::on_line(viewer.room.last_pos().min(horizon))));
        }
        (start, page)
    };

    let members = if filter.lazy_load.is_disabled() {
        Vec::new()
    } else {
        members_of_senders(&app, &viewer.room, &page.events).await?
    };
    let events = Events::new(&app, &viewer);
    let mut out = Vec::new();
    let mut object = Object::begin(&mut out);
    events.write_timeline(object.key("chunk"), &page.events).await?;
    object.string("start", &PageToken(start).to_string());
    if let Some(next) = page.next {
        object.string("end", &PageToken(next).to_string());
    }
    if !members.is_empty() {
        events.write_state(object.key("state"), &members);
    }
    object.end();
    Ok(RawJson(Bytes::from(out)))
}

/// The request, accepted also without a direction. A caller who may not read the room gets that error first, before any
/// other error in the request.
pub(super) struct Asked {
    request: Request,
    related: RelatedBy,
    names_direction: bool,
}

same_endpoint!(Asked as Request);

impl IncomingRequest for Asked {
    type EndpointError = <Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = <Request as IncomingRequest>::OutgoingResponse;

    fn try_from_http_request_inner(
        mut request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        let names_direction = query.split('&').any(|parameter| parameter.starts_with("dir="));
        if !names_direction {
            let with_one = format!("{}?dir=b&{query}", request.uri().path());
            // A valid URI stays valid with the added parameter. An invalid one is refused because `dir` is missing.
            if let Ok(uri) = with_one.parse() {
                *request.uri_mut() = uri;
            }
        }
        let related = fields_in_query(request.uri().query());
        let request = Request::try_from_http_request_inner(request, path_args)?;
        Ok(Self { request, related: related?, names_direction })
    }
}

/// The member events of all senders on the page, as of its newest event.
async fn members_of_senders(
    app: &App,
    room: &Room,
    page: &[TimelineEvent],
) -> Result<Vec<Arc<StoredEvent>>, store::Error> {
    let Some(upto) = page.iter().map(|(place, _)| place.line_upto()).max() else { return Ok(Vec::new()) };
    let senders: BTreeSet<_> = page.iter().map(|(_, event)| event.sender()).collect();
    let mut members = Vec::with_capacity(senders.len());
    for sender in senders {
        members.extend(app.rooms.state_event(room, "m.room.member", sender.as_str(), upto).await?);
    }
    Ok(members)
}

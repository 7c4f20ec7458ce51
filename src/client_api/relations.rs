//! The events that relate to an event: [`ruma::api::client::relations`].

mod get_relating_events;
mod get_relating_events_with_rel_type;
mod get_relating_events_with_rel_type_and_event_type;

use bytes::Bytes;
use ruma::{
    EventId, RoomId, UInt,
    api::{Direction, error::DeserializationError},
};

use super::{
    events::Events,
    with::{Besides, With},
};
use crate::{
    account::LocalDevice,
    app::App,
    endpoint::Routes,
    http::{ApiError, RawJson},
    limits::rate_limits::Action,
    room::{
        event::StoredEvent,
        read::{
            pages::{PageLimit, PageRange, PageSource},
            relations::MAX_DEPTH,
            viewer::ReadError,
        },
    },
    store::TimelinePlace,
    sync::{json::Object, token::PageToken},
};

/// The default number of events on a page.
const DEFAULT_LIMIT: u32 = 50;

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_relating_events::handle)
        .serve(Action::Other, get_relating_events_with_rel_type::handle)
        .serve(Action::Other, get_relating_events_with_rel_type_and_event_type::handle)
}

/// The types in the path of a request, exactly as the client wrote them. Ruma replaces some unstable types with their
/// stable aliases, but an event is found only under the type with which it was sent.
struct ExactTypes {
    rel_type: Option<String>,
    event_type: Option<String>,
}

impl Besides for ExactTypes {
    fn read(_: &http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError> {
        // The path has the room and the event first.
        let argument = |place: usize| path_args.get(place).map(|text| (*text).to_owned());
        Ok(Self { rel_type: argument(2), event_type: argument(3) })
    }
}

/// The request that the three endpoints have in common.
struct Asked<'a> {
    room_id: &'a RoomId,
    event_id: &'a EventId,
    rel_type: Option<&'a str>,
    event_type: Option<&'a str>,
    dir: Direction,
    from: Option<&'a str>,
    to: Option<&'a str>,
    limit: Option<UInt>,
    recurse: bool,
}

/// A page of the events that relate to an event. `next_batch` is missing when there are no more.
async fn page(app: &App, caller: &LocalDevice, asked: Asked<'_>) -> Result<RawJson, ApiError> {
    let viewer = app.rooms.viewer(&app.account_data, caller, asked.room_id).await.map_err(ReadError::of_event)?;
    let now = TimelinePlace::on_line(app.rooms.state_horizon(&viewer.sight));
    let place = |token: Option<&str>| token.map(PageToken::parse).transpose();
    let (from, to) = (place(asked.from)?.map(|from| from.0), place(asked.to)?.map(|to| to.0));
    let limit = PageLimit::new(&app.config.limits, asked.limit.map_or(DEFAULT_LIMIT.into(), u64::from));
    let wanted = |event: &StoredEvent| asked.event_type.is_none_or(|event_type| event.pdu.event_type == event_type);
    let relations = app.rooms.relations(&viewer, asked.event_id, asked.rel_type, asked.recurse).await?;
    let range = match asked.dir {
        Direction::Backward => PageRange::Back {
            from: from.map_or(now, |from| from.min(now)),
            until: to.unwrap_or(TimelinePlace::BEFORE_ALL),
        },
        Direction::Forward => PageRange::Forward {
            after: from.unwrap_or(TimelinePlace::BEFORE_ALL),
            upto: to.map_or(now, |to| to.min(now)),
        },
    };
    let page = app.rooms.page(&viewer, PageSource::Relations(&relations), range, limit, wanted).await?;
    let mut out = Vec::new();
    let mut object = Object::begin(&mut out);
    Events::new(app, &viewer).write_timeline(object.key("chunk"), &page.events).await?;
    if let Some(next) = page.next {
        object.string("next_batch", &PageToken(next).to_string());
    }
    // Reading in the other direction from the start of this page gives the events before it.
    if let Some(from) = from {
        object.string("prev_batch", &PageToken(from).to_string());
    }
    if asked.recurse {
        object.raw("recursion_depth", &MAX_DEPTH.to_string());
    }
    object.end();
    Ok(RawJson(Bytes::from(out)))
}

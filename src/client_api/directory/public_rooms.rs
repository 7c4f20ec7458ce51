//! Pages of the public directory, for clients and for other servers: this server's rooms, those with the most local
//! members first. A client may also ask for another server's directory; we then request it from that server.
//!
//! A token is the number of rooms before the page. Rooms that are added or removed between two pages may shift it; the
//! specification allows that.

use ruma::{
    OwnedMxcUri, OwnedRoomAliasId, ServerName, UInt,
    directory::{Filter, PublicRoomsChunk, PublicRoomsChunkInit, RoomTypeFilter},
    room::RoomType,
};
use serde::de::DeserializeOwned;

use crate::{
    app::App,
    http::ApiError,
    room::Room,
    store::{self, Position, RoomNid},
};

/// The maximum number of rooms per page, and the default.
const MAX_PAGE: usize = 100;

/// The maximum number of rooms that are examined for one page, when most do not match. The next page goes on from
/// there.
const MAX_SCANNED: usize = 500;

/// The maximum length of a search term.
const MAX_SEARCH_TERM_BYTES: usize = 255;

/// The query for a page of the directory.
pub(crate) struct Query<'a> {
    pub(crate) limit: Option<UInt>,
    pub(crate) since: Option<&'a str>,
    pub(crate) server: Option<&'a ServerName>,
    pub(crate) filter: &'a Filter,
    /// True if another server asks: then only rooms that other servers' users may join are listed.
    pub(crate) federating: bool,
}

/// A page of the directory.
pub(crate) struct Listed {
    pub(crate) chunk: Vec<PublicRoomsChunk>,
    pub(crate) next_batch: Option<String>,
    pub(crate) prev_batch: Option<String>,
    pub(crate) total: UInt,
}

/// Reads a page of the directory.
///
/// # Errors
/// For a token that is not ours, a search term that is too long, or another server's directory that we cannot get.
pub(crate) async fn list(app: &App, query: &Query<'_>) -> Result<Listed, ApiError> {
    let term = query.filter.generic_search_term.as_deref().unwrap_or_default().to_lowercase();
    if term.len() > MAX_SEARCH_TERM_BYTES {
        return Err(ApiError::invalid_param(format!("A search term has at most {MAX_SEARCH_TERM_BYTES} bytes.")));
    }
    let limit = query.limit.map_or(MAX_PAGE, |limit| usize::try_from(u64::from(limit)).unwrap_or(MAX_PAGE));
    let limit = limit.clamp(1, MAX_PAGE);
    if let Some(server) = query.server.filter(|server| *server != app.rooms.server_name()) {
        return list_elsewhere(app, server, limit, query).await;
    }
    let start: usize = match query.since {
        Some(since) => since.parse().map_err(|_| ApiError::invalid_param("since is a token of this server."))?,
        None => 0,
    };

    let rooms = app.rooms.published_rooms().await?;
    let mut chunk = Vec::new();
    let mut next = start;
    for nid in rooms.iter().skip(start).take(MAX_SCANNED) {
        if chunk.len() == limit {
            break;
        }
        next += 1;
        let entry = shown(app, *nid, query.federating).await;
        let Some(entry) = app.rooms.contain(*nid, entry)?.flatten() else { continue };
        if matches(&entry, &term) && is_of_type(&entry, &query.filter.room_types) {
            chunk.push(entry);
        }
    }
    Ok(Listed {
        chunk,
        next_batch: (next < rooms.len()).then(|| next.to_string()),
        prev_batch: (start > 0).then(|| start.saturating_sub(limit).to_string()),
        total: UInt::try_from(rooms.len()).unwrap_or(UInt::MAX),
    })
}

/// A page of another server's directory. Its tokens are that server's.
async fn list_elsewhere(app: &App, server: &ServerName, limit: usize, query: &Query<'_>) -> Result<Listed, ApiError> {
    let Some(federation) = &app.federation else {
        return Err(ApiError::forbidden("This server does not federate, so it has only its own directory."));
    };
    let listed = federation.public_rooms(server, limit, query.since, query.filter).await?;
    let total = listed.total_room_count_estimate;
    Ok(Listed {
        total: total.unwrap_or_else(|| UInt::try_from(listed.chunk.len()).unwrap_or(UInt::MAX)),
        chunk: listed.chunk,
        next_batch: listed.next_batch,
        prev_batch: listed.prev_batch,
    })
}

/// Returns whether the name, topic or alias contains the search term, ignoring case.
fn matches(entry: &PublicRoomsChunk, term: &str) -> bool {
    let alias = entry.canonical_alias.as_ref().map(|alias| alias.as_str());
    let mut texts = [entry.name.as_deref(), entry.topic.as_deref(), alias].into_iter().flatten();
    term.is_empty() || texts.any(|text| text.to_lowercase().contains(term))
}

fn is_of_type(entry: &PublicRoomsChunk, types: &[RoomTypeFilter]) -> bool {
    types.is_empty() || types.contains(&RoomTypeFilter::from(entry.room_type.clone()))
}

/// Returns whether users of other servers may join the room ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mroomcreate
async fn federates(app: &App, room: &Room) -> Result<bool, store::Error> {
    let read = Reader { app, room, now: app.db.committer().published() };
    Ok(read.field::<bool>("m.room.create", "m.federate").await?.unwrap_or(true))
}

/// The directory's entry for a room, or `None` if the room is not open to the asking server.
async fn shown(app: &App, nid: RoomNid, federating: bool) -> Result<Option<PublicRoomsChunk>, store::Error> {
    let room = app.rooms.by_nid(nid).await?;
    if federating && !federates(app, &room).await? {
        return Ok(None);
    }
    entry(app, &room).await.map(Some)
}

/// The directory's entry for a room, from its current state.
async fn entry(app: &App, room: &Room) -> Result<PublicRoomsChunk, store::Error> {
    let now = app.db.committer().published();
    let (joined, _) = app.rooms.member_counts(room, now).await?;
    let read = Reader { app, room, now };
    let history = read.text("m.room.history_visibility", "history_visibility").await?;
    let guests = read.text("m.room.guest_access", "guest_access").await?;
    let mut entry = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: UInt::try_from(joined).unwrap_or(UInt::MAX),
        room_id: room.room_id.clone(),
        world_readable: history.as_deref() == Some("world_readable"),
        guest_can_join: guests.as_deref() == Some("can_join"),
    });
    entry.name = read.text("m.room.name", "name").await?.filter(|name| !name.is_empty());
    entry.topic = read.text("m.room.topic", "topic").await?.filter(|topic| !topic.is_empty());
    entry.canonical_alias = read.field::<OwnedRoomAliasId>("m.room.canonical_alias", "alias").await?;
    entry.avatar_url = read.field::<OwnedMxcUri>("m.room.avatar", "url").await?;
    entry.room_type = read.field::<RoomType>("m.room.create", "type").await?;
    if let Some(join_rule) = read.text("m.room.join_rules", "join_rule").await? {
        entry.join_rule = join_rule.into();
    }
    Ok(entry)
}

struct Reader<'a> {
    app: &'a App,
    room: &'a Room,
    now: Position,
}

impl Reader<'_> {
    async fn text(&self, event_type: &str, field: &str) -> Result<Option<String>, store::Error> {
        self.field(event_type, field).await
    }

    /// A field of a state event's content. Also `None` if the field has another type.
    async fn field<T: DeserializeOwned>(&self, event_type: &str, field: &str) -> Result<Option<T>, store::Error> {
        let event = self.app.rooms.state_event(self.room, event_type, "", self.now).await?;
        let content = event.and_then(|event| event.content::<serde_json::Map<String, serde_json::Value>>());
        let value = content.and_then(|mut content| content.remove(field));
        Ok(value.and_then(|value| serde_json::from_value(value).ok()))
    }
}

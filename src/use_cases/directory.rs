//! Pages of the public directory, for clients and for other servers: this server's rooms, those with the most
//! members first. A client may also ask for another server's directory; we then request it from that server.
//! No room is loaded: what a page shows is in columns of `room_head` ([`crate::room::listing`]).
//!
//! A token is the number of rooms before the page. Rooms that are added or removed between two pages may shift it; the
//! specification allows that.

use ruma::{
    OwnedMxcUri, ServerName, UInt,
    directory::{Filter, PublicRoomsChunk, PublicRoomsChunkInit, RoomTypeFilter},
    room::RoomType,
};

use crate::{app::App, remote::FederationError, room::listing::Listing, store};

/// The maximum number of rooms per page, and the default.
const MAX_PAGE: usize = 100;

/// The maximum number of rooms that are examined for one page, when most do not match. The next page goes on from
/// there.
const MAX_SCANNED: usize = 500;

/// The maximum length of a search term.
pub const MAX_SEARCH_TERM_BYTES: usize = 255;

/// Why there is no page of the directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("the search term is too long")]
    LongSearchTerm,
    #[error("the token is not one of this server")]
    UnknownToken,
    #[error("this server does not federate")]
    NotFederating,
    #[error("the other server gave no page")]
    Federation(#[from] FederationError),
    #[error("the directory could not be read")]
    Storage(#[from] store::Error),
}

/// The query for a page of the directory.
pub struct Query<'a> {
    pub limit: Option<UInt>,
    pub since: Option<&'a str>,
    pub server: Option<&'a ServerName>,
    pub filter: &'a Filter,
    /// True if another server asks: then only rooms that other servers' users may join are listed.
    pub federating: bool,
}

/// A page of the directory.
pub struct Listed {
    pub chunk: Vec<PublicRoomsChunk>,
    pub next_batch: Option<String>,
    pub prev_batch: Option<String>,
    pub total: UInt,
}

/// Reads a page of the directory.
///
/// # Errors
/// For a token that is not ours, a search term that is too long, or another server's directory that we cannot get.
pub async fn list(app: &App, query: &Query<'_>) -> Result<Listed, DirectoryError> {
    let term = query.filter.generic_search_term.as_deref().unwrap_or_default().to_lowercase();
    if term.len() > MAX_SEARCH_TERM_BYTES {
        return Err(DirectoryError::LongSearchTerm);
    }
    let limit = query.limit.map_or(MAX_PAGE, |limit| usize::try_from(u64::from(limit)).unwrap_or(MAX_PAGE));
    let limit = limit.clamp(1, MAX_PAGE);
    if let Some(server) = query.server.filter(|server| *server != app.rooms.server_name()) {
        return list_elsewhere(app, server, limit, query).await;
    }
    let start: usize = match query.since {
        Some(since) => since.parse().map_err(|_| DirectoryError::UnknownToken)?,
        None => 0,
    };

    let rooms = app.rooms.published_rooms().await?;
    let mut chunk = Vec::new();
    let mut next = start;
    let scanned = &rooms[start.min(rooms.len())..];
    let scanned = &scanned[..scanned.len().min(MAX_SCANNED)];
    for piece in scanned.chunks(MAX_PAGE) {
        if chunk.len() == limit {
            break;
        }
        let mut listings = app.rooms.listings(piece).await?.into_iter().peekable();
        for nid in piece {
            if chunk.len() == limit {
                break;
            }
            next += 1;
            // A room that is damaged is left out.
            let Some(listing) = listings.next_if(|listing| listing.nid == *nid) else { continue };
            if query.federating && !listing.federates {
                continue;
            }
            let entry = entry(listing);
            if matches(&entry, &term) && is_of_type(&entry, &query.filter.room_types) {
                chunk.push(entry);
            }
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
async fn list_elsewhere(
    app: &App,
    server: &ServerName,
    limit: usize,
    query: &Query<'_>,
) -> Result<Listed, DirectoryError> {
    let Some(federation) = &app.federation else {
        return Err(DirectoryError::NotFederating);
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

/// The directory's entry for a room.
fn entry(listing: Listing) -> PublicRoomsChunk {
    let mut entry = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: UInt::try_from(listing.joined).unwrap_or_default(),
        room_id: listing.room_id,
        world_readable: listing.history.as_deref() == Some("world_readable"),
        guest_can_join: listing.guests.as_deref() == Some("can_join"),
    });
    entry.name = listing.name;
    entry.topic = listing.topic;
    entry.canonical_alias = listing.alias.and_then(|alias| alias.try_into().ok());
    entry.avatar_url = listing.avatar.map(OwnedMxcUri::from);
    entry.room_type = listing.room_type.map(RoomType::from);
    if let Some(join_rule) = listing.join_rule {
        entry.join_rule = join_rule.into();
    }
    entry
}

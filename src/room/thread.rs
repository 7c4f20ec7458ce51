//! Threads ([spec]): whether an event belongs to one.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#threading

use ruma::{EventId, OwnedEventId};
use serde::Deserialize;

use super::{Room, Rooms, event::StoredEvent};
use crate::store::{Error, rooms as rows};

/// How many relations are followed to a thread: a reaction to an edit of an answer is three away. What is further away is
/// not judged.
const MAX_HOPS: usize = 5;

/// The receipts of the room without its threads.
pub const MAIN: &str = "main";

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<Relation>,
}

#[derive(Deserialize)]
struct Relation {
    rel_type: Option<String>,
    event_id: Option<OwnedEventId>,
}

/// Where an event stands.
enum Place {
    /// In the thread that hangs on this event, or in the room itself.
    In(Option<OwnedEventId>),
    /// Where the event that it relates to stands.
    With(OwnedEventId),
    /// Nothing that is left of it says so.
    Unknown,
}

fn place(event: &StoredEvent) -> Place {
    if event.redacted_because.is_some() {
        return Place::Unknown;
    }
    match event.content::<Content>().and_then(|content| content.relates_to) {
        Some(Relation { rel_type: Some(rel_type), event_id: Some(event_id) }) if rel_type == "m.thread" => {
            Place::In(Some(event_id))
        }
        Some(Relation { rel_type: Some(_), event_id: Some(event_id) }) => Place::With(event_id),
        _ => Place::In(None),
    }
}

impl Rooms {
    /// Whether the event can be in `thread`: [`MAIN`] or the event that the thread hangs on. That one is in both. `true`
    /// also where what is left of the event, or what it relates to, does not say.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn may_be_in_thread(&self, room: &Room, event_id: &EventId, thread: &str) -> Result<bool, Error> {
        if event_id.as_str() == thread {
            return Ok(true);
        }
        let mut event_id = event_id.to_owned();
        for _ in 0..MAX_HOPS {
            let mut reader = self.db.read().await?;
            let found = rows::find_event(&mut reader.conn(), event_id.as_str()).await?;
            drop(reader);
            let Some((nid, _)) = found.filter(|(_, of)| *of == room.nid) else { return Ok(true) };
            match place(&*self.events.get(room, nid).await?) {
                Place::In(root) => {
                    // What relates to the root may be meant for either.
                    return Ok(
                        event_id.as_str() == thread || root.as_ref().map_or(MAIN, |root| root.as_str()) == thread
                    );
                }
                Place::With(related) => event_id = related,
                Place::Unknown => return Ok(true),
            }
        }
        Ok(true)
    }
}

//! Read receipts and the read marker ([spec]): how far each user has read, in the room and in its threads.
//!
//! Promises: a read event stays read, so a receipt for an older event changes nothing. A private receipt is shown only
//! to its owner. All markers of one request are one commit. The receipts of active rooms are cached.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts

mod cache;
mod mark;
mod shown;

use std::{collections::HashMap, sync::Arc};

use ruma::{EventId, UserId};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::SetError;

use self::{
    cache::RoomReceipts,
    shown::{Key, Receipt},
};
use super::Ephemeral;
use crate::{
    account_data::ignored::Ignored,
    store::{self, Position, RoomNid, UserNid, changed_rooms::AT_ONCE, ids::lock, receipts as rows},
};

pub(super) use cache::Receipts;
pub use mark::{MarkError, Markers, NewReceipt};
pub use shown::Kind;

impl Ephemeral {
    async fn room_receipts(&self, room: RoomNid) -> Result<Arc<RoomReceipts>, store::Error> {
        let receipts = self.receipts.room(room);
        // Every sync calls this for each room, and creating the future below would copy all of it each time.
        if receipts.loaded.initialized() {
            return Ok(receipts);
        }
        let load = async {
            let mut reader = self.db.read().await?;
            let stored = rows::receipts_of_rooms(&mut reader.conn(), &[room]).await?;
            drop(reader);
            self.add_stored(room, &receipts, stored.into_iter().map(|stored| stored.row))
        };
        receipts.loaded.get_or_try_init(|| Box::pin(load)).await?;
        Ok(receipts)
    }

    /// Adds the stored receipts of a room to those that were committed meanwhile.
    fn add_stored(
        &self,
        room: RoomNid,
        receipts: &Arc<RoomReceipts>,
        stored: impl Iterator<Item = rows::ReceiptRow>,
    ) -> Result<(), store::Error> {
        let mut shown = lock(&receipts.shown);
        for row in stored {
            let (key, receipt) = read_row(row)?;
            shown.apply(key, receipt);
        }
        let bytes = shown.bytes();
        drop(shown);
        self.receipts.has_grown(room, receipts, bytes);
        Ok(())
    }

    /// Reads the receipts of these rooms that are not cached, many rooms with one statement. Rooms with damaged ones are
    /// left out: they are reported when somebody asks for them.
    pub async fn prepare_receipts(&self, rooms: &[RoomNid]) -> Result<(), store::Error> {
        // In the cache before they are read, so that a commit in between finds them.
        let cached = rooms.iter().map(|room| (*room, self.receipts.room(*room)));
        let missing: Vec<_> = cached.filter(|(_, receipts)| !receipts.loaded.initialized()).collect();
        for chunk in missing.chunks(AT_ONCE) {
            let nids: Vec<RoomNid> = chunk.iter().map(|(room, _)| *room).collect();
            let stored = rows::receipts_of_rooms(&mut self.db.read().await?.conn(), &nids).await;
            let stored = match stored {
                Err(error) if error.is_damage() => continue,
                stored => stored?,
            };
            let mut by_room: HashMap<RoomNid, Vec<rows::ReceiptRow>> = HashMap::new();
            for stored in stored {
                by_room.entry(stored.room).or_default().push(stored.row);
            }
            for (room, receipts) in chunk {
                let stored = by_room.remove(room).unwrap_or_default();
                if self.add_stored(*room, receipts, stored.into_iter()).is_ok() {
                    // An error means that another task reads or has read them too.
                    let _: Result<(), SetError<()>> = receipts.loaded.set(());
                }
            }
        }
        Ok(())
    }

    /// The room's `m.receipt` event with the receipts in (`since`, `upto`] that `viewer` may see, if there are any.
    /// Omits those of users whom they ignore. Compares only two positions when nothing changed.
    pub async fn receipts_since(
        &self,
        room: RoomNid,
        viewer: UserNid,
        ignored: &Ignored,
        (since, upto): (Position, Position),
    ) -> Result<Option<Box<RawValue>>, store::Error> {
        if self.receipts.unchanged(room, since) {
            return Ok(None);
        }
        let receipts = self.room_receipts(room).await?;
        let content = lock(&receipts.shown).content(viewer, ignored, (since, upto));
        content.map(render).transpose()
    }

    /// Returns whether no receipt of the room has certainly changed after `since`.
    pub fn no_receipt_since(&self, room: RoomNid, since: Position) -> bool {
        self.receipts.unchanged(room, since)
    }

    /// The `m.receipt` event as [`Self::receipts_since`], for a viewer who ignores nobody and has no receipt of their own in
    /// (`since`, `upto`]. It is the same for all of these, and rendered once. `None` for other viewers, or if it is not in
    /// memory.
    pub fn shared_receipts(
        &self,
        room: RoomNid,
        viewer: UserNid,
        (since, upto): (Position, Position),
    ) -> Option<Option<Arc<RawValue>>> {
        let receipts = self.receipts.room(room);
        if !receipts.loaded.initialized() {
            return None;
        }
        let mut shown = lock(&receipts.shown);
        if shown.has_read_since(viewer, since, upto) {
            return None;
        }
        if let Some(rendered) = shown.rendered((since, upto)) {
            return Some(rendered);
        }
        let event = shown.content(viewer, &Ignored::default(), (since, upto)).map(render).transpose().ok()?;
        let event = event.map(Arc::<RawValue>::from);
        let before = shown.bytes();
        shown.keep_rendered((since, upto), event.clone());
        let after = shown.bytes();
        drop(shown);
        if after != before {
            self.receipts.has_grown(room, &receipts, after);
        }
        Some(event)
    }

    /// Returns whether the user has read more, publicly or privately, in (`since`, `upto`]. Compares only two positions
    /// when nothing changed in the room.
    pub async fn has_read_since(
        &self,
        room: RoomNid,
        user: UserNid,
        (since, upto): (Position, Position),
    ) -> Result<bool, store::Error> {
        if self.receipts.unchanged(room, since) {
            return Ok(false);
        }
        let receipts = self.room_receipts(room).await?;
        Ok(lock(&receipts.shown).has_read_since(user, since, upto))
    }

    /// The user's receipts in the room. Cached after the first call.
    pub async fn reads(&self, room: RoomNid, user: UserNid) -> Result<Reads, store::Error> {
        Ok(Reads { receipts: self.room_receipts(room).await?, user })
    }

    /// As [`Self::reads`], if the receipts of the room are in memory.
    pub fn reads_in_memory(&self, room: RoomNid, user: UserNid) -> Option<Reads> {
        let receipts = self.receipts.room(room);
        receipts.loaded.initialized().then_some(Reads { receipts, user })
    }
}

/// The receipts of one user in one room, always up to date.
pub struct Reads {
    receipts: Arc<RoomReceipts>,
    user: UserNid,
}

impl Reads {
    /// The later of the public and the private receipt for a thread, for `main`, or without a thread (empty). Zero if
    /// there is none.
    pub fn up_to(&self, thread: &str) -> Position {
        lock(&self.receipts.shown).read_up_to(self.user, thread).unwrap_or(Position::BEFORE_ALL)
    }
}

/// The event that shows receipts.
fn render(content: serde_json::Value) -> Result<Box<RawValue>, store::Error> {
    let event = serde_json::json!({ "type": "m.receipt", "content": content });
    to_raw_value(&event).map_err(|error| store::Error::damaged("receipts", error))
}

fn read_row(row: rows::ReceiptRow) -> Result<(Key, Receipt), store::Error> {
    let damaged = |detail: String| store::Error::damaged("receipt", detail);
    let kind = Kind::from_code(row.kind).ok_or_else(|| damaged(format!("kind {}", row.kind)))?;
    let key = Key { user: UserNid(row.user_nid), kind, thread: row.thread.into() };
    let receipt = Receipt {
        user_id: UserId::parse(&row.user_id).map_err(|error| damaged(error.to_string()))?,
        event_id: EventId::parse(&row.event_id).map_err(|error| damaged(error.to_string()))?,
        ts: row.ts,
        pos: Position(row.pos),
        event_at: row.event_pos.map(Position),
    };
    Ok((key, receipt))
}

#[cfg(test)]
mod tests;

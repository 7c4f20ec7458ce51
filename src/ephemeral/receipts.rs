//! Read receipts and the read marker ([spec]): how far each user has read, in the room and in its threads.
//!
//! Promises: a read event stays read, so a receipt for an older event changes nothing. A private receipt is shown only
//! to its owner. All markers of one request are one commit. The receipts of active rooms are cached.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts

mod cache;
mod shown;

use std::{collections::HashMap, sync::Arc};

use ruma::{EventId, OwnedEventId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::SetError;

use self::{
    cache::RoomReceipts,
    shown::{Key, Receipt},
};
use super::Ephemeral;
use crate::{
    account_data::{AccountData, FULLY_READ, PutError, ignored::Ignored},
    room::{Room, Rooms},
    store::{
        self, Position, RoomNid, Row, UserNid, Write, changed_rooms::AT_ONCE, ids::lock, log::Touch, receipts as rows,
        vocabulary::User,
    },
};

pub(super) use cache::Receipts;
pub use shown::Kind;

/// The receipts and the read marker of one request.
#[derive(Debug, Default)]
pub struct Markers {
    pub fully_read: Option<OwnedEventId>,
    pub receipts: Vec<NewReceipt>,
}

impl Markers {
    pub fn receipt(receipt: NewReceipt) -> Self {
        Self { fully_read: None, receipts: vec![receipt] }
    }
}

/// A receipt as a client sends it.
#[derive(Debug)]
pub struct NewReceipt {
    pub kind: Kind,
    /// `None` for a receipt without a thread, otherwise `main` or the thread's root event.
    pub thread: Option<String>,
    pub event_id: OwnedEventId,
}

/// Why nothing was marked as read.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    #[error("{0} is not an event of this room")]
    UnknownEvent(OwnedEventId),
    #[error(transparent)]
    Data(#[from] PutError),
    #[error("the receipt could not be stored")]
    Storage(#[from] store::Error),
}

#[derive(Serialize, Deserialize)]
struct FullyRead {
    event_id: OwnedEventId,
}

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

    /// Marks events of the room as read. Events that were already read stay so. The caller must check that the user is
    /// joined.
    ///
    /// # Errors
    /// After [`MarkError::Storage`] the receipts may be stored; sending them again settles it.
    pub async fn mark_read(
        &self,
        rooms: &Rooms,
        room: &Arc<Room>,
        user: &User,
        markers: Markers,
    ) -> Result<(), MarkError> {
        // Needs the user's turn: between reading the old receipts and the commit, no other request may move them.
        let turn = self.data.turn(user.nid).await;
        let known = self.room_receipts(room.nid).await?;
        let now = self.clock.now_ms();

        let mut receipts: Vec<(Key, Receipt)> = Vec::new();
        for new in markers.receipts {
            let at = position_of(rooms, room, &new.event_id).await?;
            let key = Key { user: user.nid, kind: new.kind, thread: new.thread.unwrap_or_default().into() };
            if lock(&known.shown).is_ahead(&key, at) {
                continue;
            }
            let (user_id, pos) = (user.user_id.clone(), Position::BEFORE_ALL);
            receipts.push((key, Receipt { user_id, event_id: new.event_id, ts: now, pos, event_at: Some(at) }));
        }
        let fully_read = match markers.fully_read {
            Some(event_id) => {
                let at = position_of(rooms, room, &event_id).await?;
                let old = self.data.find(user.nid, room.nid, FULLY_READ).await?;
                let old_at = match old.as_deref().map(RawValue::get).map(serde_json::from_str::<FullyRead>) {
                    Some(Ok(old)) => {
                        rooms.find_in_timeline(room, &old.event_id).await?.and_then(|event| event.read_at())
                    }
                    _ => None,
                };
                if old_at.is_some_and(|old_at| at <= old_at) {
                    None
                } else {
                    let content = serde_json::to_string(&FullyRead { event_id })
                        .map_err(|error| store::Error::damaged("read marker", error))?;
                    let old_bytes = old.as_deref().map(|old| old.get().len());
                    self.data.check_room_for(&turn, old_bytes, content.len()).await?;
                    Some(Arc::<str>::from(content))
                }
            }
            None => None,
        };
        if receipts.is_empty() && fully_read.is_none() {
            return Ok(());
        }
        self.store(room.nid, user.nid, receipts, fully_read).await?;
        Ok(())
    }

    async fn store(
        &self,
        room: RoomNid,
        user: UserNid,
        mut receipts: Vec<(Key, Receipt)>,
        fully_read: Option<Arc<str>>,
    ) -> Result<(), store::Error> {
        let public = receipts.iter().any(|(key, _)| key.kind == Kind::Read);
        let mut touches: Vec<Touch> = Vec::new();
        if !receipts.is_empty() {
            touches.push(Touch::Receipt { room, user, private: !public });
        }
        if fully_read.is_some() {
            touches.push(AccountData::touch(user, room, FULLY_READ));
        }
        let committed = self.db.committer().submit::<store::Error>(1, |position| {
            let mut rows: Vec<Row> = Vec::with_capacity(receipts.len() + 1);
            for (key, receipt) in &mut receipts {
                receipt.pos = position;
                rows.push(
                    rows::ReceiptColumns {
                        room_nid: room,
                        user_nid: user,
                        kind: key.kind.code(),
                        thread: Arc::clone(&key.thread),
                        event_id: receipt.event_id.as_str().into(),
                        ts: receipt.ts,
                        pos: position,
                    }
                    .row(),
                );
            }
            if let Some(content) = fully_read {
                rows.push(AccountData::row(user, room, FULLY_READ, content, position));
            }
            if !receipts.is_empty() {
                lock(&self.receipts.queued).insert(position, receipts);
            }
            Ok(touches.into_iter().fold(Write::new(rows), Write::touching))
        })?;
        committed.wait().await?;
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

async fn position_of(rooms: &Rooms, room: &Arc<Room>, event_id: &EventId) -> Result<Position, MarkError> {
    let found = rooms.find_in_timeline(room, event_id).await?.and_then(|event| event.read_at());
    found.ok_or_else(|| MarkError::UnknownEvent(event_id.to_owned()))
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

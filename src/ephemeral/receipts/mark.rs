//! Marking as read: the receipts and the read marker of one request, in one commit.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Ephemeral,
    shown::{Key, Kind, Receipt},
};
use crate::{
    account_data::{AccountData, FULLY_READ, PutError},
    room::{Room, Rooms},
    store::{self, Position, RoomNid, Row, UserNid, Write, ids::lock, log::Touch, receipts as rows, vocabulary::User},
};

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
        let turn = self.data.turn(user.nid).await?;
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

    pub(super) async fn store(
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
}

async fn position_of(rooms: &Rooms, room: &Arc<Room>, event_id: &EventId) -> Result<Position, MarkError> {
    let found = rooms.find_in_timeline(room, event_id).await?.and_then(|event| event.read_at());
    found.ok_or_else(|| MarkError::UnknownEvent(event_id.to_owned()))
}

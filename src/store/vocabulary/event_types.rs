//! Event types, with their short ids.

use std::{collections::HashMap, sync::Arc};

use super::{Mark, Word, escape, read, write};
use crate::store::{
    Database, Error, TypeNid, Write,
    log::{Touch, WordKind},
    on,
    rows::inserts,
    statements,
};

statements! {
    FIND_TYPE = "SELECT type_nid FROM event_type WHERE type = $1";
}

inserts! {
    EVENT_TYPE: EventTypeColumns = "event_type" (type_nid: TypeNid, r#type: Word) key 1 Keep, followed by Word;
}

/// An event type, with its short id.
#[derive(Debug)]
pub struct EventType {
    pub nid: TypeNid,
    pub event_type: Arc<str>,
    pub(super) stored: Arc<Mark>,
}

impl EventType {
    /// Adds the row to `write`, unless it is known to be stored.
    pub fn write_if_new(&self, write: &mut Write) {
        if !self.stored.is_stored() {
            let row = EventTypeColumns { type_nid: self.nid, r#type: Word(Arc::clone(&self.event_type)) }.row();
            write.add_word(row, Touch::Word { kind: WordKind::EventType, nid: self.nid.0 }, Arc::clone(&self.stored));
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Types {
    pub(super) by_name: HashMap<Arc<str>, Arc<EventType>>,
    /// The types that are not stored yet.
    pub(super) new: HashMap<TypeNid, Arc<EventType>>,
}

impl Types {
    /// Forgets event types that are not stored yet.
    pub(super) fn forget_new(&mut self) {
        for (_, known) in self.new.drain() {
            known.stored.give_up();
            self.by_name.remove(&known.event_type);
        }
    }

    /// Evicts event types that nobody holds, if there are more than `kept`.
    pub(super) fn forget(&mut self, kept: usize) {
        if self.by_name.len() > kept {
            self.by_name.retain(|_, known| Arc::strong_count(known) > 1 || !known.stored.is_stored());
        }
    }
}

impl Database {
    /// The event type, with a new short id if there was none.
    pub async fn event_type(&self, event_type: &str) -> Result<Arc<EventType>, Error> {
        let types = &self.vocabulary().types;
        if let Some(known) = read(types).by_name.get(event_type) {
            return Ok(Arc::clone(known));
        }
        let openings = self.committer().ids().openings();
        let mut reader = self.read().await?;
        let row: Option<(i64,)> = on!(&mut reader.conn(), db =>
            sqlx::query_as(FIND_TYPE.text()).bind(escape(event_type)).fetch_optional(&mut **db).await)?;
        let mut types = write(types);
        if let Some(known) = types.by_name.get(event_type) {
            return Ok(Arc::clone(known));
        }
        let nid = match row {
            Some((nid,)) => TypeNid(nid),
            None => {
                self.committer().ids().ensure_since(openings)?;
                self.committer().ids().event_type()?
            }
        };
        let event_type: Arc<str> = event_type.into();
        let stored = Arc::new(Mark::new(row.is_some()));
        let known = Arc::new(EventType { nid, event_type: Arc::clone(&event_type), stored });
        if row.is_none() {
            types.new.insert(nid, Arc::clone(&known));
        }
        types.by_name.insert(event_type, Arc::clone(&known));
        Ok(known)
    }
}

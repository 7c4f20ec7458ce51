//! The cache of stored events, which loads missing ones from the database.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use ruma::{EventId, OwnedUserId, RoomVersionId, room_version_rules::RoomVersionRules};
use sabha_federation::{Pdu, standing::Flags};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Room,
    event::{Replaced, StoredEvent},
};
use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    store::{self, Database, Error, EventNid, KeyNid, Reader, RoomNid, events as rows},
};

/// The number of events that an answer needs at once from which those that are read for it are not cached: they would evict
/// everybody's events for one request, such as all members of a large room.
const MANY_EVENTS: usize = 1_000;

impl HasBytes for StoredEvent {
    fn bytes(&self) -> u64 {
        self.weight()
    }
}

/// Events by their short id. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    db: Arc<Database>,
    cache: Arc<ByteCache<EventNid, Arc<StoredEvent>>>,
    redactions: Arc<RwLock<Redactions>>,
}

/// The number of times since the start that stored events were redacted, or got another standing. Rows that were read before
/// such a change are not cached after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Redactions(u64);

/// A handle to the cache without the database, for what follows the commits.
pub(super) struct EventsHandle {
    cache: Arc<ByteCache<EventNid, Arc<StoredEvent>>>,
    redactions: Arc<RwLock<Redactions>>,
}

impl EventsHandle {
    /// Evicts an event that another process has redacted, and all events of the room that may show a part of it.
    pub(super) fn evict_redacted(&self, room: RoomNid, redacted: EventNid) {
        let mut redactions = self.redactions.write().unwrap_or_else(PoisonError::into_inner);
        redactions.0 += 1;
        // No other event shows a message, as in [`Events::redact`].
        if self.cache.peek(&redacted).is_some_and(|event| !is_shown_by_others(&event)) {
            self.cache.remove(&redacted);
            return;
        }
        let may_show = |event: &StoredEvent| event.replaces.is_some() || event.redacted_because.is_some();
        self.cache.retain(|nid, event| *nid != redacted && (event.room != room || !may_show(event)));
    }

    /// Evicts everything. Rows that were read before are not cached after it.
    pub(super) fn evict_all(&self) {
        let mut redactions = self.redactions.write().unwrap_or_else(PoisonError::into_inner);
        redactions.0 += 1;
        self.cache.clear();
    }

    /// Notes that another process has given events another standing, before each of them is evicted.
    pub(super) fn note_restated(&self) {
        self.redactions.write().unwrap_or_else(PoisonError::into_inner).0 += 1;
    }

    pub(super) fn evict(&self, event: EventNid) {
        self.cache.remove(&event);
    }
}

/// Returns whether another event may show a part of this one: the state that replaced it, or the event that it redacted.
fn is_shown_by_others(event: &StoredEvent) -> bool {
    event.key.is_some() || event.pdu.event_type == "m.room.redaction"
}

impl Events {
    pub(super) fn handle(&self) -> EventsHandle {
        EventsHandle { cache: Arc::clone(&self.cache), redactions: Arc::clone(&self.redactions) }
    }

    pub(super) fn new(db: Arc<Database>, budget: &Budget) -> Self {
        Self { db, cache: budget.cache(Part::Events), redactions: Arc::default() }
    }

    /// The number of cached events.
    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.cache.len()
    }

    /// The redactions so far. Rows that are read from now on show all of them.
    pub(crate) fn redactions(&self) -> Redactions {
        *self.redactions.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Caches an event that was read after `redactions`, unless there was another redaction since: nothing would evict
    /// the outdated event.
    pub(super) fn keep(&self, event: Arc<StoredEvent>, redactions: Redactions) -> Arc<StoredEvent> {
        // Held while the event is added, so that a redaction finds it in the cache or is seen here.
        let now = self.redactions.read().unwrap_or_else(PoisonError::into_inner);
        if *now != redactions {
            return self.cache.get(&event.nid).unwrap_or(event);
        }
        // An event that is cached already is as new as these rows.
        let Ok(event) =
            self.cache.get_or_insert_with(&event.nid, || Ok::<_, std::convert::Infallible>(Arc::clone(&event)));
        event
    }

    pub(super) fn insert(&self, event: Arc<StoredEvent>) {
        self.cache.insert(event.nid, event);
    }

    /// Caches `left`, the redacted form of an event. Evicts the events that show the old form: if it is state, the
    /// event that replaced it; if it is a redaction, the event that it redacted.
    pub(super) fn redact(&self, left: Arc<StoredEvent>) {
        let mut redactions = self.redactions.write().unwrap_or_else(PoisonError::into_inner);
        redactions.0 += 1;
        // No other event shows a message, so the whole cache is not searched for one: this runs in the committer.
        if is_shown_by_others(&left) {
            self.cache.retain(|_, event| !event.shows(&left));
        }
        self.insert(left);
    }

    /// Evicts events that have got another standing.
    pub(super) fn restate(&self, events: impl Iterator<Item = EventNid>) {
        self.redactions.write().unwrap_or_else(PoisonError::into_inner).0 += 1;
        events.for_each(|event| drop(self.cache.remove(&event)));
    }

    /// One event of `room`.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not stored: short ids come from our own rows.
    pub(crate) async fn get(&self, room: &Room, nid: EventNid) -> Result<Arc<StoredEvent>, Error> {
        if let Some(event) = self.cache.get(&nid) {
            return Ok(event);
        }
        let mut events = self.list(room, &[nid]).await?;
        events.pop().ok_or_else(|| Error::damaged("event", format!("{} is missing", nid.0)))
    }

    /// Events of `room`, in the order of `nids`.
    ///
    /// # Errors
    /// [`Error::Damaged`] if one is not stored.
    pub(crate) async fn list(&self, room: &Room, nids: &[EventNid]) -> Result<Vec<Arc<StoredEvent>>, Error> {
        self.list_some(room, nids, nids.len()).await
    }

    /// As [`Self::list`], for some of the `in_all` events that an answer needs and reads one part after the other.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(crate) async fn list_some(
        &self,
        room: &Room,
        nids: &[EventNid],
        in_all: usize,
    ) -> Result<Vec<Arc<StoredEvent>>, Error> {
        let mut found: HashMap<EventNid, Arc<StoredEvent>> = HashMap::new();
        let mut missing = Vec::new();
        let mut events = Vec::with_capacity(nids.len());
        for nid in nids {
            match self.cache.get(nid) {
                Some(event) => events.push(Some(event)),
                None => {
                    missing.push(*nid);
                    events.push(None);
                }
            }
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            for event in self.load(&room.rules, &missing, in_all < MANY_EVENTS).await? {
                found.insert(event.nid, event);
            }
        }
        nids.iter()
            .zip(events)
            .map(|(nid, event)| {
                event
                    .or_else(|| found.get(nid).cloned())
                    .ok_or_else(|| Error::damaged("event", format!("{} is missing", nid.0)))
            })
            .collect()
    }

    async fn load(
        &self,
        rules: &RoomVersionRules,
        nids: &[EventNid],
        keeps: bool,
    ) -> Result<Vec<Arc<StoredEvent>>, Error> {
        let mut reader = self.db.read().await?;
        let read = self.read(&mut reader, nids).await?;
        drop(reader);
        read.rows
            .iter()
            .map(|row| {
                let event = read.parse(rules, row)?;
                Ok(if keeps { self.keep(event, read.before) } else { event })
            })
            .collect()
    }

    /// Reads the rows of events, of one room or of several.
    pub(super) async fn read(&self, reader: &mut Reader<'_>, nids: &[EventNid]) -> Result<ReadEvents, Error> {
        let before = self.redactions();
        let rows = rows::events(&mut reader.conn(), nids).await?;
        let redactions: Vec<EventNid> = rows.iter().filter_map(|row| row.redaction_nid.map(EventNid)).collect();
        let because =
            if redactions.is_empty() { Vec::new() } else { rows::events(&mut reader.conn(), &redactions).await? };
        let because = because.into_iter().map(|row| (EventNid(row.event_nid), row)).collect();
        Ok(ReadEvents { before, rows, because })
    }

    /// Reads events of several rooms into the cache, and returns them. Those that cannot be read are left out: they are
    /// reported when somebody asks for them.
    pub(super) async fn prefetch(
        &self,
        wanted: &[(&Room, EventNid)],
    ) -> Result<HashMap<EventNid, Arc<StoredEvent>>, Error> {
        let mut found = HashMap::with_capacity(wanted.len());
        let mut missing: HashMap<EventNid, &Room> = HashMap::new();
        for (room, nid) in wanted {
            match self.cache.get(nid) {
                Some(event) => _ = found.insert(*nid, event),
                None => _ = missing.insert(*nid, *room),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let mut nids: Vec<EventNid> = missing.keys().copied().collect();
        // Neighbours in the tables are read one after the other.
        nids.sort_unstable();
        let read = self.read(&mut self.db.read().await?, &nids).await?;
        for row in &read.rows {
            if let Some(room) = missing.get(&EventNid(row.event_nid))
                && let Ok(event) = read.parse(&room.rules, row)
            {
                found.insert(event.nid, self.keep(event, read.before));
            }
        }
        Ok(found)
    }
}

/// The rows of events, as they were read.
pub(super) struct ReadEvents {
    /// The redactions that the rows show.
    pub(super) before: Redactions,
    pub(super) rows: Vec<rows::EventRow>,
    /// The redactions of these events.
    because: HashMap<EventNid, rows::EventRow>,
}

impl ReadEvents {
    /// The event of a row.
    pub(super) fn parse(&self, rules: &RoomVersionRules, row: &rows::EventRow) -> Result<Arc<StoredEvent>, Error> {
        let redaction = row.redaction_nid.and_then(|nid| self.because.get(&EventNid(nid)));
        // A redaction that was itself redacted is shown in its redacted form, without its own `redacted_because`.
        let because = redaction.map(|row| parse(rules, row, None).map(Arc::new)).transpose()?;
        Ok(Arc::new(parse(rules, row, because)?))
    }
}

fn parse(
    rules: &RoomVersionRules,
    row: &rows::EventRow,
    redacted_because: Option<Arc<StoredEvent>>,
) -> Result<StoredEvent, Error> {
    let standing = row.standing();
    let event_id = EventId::parse(&row.event_id).map_err(|error| Error::damaged("event ID", error))?;
    let mut pdu =
        Pdu::from_stored(rules, event_id, row.json.as_str()).map_err(|error| Error::damaged("event", error))?;
    pdu.rejected = standing.flags.contains(Flags::REJECTED);
    let replaces = match (&row.prev_event_id, &row.prev_json) {
        (Some(event_id), Some(json)) => Some(replaced(event_id, json)?),
        _ => None,
    };
    Ok(StoredEvent::new(
        EventNid(row.event_nid),
        RoomNid(row.room_nid),
        standing,
        row.auth_depth,
        row.key_nid.map(KeyNid),
        Arc::new(pdu),
        replaces,
        redacted_because,
    ))
}

fn replaced(event_id: &str, json: &str) -> Result<Replaced, Error> {
    #[derive(Deserialize)]
    struct Wire {
        sender: OwnedUserId,
        content: Box<RawValue>,
    }
    let wire: Wire = serde_json::from_str(json).map_err(|error| Error::damaged("event", error))?;
    let event_id = EventId::parse(event_id).map_err(|error| Error::damaged("event ID", error))?;
    Ok(Replaced { event_id, sender: wire.sender, content: wire.content })
}

/// The rules of a stored room's version.
pub(super) fn rules_of(version: &str) -> Result<(RoomVersionId, RoomVersionRules), store::Error> {
    let damaged = || Error::damaged("room version", version);
    let version = RoomVersionId::try_from(version).map_err(|_| damaged())?;
    let rules = sabha_federation::room_version::rules(&version).ok_or_else(damaged)?;
    Ok((version, rules))
}

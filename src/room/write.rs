//! Appending to a room: the only way for events into a room's graph.
//!
//! [`Rooms::enter`] waits for its turn; [`RoomWriter::append`] builds, signs and authorizes events on top of each
//! other; [`RoomWriter::accept`] takes each with its outcome ([`outcome`]); [`RoomWriter::commit`] hands all of them to
//! the committer as one write. Nothing is changed before that.
//!
//! A writer reads the room at the head, with the events that are still on their way to the disk ([`queued`]).

pub mod alias;
pub(in crate::room) mod allowed;
mod changes;
pub mod create;
pub mod membership;
pub mod outcome;
pub mod profile;
pub(in crate::room) mod queued;
mod rows;
pub mod send;
mod stripped;
pub mod txn;
pub mod upgrade;

use std::sync::Arc;

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, UserId, events::StateEventType};
use sabha_federation::{
    AuthRuleError, BuildError, EventDraft, EventPosition, Pdu, auth,
    build::MAX_PREV_EVENTS,
    build_and_sign,
    standing::Flags,
    state_log::{Membership, StateEntry},
};
use tokio::sync::OwnedMutexGuard;

use self::outcome::{Built, ChangedMember, KeyChange, LocalMember, Outcome, Redacts};
use super::{
    Extremity, Head, Room, Rooms,
    event::{Replaced, StoredEvent, membership_of},
    write::txn::TxnKey,
};
use crate::store::{Committed, Error, EventNid, KeyNid, Position, Row, Write, log::Touch, vocabulary::User};

/// Errors of appending events.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the event breaks an authorization rule")]
    NotAuthorized(#[source] AuthRuleError),
    /// PostgreSQL cannot store text with a NUL.
    #[error("the type or the state key holds a NUL")]
    HoldsNul,
    #[error("the event cannot be built")]
    Invalid(#[source] BuildError),
    #[error("the event could not be stored")]
    Storage(#[from] Error),
}

/// The right to append to a room, until it is dropped.
pub struct RoomWriter<'a> {
    pub(super) rooms: &'a Rooms,
    pub room: Arc<Room>,
    head: OwnedMutexGuard<Head>,
    now_ms: i64,
    /// The `origin_server_ts` of appended events, if the sender may choose it.
    date_ms: Option<i64>,
    pending: Vec<Pending>,
    /// The forward extremities after the pending events, if they differ from those of the head.
    extremities: Option<Vec<Extremity>>,
    extra: Vec<Row>,
    /// The touches of `extra`.
    touches: Vec<Touch>,
    is_new_room: bool,
}

/// An event that has been appended but not committed.
struct Pending {
    built: Built,
    outcome: Outcome,
}

/// A state event as the writer sees it: committed, or built a moment ago.
struct Current {
    nid: EventNid,
    auth_depth: i64,
    pdu: Arc<Pdu>,
}

impl Rooms {
    /// Waits until it is this caller's turn to append to `room`.
    ///
    /// # Errors
    /// Fails if the room must be loaded again after a failed write, and that fails.
    pub async fn enter(&self, room: &Arc<Room>) -> Result<RoomWriter<'_>, Error> {
        let writer = self.enter_if_there(room).await?;
        writer.ok_or_else(|| Error::damaged("room", format!("{} is missing", room.room_id)))
    }

    /// Enters a room whose creation may have failed.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) async fn enter_if_there(&self, room: &Arc<Room>) -> Result<Option<RoomWriter<'_>>, Error> {
        let mut room = Arc::clone(room);
        loop {
            let head = Arc::clone(&room.head).lock_owned().await;
            if !room.lineage.is_broken() {
                return Ok(Some(self.writer(room, head, false)));
            }
            drop(head);
            match self.find(&room.room_id).await? {
                Some(found) => room = found,
                None => return Ok(None),
            }
        }
    }

    /// The writer of a room that does not exist until its first commit.
    pub(super) async fn enter_new(&self, room: &Arc<Room>) -> RoomWriter<'_> {
        let head = Arc::clone(&room.head).lock_owned().await;
        self.writer(Arc::clone(room), head, true)
    }

    fn writer(&self, room: Arc<Room>, head: OwnedMutexGuard<Head>, is_new_room: bool) -> RoomWriter<'_> {
        let now_ms = self.clock.now_ms();
        let (pending, extra, touches) = (Vec::new(), Vec::new(), Vec::new());
        RoomWriter {
            rooms: self,
            room,
            head,
            now_ms,
            date_ms: None,
            pending,
            extremities: None,
            extra,
            touches,
            is_new_room,
        }
    }
}

impl RoomWriter<'_> {
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Sets the date of events that are appended from now on; `None` is the present. The server's own record of the
    /// request has the present date in any case.
    pub fn date(&mut self, date: Option<MilliSecondsSinceUnixEpoch>) {
        self.date_ms = date.map(|date| i64::from(date.get()));
    }

    /// Adds a row to be committed together with the events, and names what it changes. The events themselves name the
    /// room.
    pub(super) fn add_row(&mut self, row: Row, touch: Option<Touch>) {
        self.extra.push(row);
        self.touches.extend(touch);
    }

    /// The current event of a key of the state, including the events that were appended just now.
    pub async fn state(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Pdu>>, Error> {
        Ok(self.current(event_type, state_key).await?.map(|current| current.pdu))
    }

    async fn current(&self, event_type: &str, state_key: &str) -> Result<Option<Current>, Error> {
        let Some(key) = self.rooms.find_key(&self.room, event_type, state_key).await? else { return Ok(None) };
        let nid = match self.pending_change(key) {
            Some(change) => change.to.as_ref().map(|to| to.nid),
            None => self.room.view().state.get(key).map(|entry: StateEntry| entry.event_nid),
        };
        let Some(nid) = nid else { return Ok(None) };
        if let Some(Pending { built, .. }) = self.pending.iter().rev().find(|pending| pending.built.nid == nid) {
            return Ok(Some(Current { nid, auth_depth: built.auth_depth, pdu: Arc::clone(&built.pdu) }));
        }
        let event = self.event(nid).await?;
        Ok(Some(Current { nid: event.nid, auth_depth: event.auth_depth, pdu: Arc::clone(&event.pdu) }))
    }

    /// The last change of a key of the state that a pending event makes.
    fn pending_change(&self, key: KeyNid) -> Option<&KeyChange> {
        let mut changes = self.pending.iter().rev().flat_map(|pending| &pending.outcome.changes);
        changes.find(|change| change.key.nid == key)
    }

    /// The membership of a user, including the events that were appended just now.
    pub async fn membership(&self, user_id: &UserId) -> Result<Option<Membership>, Error> {
        let key = self.rooms.find_key(&self.room, "m.room.member", user_id.as_str()).await?;
        let Some(key) = key else { return Ok(None) };
        Ok(match self.pending_change(key) {
            Some(change) => change.to.as_ref().and_then(|to| to.membership),
            None => self.room.view().state.get(key).and_then(|entry| entry.membership),
        })
    }

    /// An event of the room, queued or committed.
    pub(super) async fn event(&self, nid: EventNid) -> Result<Arc<StoredEvent>, Error> {
        match self.room.queued.get(nid) {
            Some(event) => Ok(event),
            None => self.rooms.events.get(&self.room, nid).await,
        }
    }

    /// The event of the room with this ID, queued or committed.
    pub async fn find_event(&self, event_id: &EventId) -> Result<Option<Arc<StoredEvent>>, Error> {
        // The queue first: an event that is committed meanwhile is found among the committed ones afterwards, in the form
        // that its redaction left.
        match self.room.queued.find(event_id) {
            Some(event) => Ok(Some(event)),
            None => self.rooms.find_event(&self.room, event_id).await,
        }
    }

    /// The events of the room's state whose entries are `wanted`, without the events that were appended just now.
    pub async fn list_state(&self, wanted: impl Fn(&StateEntry) -> bool) -> Result<Vec<Arc<StoredEvent>>, Error> {
        let nids: Vec<EventNid> = {
            let view = self.room.view();
            let entries = view.state.entries().iter().map(|(_, entry)| entry);
            entries.filter(|entry| wanted(entry)).map(|entry| entry.event_nid).collect()
        };
        let queued: Vec<_> = nids.iter().map(|nid| self.room.queued.get(*nid)).collect();
        let rest: Vec<_> = nids.iter().zip(&queued).filter(|(_, found)| found.is_none()).map(|(nid, _)| *nid).collect();
        let mut rest = self.rooms.events.list(&self.room, &rest).await?.into_iter();
        Ok(queued.into_iter().filter_map(|event| event.or_else(|| rest.next())).collect())
    }

    /// Builds an event on top of the room and of the events appended before, signs it and checks that the room allows
    /// it.
    ///
    /// # Errors
    /// Fails if the room does not allow the event, or if it cannot be built; events that were appended before stay.
    pub async fn append(&mut self, sender: &Arc<User>, draft: EventDraft) -> Result<OwnedEventId, AppendError> {
        let rooms = self.rooms;
        let rules = &self.room.rules;
        if draft.event_type.contains('\0') || draft.state_key.as_ref().is_some_and(|key| key.contains('\0')) {
            return Err(AppendError::HoldsNul);
        }
        let wanted = sabha_federation::auth_types(
            rules,
            &draft.event_type,
            sender.user_id.as_ref(),
            draft.state_key.as_deref(),
            &draft.content,
        )
        .map_err(AppendError::NotAuthorized)?;
        // From room version 12 on the create event is implied, but the rules still look at it.
        let implies_create = draft.event_type != "m.room.create"
            && !wanted.iter().any(|(event_type, _)| *event_type == StateEventType::RoomCreate);
        let implied = implies_create.then(|| (StateEventType::RoomCreate, String::new()));
        let mut found: Vec<(StateEventType, String, Current)> = Vec::with_capacity(wanted.len() + 1);
        for (event_type, state_key) in wanted.into_iter().chain(implied) {
            if let Some(current) = self.current(&auth::type_name(&event_type), &state_key).await? {
                found.push((event_type, state_key, current));
            }
        }
        let auth_ids: Vec<OwnedEventId> = found.iter().map(|(.., current)| current.pdu.event_id.clone()).collect();
        let (prev, prev_ids) = self.previous();
        let is_create = draft.event_type == "m.room.create";
        let makes_its_room = is_create && rules.authorization.room_create_event_id_as_room_id;
        let position = EventPosition {
            room_id: (!makes_its_room).then_some(&*self.room.room_id),
            sender: sender.user_id.as_ref(),
            prev_events: &prev_ids,
            auth_events: &auth_ids,
            depth: u64::try_from(self.depth() + 1).unwrap_or(u64::MAX),
            origin_server_ts: u64::try_from(self.date_ms.unwrap_or(self.now_ms)).unwrap_or_default(),
        };
        let pdu = build_and_sign(rules, &rooms.signer, draft, position).map_err(AppendError::Invalid)?;
        let (key, by) = ((self.room.nid, sender.nid), || found.iter().map(|(.., current)| &current.pdu));
        if !rooms.allowed.knows(key, &pdu, by()) {
            let auth_events: Vec<Arc<Pdu>> = by().cloned().collect();
            auth::check(rules, &pdu, &auth_events, |event_type, state_key| {
                let of_key = |(t, k, _): &&(StateEventType, String, Current)| t == event_type && k == state_key;
                found.iter().find(of_key).map(|(.., current)| Arc::clone(&current.pdu))
            })
            .map_err(AppendError::NotAuthorized)?;
            rooms.allowed.note(key, &pdu, by());
        }
        self.push(sender, Arc::new(pdu), &found, prev).await
    }

    /// Adds the create event, which is already built because it may give its room the ID.
    pub(super) async fn push_create(&mut self, sender: &Arc<User>, pdu: Pdu) -> Result<OwnedEventId, AppendError> {
        auth::check(&self.room.rules, &pdu, &[], |_, _| None).map_err(AppendError::NotAuthorized)?;
        self.push(sender, Arc::new(pdu), &[], Vec::new()).await
    }

    async fn push(
        &mut self,
        sender: &Arc<User>,
        pdu: Arc<Pdu>,
        auth: &[(StateEventType, String, Current)],
        prev: Vec<EventNid>,
    ) -> Result<OwnedEventId, AppendError> {
        let rooms = self.rooms;
        // Only now: a name that is looked up is kept, and a refused event must leave nothing behind.
        let event_type = rooms.db.event_type(&pdu.event_type).await?;
        let key = match &pdu.state_key {
            Some(state_key) => Some(rooms.db.state_key(&pdu.event_type, state_key).await?),
            None => None,
        };
        let membership = (pdu.event_type == "m.room.member").then(|| membership_of(&pdu.content)).flatten();
        let member = match &pdu.state_key {
            Some(user_id) if membership.is_some() => match UserId::parse(user_id) {
                Ok(user_id) => {
                    let is_local = user_id.server_name() == rooms.signer.server_name();
                    Some(rooms.db.user(&user_id, is_local).await?)
                }
                Err(_) => None,
            },
            _ => None,
        };
        let replaces = match &key {
            Some(key) => self.current(&key.event_type, &key.state_key).await?.map(|current| Replaced {
                event_id: current.pdu.event_id.clone(),
                sender: current.pdu.sender.clone(),
                content: current.pdu.content.clone(),
            }),
            None => None,
        };
        let redacts = match &pdu.redacts {
            Some(event_id) => self.redaction_of(event_id).await?,
            None => None,
        };
        let member = match member {
            Some(user) if user.is_local() => {
                let is_shown = matches!(membership, Some(Membership::Invite | Membership::Knock));
                let invite_state = if is_shown { Some(self.stripped_state(&pdu).await?) } else { None };
                Some(ChangedMember::Local(LocalMember { user, invite_state }))
            }
            Some(user) => Some(ChangedMember::Remote(user)),
            None => None,
        };
        let event_id = pdu.event_id.clone();
        let built = Built {
            nid: rooms.db.committer().ids().event()?,
            auth_depth: auth.iter().map(|(.., current)| current.auth_depth + 1).max().unwrap_or_default(),
            auth: auth.iter().map(|(.., current)| current.nid).collect(),
            pdu,
            event_type,
            sender: Arc::clone(sender),
            key,
            prev,
            replaces,
        };
        let outcome = Outcome::of_local(&built, membership, member, redacts);
        self.accept(built, outcome).await?;
        Ok(event_id)
    }

    /// Adds an event with its outcome to what will be committed.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the room would have no forward extremity left, and errors of the database; nothing is added
    /// then.
    pub async fn accept(&mut self, built: Built, mut outcome: Outcome) -> Result<(), Error> {
        let is_remote = |change: &KeyChange| matches!(change.member, Some(ChangedMember::Remote(_)));
        if self.head.joined_by_server.is_none() && outcome.changes.iter().any(is_remote) {
            // No write of such a change is on its way: it would have read them.
            self.head.joined_by_server = Some(self.rooms.joined_by_server(self.room.nid).await?);
        }
        if outcome.is_extremity || !outcome.covers.is_empty() {
            let is_left = |(nid, _): &&Extremity| !outcome.covers.contains(nid);
            let mut extremities: Vec<_> = self.extremities().iter().filter(is_left).cloned().collect();
            if outcome.is_extremity {
                extremities.push((built.nid, built.pdu.event_id.clone()));
                if extremities.len() == 1 {
                    outcome.flags |= Flags::TIP;
                }
            }
            if extremities.is_empty() {
                return Err(Error::damaged("room", format!("{}: no forward extremity is left", self.room.room_id)));
            }
            self.extremities = Some(extremities);
        }
        self.pending.push(Pending { built, outcome });
        Ok(())
    }

    /// The event that a redaction names, with its redacted form, if it is an event of this room.
    async fn redaction_of(&self, event_id: &OwnedEventId) -> Result<Option<Redacts>, Error> {
        let Some(mut event) = self.find_event(event_id).await? else { return Ok(None) };
        // The event that it replaced may have been redacted a moment ago; the redacted form of this one must not bring
        // its content back.
        if let Some(replaced) = &event.replaces
            && let Some(now) = self.room.queued.find(&replaced.event_id)
        {
            event = Arc::new(event.replacing(&now.pdu.content));
        }
        let json = sabha_federation::redact(&self.room.rules, &event.pdu.json, None)
            .map_err(|error| Error::damaged("event", error))?;
        let left = Pdu::from_stored(&self.room.rules, event_id.clone(), json)
            .map_err(|error| Error::damaged("redacted event", error))?;
        Ok(Some(Redacts { event, left: Arc::new(left) }))
    }

    /// The events that the next one is built on.
    fn previous(&self) -> (Vec<EventNid>, Vec<OwnedEventId>) {
        self.extremities().iter().take(MAX_PREV_EVENTS).cloned().unzip()
    }

    /// The forward extremities after the pending events.
    fn extremities(&self) -> &[Extremity] {
        self.extremities.as_deref().unwrap_or(&self.head.forward_extremities)
    }

    /// The greatest depth of the events that others may follow on.
    fn depth(&self) -> i64 {
        let extremities = self.pending.iter().filter(|pending| pending.outcome.is_extremity);
        extremities.map(|pending| pending.built.depth()).fold(self.head.depth, i64::max)
    }

    /// Hands everything to the committer as one write, and lets the next writer in. The appended events are visible to
    /// the next writer at once, and to everyone else after the commit.
    ///
    /// # Errors
    /// Fails if the write cannot be queued; nothing is queued then.
    pub fn commit(mut self, txn: Option<TxnKey>) -> Result<Committed, Error> {
        let _span = tracing::debug_span!("room.commit").entered();
        let count = self.pending.len();
        let committer = self.rooms.db.committer().clone();
        committer.submit(count, |first| self.apply(first, txn))
    }

    /// Turns the pending events into rows and changes of memory.
    fn apply(&mut self, first: Position, txn: Option<TxnKey>) -> Result<Write, Error> {
        // If this fails halfway, memory has changes that are not stored.
        let unfinished = self.room.lineage.until_finished();
        let write = rows::apply(self, first, txn)?;
        unfinished.finish();
        Ok(write)
    }

    /// The event that was appended last.
    pub(super) fn last_appended(&self) -> Option<&Pdu> {
        self.pending.last().map(|pending| &*pending.built.pdu)
    }

    /// Returns whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Queues an empty write. Its commit comes after everything that was queued for this room before.
    pub fn barrier(&self) -> Result<Committed, Error> {
        let lineage = self.room.lineage.clone();
        self.rooms.db.committer().submit(1, |_| Ok(Write::default().in_lineage(lineage)))
    }
}

#[cfg(test)]
mod tests;

//! Building, signing and authorizing events on top of each other, and taking each with its outcome.

use std::sync::Arc;

use ruma::{OwnedEventId, UserId, events::StateEventType};
use sabha_federation::{
    EventDraft, EventPosition, Pdu, auth,
    build::MAX_PREV_EVENTS,
    build_and_sign,
    graph::{Extremities, NoneLeft},
    standing::Flags,
    state_log::Membership,
};

use super::{
    AppendError, Pending, RoomWriter,
    outcome::{Built, ChangedMember, Edges, KeyChange, LocalMember, Names, Outcome, Redacts},
    state::Current,
};
use crate::{
    room::event::{Replaced, membership_of},
    store::{Error, EventNid, vocabulary::User},
};

impl RoomWriter<'_> {
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
        let (prev, prev_ids) = self.previous()?;
        let is_create = draft.event_type == "m.room.create";
        let makes_its_room = is_create && rules.authorization.room_create_event_id_as_room_id;
        let position = EventPosition {
            room_id: (!makes_its_room).then_some(&*self.room.room_id),
            sender: sender.user_id.as_ref(),
            prev_events: &prev_ids,
            auth_events: &auth_ids,
            depth: u64::try_from(self.depth() + 1).unwrap_or(u64::MAX),
            origin_server_ts: self.date_ms.unwrap_or(self.now_ms),
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
    pub(in crate::room) async fn push_create(
        &mut self,
        sender: &Arc<User>,
        pdu: Pdu,
    ) -> Result<OwnedEventId, AppendError> {
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
        let membership = (pdu.event_type == "m.room.member").then(|| membership_of(&pdu.content)).flatten();
        if let Some(to @ (Membership::Invite | Membership::Knock)) = membership
            && !self.is_new_room
        {
            // In a box, because the future of every message would have its size.
            Box::pin(self.check_invitee(sender, &pdu, to)).await?;
        }
        // Only now: a name that is looked up is kept, and a refused event must leave nothing behind.
        let event_type = rooms.db.event_type(&pdu.event_type).await?;
        let key = match &pdu.state_key {
            Some(state_key) => Some(rooms.db.state_key(&pdu.event_type, state_key).await?),
            None => None,
        };
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
        let nid = rooms.db.committer().ids().event()?;
        let edges = Edges {
            prev,
            auth: auth.iter().map(|(.., current)| current.nid).collect(),
            auth_depth: auth.iter().map(|(.., current)| current.auth_depth + 1).max().unwrap_or_default(),
        };
        let built = Built::ours(pdu, Names { nid, event_type, sender: Arc::clone(sender), key }, edges, replaces);
        let outcome = Outcome::of_local(&built, membership, member, redacts);
        self.accept(built, outcome).await?;
        Ok(event_id)
    }

    /// Adds an event with its outcome to what will be committed.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the room would have no forward extremity left, and errors of the database; nothing is added
    /// then.
    pub async fn accept(&mut self, mut built: Built, mut outcome: Outcome) -> Result<(), Error> {
        if outcome.stored_before {
            // In a box, because the future of every message would have its size.
            built.stay_redacted(&*Box::pin(self.event(built.nid)).await?);
        }
        if outcome.flags.contains(Flags::REJECTED) {
            built.reject();
        }
        self.count_servers(outcome.changes.iter().filter_map(|change| change.member.as_ref())).await?;
        if outcome.is_extremity || !outcome.covers.is_empty() {
            let left = self.extremities().iter().filter(|extremity| !outcome.covers.contains(&extremity.nid));
            let mut left: Extremities = left.cloned().collect();
            let after = if left.is_empty() { None } else { outcome.after };
            let own = outcome.is_extremity.then(|| built.extremity(outcome.flags, after));
            if left.accept(own, &[]).map_err(|error| self.none_left(error))? {
                outcome.flags |= Flags::TIP;
            }
            self.extremities = Some(left);
        }
        self.no_longer_absent(&outcome.changes);
        // The state before a later event may have the key, though that of the room has not.
        if let Some(key) = &built.key {
            self.room.absent.remove(&key.event_type, &key.state_key);
        }
        self.pending.push(Pending { built, outcome });
        Ok(())
    }

    /// Reads the numbers of joined users of other servers, if one of these is such a user. No write that changes them is on its
    /// way then: it would have read them.
    pub(super) async fn count_servers(
        &mut self,
        mut members: impl Iterator<Item = &ChangedMember> + Send,
    ) -> Result<(), Error> {
        let is_remote = |member: &ChangedMember| matches!(member, ChangedMember::Remote(_));
        if self.head.joined_by_server.is_none() && members.any(is_remote) {
            self.head.joined_by_server = Some(self.rooms.joined_by_server(self.room.nid).await?);
        }
        Ok(())
    }

    /// Lets the next event find the keys of these changes at once. Memory alone is not enough: a stored key may have been
    /// evicted, and a new one is in the cache only a moment after those who waited for it have it.
    pub(super) fn no_longer_absent(&self, changes: &[KeyChange]) {
        for KeyChange { key, .. } in changes {
            self.room.absent.remove(&key.event_type, &key.state_key);
        }
    }

    pub(super) fn none_left(&self, error: NoneLeft) -> Error {
        Error::damaged("room", format!("{}: {error}", self.room.room_id))
    }

    /// The event that a redaction names, with its redacted form, if it is an event of this room.
    pub(super) async fn redaction_of(&self, event_id: &OwnedEventId) -> Result<Option<Redacts>, Error> {
        let Some(mut event) = self.find_event(event_id).await? else { return Ok(None) };
        // The event that it replaced may have been redacted a moment ago; the redacted form of this one must not bring
        // its content back.
        if let Some(replaced) = &event.replaces
            && let Some(now) = self.room.queued.find(&replaced.event_id)
        {
            event = Arc::new(event.replacing(&now.pdu.content));
        }
        let left = self.redacted_form(&event.pdu)?;
        Ok(Some(Redacts { event, left }))
    }

    /// The redacted form of an event.
    pub(super) fn redacted_form(&self, pdu: &Pdu) -> Result<Arc<Pdu>, Error> {
        let rules = &self.room.rules;
        let json = sabha_federation::redact(rules, &pdu.json, None).map_err(|error| Error::damaged("event", error))?;
        let left = Pdu::from_stored(rules, pdu.event_id.clone(), json);
        Ok(Arc::new(left.map_err(|error| Error::damaged("redacted event", error))?))
    }

    /// The events that the next one is built on.
    ///
    /// # Errors
    /// If there are more than an event may name: the state before it would not be the room's state then.
    fn previous(&self) -> Result<(Vec<EventNid>, Vec<OwnedEventId>), Error> {
        let all = self.extremities();
        if all.len() > MAX_PREV_EVENTS {
            let text = format!("{}: too many forward extremities for a local event: {}", self.room.room_id, all.len());
            return Err(Error::damaged("room", text));
        }
        Ok(all.iter().map(|extremity| (extremity.nid, extremity.event_id.clone())).unzip())
    }

    /// The forward extremities after the pending events.
    pub(super) fn extremities(&self) -> &Extremities {
        self.extremities.as_ref().unwrap_or(&self.head.forward_extremities)
    }

    /// The greatest depth of the events that others may follow on.
    fn depth(&self) -> i64 {
        let extremities = self.pending.iter().filter(|pending| pending.outcome.is_extremity);
        extremities.map(|pending| pending.built.depth()).fold(self.head.depth, i64::max)
    }
}

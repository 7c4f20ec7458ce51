//! Events that were decided about, with their decisions: words and rows in place of numbers.

use std::sync::Arc;

use ruma::UserId;
use sabha_federation::{
    Pdu,
    held::Held,
    model::{EventReader as _, LogReader as _},
    receive::{self, Decision, Redaction, Stored},
    sides,
    standing::{Flags, StateAt},
    state_log::Membership,
};

use super::{
    RoomWriter,
    outcome::{
        Built, ChangedMember, CurrentEvent, Edges, KeyChange, LocalMember, MissingEdge, Names, Outcome,
        PendingRedaction, Placing, Redacts, StateBefore,
    },
};
use crate::{
    room::event::Replaced,
    store::{Error, EventNid, KeyNid, StateKey, vocabulary::User},
};

impl RoomWriter<'_> {
    /// Adds an event that was decided about in this turn.
    ///
    /// # Errors
    /// As [`RoomWriter::accept`].
    pub(in crate::room) async fn take_decision(&mut self, decision: Decision) -> Result<(), Error> {
        let db = &self.rooms.db;
        let pdu = decision.event.pdu();
        let names = Names {
            nid: decision.nid,
            event_type: db.event_type(&pdu.event_type).await?,
            sender: self.user(&pdu.sender).await?,
            key: match &pdu.state_key {
                Some(state_key) => Some(db.state_key(&pdu.event_type, state_key).await?),
                None => None,
            },
        };
        let because = match decision.redacted_by {
            Some(redaction) => Some(self.event(redaction).await?),
            None => None,
        };
        let shown = self.as_shown(&decision).await?;
        let replaces = self.replaced_by(&decision).await?;
        let redacts = match &decision.redaction {
            Some(Redaction::Applies(target)) => self.redacts(*target).await?,
            _ => None,
        };
        let pending_redaction = match &decision.redaction {
            Some(Redaction::Pending { target, by_power }) => {
                Some(PendingRedaction { target: target.clone(), by_power: *by_power })
            }
            _ => None,
        };
        let mut changes = Vec::with_capacity(decision.changes.len());
        for (key, to) in &decision.changes {
            changes.push(self.key_change((&decision, &shown), *key, *to).await?);
        }
        let outcome = Outcome {
            flags: decision.flags,
            placing: placing(decision.placing),
            before: StateBefore::Known(decision.before),
            changes,
            covers: decision.covers,
            is_extremity: decision.extremity.is_some(),
            after: decision.extremity.and_then(|extremity| extremity.after),
            redacts,
            sides: decision.sides,
            gap: None,
            missing: decision.missing.into_iter().map(|(missing, covers)| MissingEdge { missing, covers }).collect(),
            pending_redaction,
            stored_before: decision.was_outlier,
        };
        let edges = Edges { prev: decision.prev, auth: decision.auth, auth_depth: decision.auth_depth };
        let mut built = match decision.event {
            Stored::Received(event) => Built::received(*event, names, edges, replaces),
            Stored::Ours(pdu) => Built::ours(pdu, names, edges, replaces),
        };
        if let Some(because) = because {
            built.redact(shown, because);
        }
        self.accept(built, outcome).await
    }

    /// The event as it will be stored: in its redacted form if a redaction has waited for it, or came while it was an outlier.
    async fn as_shown(&self, decision: &Decision) -> Result<Arc<Pdu>, Error> {
        let pdu = decision.event.pdu();
        if decision.redacted_by.is_some() {
            return self.redacted_form(pdu);
        }
        if decision.was_outlier {
            let stored = self.event(decision.nid).await?;
            if stored.redacted_because.is_some() {
                return Ok(Arc::clone(&stored.pdu));
            }
        }
        Ok(Arc::new(pdu.clone()))
    }

    /// The state event that the event replaces in the state before it.
    async fn replaced_by(&self, decision: &Decision) -> Result<Option<Replaced>, Error> {
        // Nothing is known of the state before an outlier.
        let is_outlier = decision.flags.contains(Flags::OUTLIER);
        let Some(key) = decision.key.filter(|_| !is_outlier) else { return Ok(None) };
        let held = self.held_before(decision, key).await?.filter(|held| held.event_nid != decision.nid);
        let Some(held) = held else { return Ok(None) };
        let replaced = self.event(held.event_nid).await?;
        Ok(Some(Replaced {
            event_id: replaced.event_id().to_owned(),
            sender: replaced.pdu.sender.clone(),
            content: replaced.pdu.content.clone(),
        }))
    }

    async fn held_before(&self, decision: &Decision, key: KeyNid) -> Result<Option<Held>, Error> {
        let reads = self.rooms.reads(&self.room);
        let StateAt { side, .. } = decision.before;
        // A new side is not stored yet.
        match decision.sides.iter().find(|new| Some(new.nid) == side) {
            Some(new) => match new.get(key) {
                Some(held) => Ok(held),
                None => reads.value(key, new.base_pos).await,
            },
            None => sides::value(&reads, decision.before, key).await,
        }
    }

    /// A change of the room's state, with the words of its key: those of the new event, or of the one that goes. `shown` is the
    /// decided event as it will be stored.
    async fn key_change(
        &self,
        (decision, shown): (&Decision, &Arc<Pdu>),
        key: KeyNid,
        to: Option<Held>,
    ) -> Result<KeyChange, Error> {
        let named_by = match to {
            Some(held) => held.event_nid,
            None => {
                let current = self.room.view().state.get(key).map(|entry| entry.event_nid);
                current.ok_or_else(|| self.damaged(&format!("key {} goes, and is not there", key.0)))?
            }
        };
        let pdu = if named_by == decision.nid { Arc::clone(shown) } else { self.pdu(named_by).await? };
        let key = self.state_key_of(&pdu).await?;
        let member = match &*key.event_type {
            "m.room.member" => self.changed_member(&key, (&pdu, to)).await?,
            _ => None,
        };
        let to = to.map(|Held { event_nid, membership }| CurrentEvent { nid: event_nid, pdu, membership });
        Ok(KeyChange { key, to, member })
    }

    async fn pdu(&self, nid: EventNid) -> Result<Arc<Pdu>, Error> {
        let found = self.rooms.reads(&self.room).pdus(&[nid]).await?.pop();
        found.ok_or_else(|| self.damaged(&format!("event {} is missing", nid.0)))
    }

    async fn state_key_of(&self, pdu: &Pdu) -> Result<Arc<StateKey>, Error> {
        match &pdu.state_key {
            Some(state_key) => self.rooms.db.state_key(&pdu.event_type, state_key).await,
            None => Err(self.damaged(&format!("{} is in the state and no state event", pdu.event_id))),
        }
    }

    /// The member of a key. `None`: the key names no user.
    async fn changed_member(
        &self,
        key: &StateKey,
        (pdu, to): (&Pdu, Option<Held>),
    ) -> Result<Option<ChangedMember>, Error> {
        let Ok(user_id) = UserId::parse(&*key.state_key) else { return Ok(None) };
        let user = self.user(&user_id).await?;
        if !user.is_local() {
            return Ok(Some(ChangedMember::Remote(user)));
        }
        let is_shown = |held: Held| matches!(held.membership, Some(Membership::Invite | Membership::Knock));
        let invite_state = if to.is_some_and(is_shown) { Some(self.stripped_state(pdu).await?) } else { None };
        Ok(Some(ChangedMember::Local(LocalMember { user, invite_state })))
    }

    async fn user(&self, user_id: &UserId) -> Result<Arc<User>, Error> {
        let is_local = user_id.server_name() == self.rooms.signer.server_name();
        self.rooms.db.user(user_id, is_local).await
    }

    async fn redacts(&self, target: EventNid) -> Result<Option<Redacts>, Error> {
        let event_id = self.event(target).await?.event_id().to_owned();
        self.redaction_of(&event_id).await
    }

    fn damaged(&self, text: &str) -> Error {
        Error::damaged("room", format!("{}: {text}", self.room.room_id))
    }
}

fn placing(placing: receive::Placing) -> Placing {
    match placing {
        receive::Placing::EndOfLine => Placing::EndOfLine,
        receive::Placing::Gap(place) => Placing::Gap(place),
        receive::Placing::Nowhere => Placing::Nowhere,
    }
}

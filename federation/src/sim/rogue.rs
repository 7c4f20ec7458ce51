//! The rogue: a member whose server signs whatever it likes, on any events, and tells it to some servers only.
//!
//! So there are events that are rejected, old branches, events that only some servers have, and depths and times that
//! mean nothing. It names only events that an honest server can show: what to do about others is for a later step.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde_json::{Value as JsonValue, json};

use super::{
    check::Violation,
    clock::BEGIN_MS,
    net::Message,
    rand::Rand,
    server::Server,
    stage::Stage,
    store::Memory,
    trace::short,
    users::{Cast, member, message},
};
use crate::{
    auth::auth_types,
    build::{EventDraft, EventPosition, build_and_sign},
    pdu::Pdu,
    signing::ServerSigner,
    standing::Flags,
};

/// The times that the rogue claims, before and after the true one, in milliseconds.
const CLAIMED_MS: i64 = 100_000;

/// The number of messages in a crowd: more than the previous events that one event can name.
const CROWD: usize = 30;

pub(super) struct Rogue {
    pub number: usize,
    user: OwnedUserId,
    signer: ServerSigner,
    rand: Rand,
    pushes: u64,
    /// The events of the time when everybody joined.
    before: BTreeSet<OwnedEventId>,
}

impl Rogue {
    pub fn new(number: usize, user: OwnedUserId, signer: ServerSigner, rand: Rand) -> Self {
        Self { number, user, signer, rand, pushes: 0, before: BTreeSet::new() }
    }

    /// Joins the room as an honest user.
    pub fn join(&mut self, stage: &mut Stage, servers: &[Server]) -> Result<(), Violation> {
        let disk = Memory::load(servers[0].disk.clone(), &servers[0].secret)?;
        let prev: Vec<OwnedEventId> = disk.rows.extremity_ids().into_iter().collect();
        let event = self.build(stage, &disk, None, &prev, member(&self.user, "join", 0));
        self.push(stage, &[event], |_| true);
        self.before = disk.rows.events.values().map(|row| row.pdu.event_id.clone()).collect();
        Ok(())
    }

    /// Sends something that may be forbidden, to some servers.
    pub fn act(&mut self, stage: &mut Stage, servers: &[Server], cast: &Cast) -> Result<(), Violation> {
        let from = self.rand.pick(servers);
        let disk = Memory::load(from.disk.clone(), &from.secret)?;
        let shown: Vec<_> =
            disk.rows.in_order().into_iter().filter(|row| !row.flags.contains(Flags::REJECTED)).collect();
        let known: Vec<OwnedEventId> = shown.iter().map(|row| row.pdu.event_id.clone()).collect();
        // An event on a state without the keepers could throw them out of the room: once only invited users may join, state
        // resolution takes back joins that not all branches have.
        let since: Vec<&OwnedEventId> = known.iter().filter(|event_id| !self.before.contains(*event_id)).collect();
        let prev: Vec<OwnedEventId> = if since.is_empty() || self.rand.percent(40) {
            disk.rows.extremity_ids().into_iter().collect()
        } else {
            let mut prev: Vec<_> = (0..=self.rand.index(3)).map(|_| (*self.rand.pick(&since)).clone()).collect();
            prev.sort();
            prev.dedup();
            prev
        };
        // The auth events of a state that may have nothing to do with the previous events.
        let state = self.rand.percent(50).then(|| disk.events_of(self.rand.pick(&shown).before));
        let draft = cast.wish(&self.user, &stage.room.rules, &known, &mut self.rand);
        let state: Option<Vec<OwnedEventId>> = state.map(|ids| ids.into_iter().collect());
        let event = self.build(stage, &disk, state.as_deref(), &prev, draft);
        stage.note(self.number, format_args!("sends {} {}", event.event_type, short(&event.event_id)));
        let told: Vec<bool> = servers.iter().map(|_| self.rand.percent(60)).collect();
        self.push(stage, &[event], |server| told[server]);
        Ok(())
    }

    /// Says many things at once, each as if it were the only one.
    pub fn crowd(&mut self, stage: &mut Stage, servers: &[Server]) -> Result<(), Violation> {
        let from = self.rand.pick(servers);
        let disk = Memory::load(from.disk.clone(), &from.secret)?;
        let prev: Vec<OwnedEventId> = disk.rows.extremity_ids().into_iter().collect();
        let events: Vec<_> = (0..CROWD).map(|number| self.build(stage, &disk, None, &prev, message(number))).collect();
        stage.note(self.number, format_args!("sends {CROWD} messages on s{}", from.number));
        self.push(stage, &events, |_| true);
        Ok(())
    }

    /// Builds an event on these previous events, with the auth events of a state; of the current one if it is `None`.
    fn build(
        &mut self,
        stage: &mut Stage,
        disk: &Memory,
        state: Option<&[OwnedEventId]>,
        prev: &[OwnedEventId],
        draft: EventDraft,
    ) -> Arc<Pdu> {
        let find = |event_type: &str, state_key: &str| match state {
            None => disk.current(event_type, state_key),
            Some(ids) => {
                let mut events = ids.iter().filter_map(|id| disk.rows.find(id)).map(|row| row.pdu.clone());
                events.find(|pdu| pdu.is_state(event_type, state_key))
            }
        };
        let user: &UserId = &self.user;
        let state_key = draft.state_key.as_deref();
        let types = auth_types(&stage.room.rules, &draft.event_type, user, state_key, &draft.content);
        let types = types.expect("the content has a known form");
        let auth_events: Vec<OwnedEventId> = types
            .iter()
            .filter_map(|(event_type, state_key)| find(&event_type.to_string(), state_key))
            .map(|pdu| pdu.event_id.clone())
            .collect();
        let deepest =
            prev.iter().filter_map(|id| disk.rows.find(id)).map(|row| row.pdu.depth).max().unwrap_or_default();
        let depth = if self.rand.percent(10) { u64::MAX } else { deepest + 1 };
        let claimed_ms = self.rand.between(-CLAIMED_MS..=CLAIMED_MS);
        let position = EventPosition {
            room_id: Some(&stage.room.room_id),
            sender: user,
            prev_events: prev,
            auth_events: &auth_events,
            depth,
            origin_server_ts: BEGIN_MS + stage.agenda.now_ms() + claimed_ms,
        };
        let event = build_and_sign(&stage.room.rules, &self.signer, draft, position).expect("the event is small");
        let event = Arc::new(event);
        stage.note_built(&event);
        event
    }

    fn push(&mut self, stage: &mut Stage, events: &[Arc<Pdu>], is_told: impl Fn(usize) -> bool) {
        self.pushes += 1;
        for to in stage.others(self.number).filter(|to| is_told(*to)) {
            let events = events.iter().map(|event| event.json.clone()).collect();
            stage.send(self.number, to, Message::Push { number: self.pushes, events });
        }
    }
}

/// A copy of an event in which something is changed, and nothing signed anew.
pub(super) fn forge(json: &str, rand: &mut Rand) -> String {
    let mut event: JsonValue = serde_json::from_str(json).expect("an event is JSON");
    match rand.index(4) {
        // The hash is wrong now, and the signature is not: what is left after redaction is genuine.
        0 => event["content"]["forged"] = true.into(),
        1 => event["depth"] = 77.into(),
        2 => event["signatures"] = json!({}),
        _ => event["sender"] = "@keeper:s0.test".into(),
    }
    event.to_string()
}

//! The effect of a judged event on its room: the rules against the current state, the forward extremities, and the new
//! state.
//!
//! It is found twice: outside the turn, so that what it needs is in memory, and then in the turn.

use std::sync::Arc;

use super::{
    HeadView, Ids, Judged, Mode, ReceiveError, RoomFacts,
    decide::names_exactly,
    overlay::{NewEvent, Overlay},
    rules::refusal,
    source::Source,
    states::{Merged, merge, merge_known},
};
use crate::{
    auth::AuthRuleError,
    graph::{Covered, Extremity, covers, is_covered, late},
    held::{Held, StateDelta},
    ids::EventNid,
    model::{AuthNode, GraphNode, RoomReader},
    resolve::{Alarm, Conflict, alarm},
    sides::{after, against, hash},
    standing::{Flags, StateAt},
};

/// The effect of an event on its room.
#[derive(Default)]
pub(super) struct Effect {
    /// The rule that the current state breaks, if the event is soft-failed.
    pub soft_failure: Option<AuthRuleError>,
    pub covered: Covered,
    pub extremity: Option<Extremity>,
    /// Set if the event is the only forward extremity.
    pub is_tip: bool,
    pub changes: StateDelta,
    pub alarm: Option<Alarm>,
}

/// The effect of a judged event on the room. `None`: states would have to be resolved for it, and `may_resolve` is not set.
pub(super) async fn effect<R: RoomReader, I: Ids<Error = R::Error>, S: Source>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    judged: &mut Judged<S>,
    (ids, may_resolve): (&I, bool),
) -> Result<Option<Effect>, ReceiveError<R::Error>> {
    let mut effect = Effect::default();
    if judged.flags.contains(Flags::OUTLIER) {
        return Ok(Some(effect));
    }
    let mut reader = Overlay::new(reader, judged.sides.clone());
    let states = States { room, head, ids, may_resolve };
    match states.soft_failure(&reader, judged).await? {
        Some(soft_failure) => effect.soft_failure = soft_failure,
        None => return Ok(None),
    }
    let event_id = &judged.source.pdu().event_id;
    let is_accepted = judged.flags.is_accepted() && effect.soft_failure.is_none();
    effect.covered = if is_accepted {
        covers(&reader, &judged.previous).await?
    } else {
        late(&reader, event_id, &judged.previous).await?.unwrap_or_default()
    };
    let on_line = matches!(judged.source.mode(), Mode::Pushed | Mode::Fetched);
    if is_accepted && on_line && !is_covered(&reader, event_id).await? {
        effect.extremity = Some(judged.extremity());
    }
    let is_one = |nid: &EventNid| head.extremities.iter().any(|extremity| extremity.nid == *nid);
    if effect.extremity.is_none() && !effect.covered.nids.iter().any(is_one) {
        return Ok(Some(effect));
    }

    let mut extremities = head.extremities.clone();
    let accepted = extremities.accept(effect.extremity.clone(), &effect.covered.nids);
    effect.is_tip = accepted.map_err(ReceiveError::NoneLeft)?;
    if effect.is_tip {
        effect.changes = states.changes_of_tip(&reader, judged).await?;
        return Ok(Some(effect));
    }
    reader.show(judged.as_stored());
    let mut after_them = Vec::with_capacity(extremities.len());
    for extremity in extremities.iter() {
        after_them.push(if extremity.nid == judged.nid {
            judged.state_after(&mut reader, room, ids).await?
        } else {
            state_after(&reader, head, extremity).await?
        });
    }
    if let Some(own) = &mut effect.extremity {
        own.after = judged.after;
    }
    judged.sides = reader.sides().to_vec();
    let Some(changes) = states.changes_of_merge(&reader, &after_them).await? else { return Ok(None) };
    (effect.changes, effect.alarm) = changes;
    Ok(Some(effect))
}

/// The state after a forward extremity.
pub(super) async fn state_after<R: RoomReader>(
    reader: &R,
    head: HeadView<'_>,
    extremity: &Extremity,
) -> Result<StateAt, R::Error> {
    if let Some(after) = extremity.after {
        return Ok(after);
    }
    if head.extremities.len() == 1 {
        return Ok(StateAt::in_log(head.state_pos));
    }
    let node = reader.nodes(&[extremity.nid]).await?.pop();
    // The reader has each event that it is asked for, and a forward extremity has a place.
    Ok(node.and_then(|node| node.place).map_or(StateAt::EMPTY, |place| StateAt::in_log(place.pos)))
}

/// The states of a room around an event.
struct States<'a, I> {
    room: &'a RoomFacts<'a>,
    head: HeadView<'a>,
    ids: &'a I,
    may_resolve: bool,
}

impl<I> States<'_, I> {
    async fn merge<R: RoomReader>(
        &self,
        reader: &R,
        states: &[StateAt],
    ) -> Result<Option<Merged>, ReceiveError<R::Error>>
    where
        I: Ids<Error = R::Error>,
    {
        if self.may_resolve {
            return merge(reader, self.room, self.head, states, self.ids).await.map(Some);
        }
        Ok(merge_known(reader, self.room, self.head, states).await?)
    }

    /// The rule that an accepted event of the line breaks in the current state. The outer `None`: states would have to be
    /// resolved for the answer.
    async fn soft_failure<R: RoomReader, S: Source>(
        &self,
        reader: &R,
        judged: &Judged<S>,
    ) -> Result<Option<Option<AuthRuleError>>, ReceiveError<R::Error>>
    where
        I: Ids<Error = R::Error>,
    {
        let on_line = matches!(judged.source.mode(), Mode::Pushed | Mode::Fetched);
        // The current state of a partial room lacks most members.
        let is_checked = judged.flags.is_accepted() && on_line && !self.head.partial;
        if !is_checked || names_exactly(&judged.previous, self.head.extremities) {
            return Ok(Some(None));
        }
        let current = StateAt::in_log(self.head.state_pos);
        let merged = if judged.flags.contains(Flags::CLAIMED) {
            // The events that led to a state that was told are not known here, so they are not in the current state.
            match self.merge(reader, &[current, judged.before]).await? {
                Some(merged) => merged,
                None => return Ok(None),
            }
        } else if hash(reader, judged.before).await? == self.head.hash {
            // The event was checked against this state.
            return Ok(Some(None));
        } else {
            Merged::One(current)
        };
        let state = merged.view(self.head.state_pos);
        Ok(Some(refusal(reader, self.room.rules, judged.source.pdu(), state).await?))
    }

    /// The changes of the room's state, if it becomes that after the event.
    async fn changes_of_tip<R: RoomReader, S: Source>(
        &self,
        reader: &R,
        judged: &Judged<S>,
    ) -> Result<StateDelta, R::Error> {
        let mut changes = self.changes_to(reader, judged.before).await?;
        if let Some(key) = judged.key {
            // An event that was an outlier may be in the current state already.
            let current = reader.value(key, self.head.state_pos).await?;
            if current.is_some_and(|held| held.event_nid == judged.nid) {
                changes.remove(key);
            } else {
                changes.set(key, Some(judged.held()));
            }
        }
        Ok(changes)
    }

    /// The changes of the room's state, if it becomes that of its forward extremities with these states after them, and
    /// whether they are alarming. `None`: the states would have to be resolved.
    async fn changes_of_merge<R: RoomReader>(
        &self,
        reader: &R,
        states: &[StateAt],
    ) -> Result<Option<(StateDelta, Option<Alarm>)>, ReceiveError<R::Error>>
    where
        I: Ids<Error = R::Error>,
    {
        let changes = match self.merge(reader, states).await? {
            None => return Ok(None),
            Some(Merged::One(at)) => return Ok(Some((self.changes_to(reader, at).await?, None))),
            Some(Merged::Resolved(changes)) => changes,
        };
        let Some(create) = self.room.create.filter(|_| !changes.is_empty()) else { return Ok(Some((changes, None))) };
        let RoomFacts { rules, room_id, .. } = *self.room;
        let conflict = Conflict { base: self.head.state_pos, states: vec![&changes], rules, room_id, create };
        let alarm = alarm(reader, &conflict, &StateDelta::default(), &changes).await?;
        Ok(Some((changes, alarm)))
    }

    /// The difference of a state to the room's current one.
    async fn changes_to<R: RoomReader>(&self, reader: &R, state: StateAt) -> Result<StateDelta, R::Error> {
        if hash(reader, state).await? == self.head.hash {
            return Ok(StateDelta::default());
        }
        against(reader, state, self.head.state_pos).await
    }
}

impl<S: Source> Judged<S> {
    fn held(&self) -> Held {
        Held { event_nid: self.nid, membership: self.membership }
    }

    /// The event as a forward extremity and the only one.
    fn extremity(&self) -> Extremity {
        let pdu = self.source.pdu();
        Extremity {
            nid: self.nid,
            event_id: pdu.event_id.clone(),
            depth: self.depth(),
            ts: pdu.origin_server_ts,
            ours: self.flags.contains(Flags::OURS),
            after: None,
        }
    }

    fn depth(&self) -> i64 {
        i64::try_from(self.source.pdu().depth).unwrap_or(i64::MAX)
    }

    /// The event as walks through previous events will see it.
    fn graph_node(&self) -> GraphNode {
        let pdu = self.source.pdu();
        GraphNode {
            nid: self.nid,
            event_id: pdu.event_id.clone(),
            flags: self.flags,
            place: None,
            before: self.before,
            key: self.key,
            membership: self.membership,
            depth: self.depth(),
            ts: pdu.origin_server_ts,
            prev: self.previous.known.iter().map(|prev| prev.nid).collect(),
        }
    }

    /// The event as it will be read.
    fn as_stored(&self) -> NewEvent {
        let (auth, auth_depth) = (self.auth.clone().into(), self.auth_depth);
        let auth = AuthNode { nid: self.nid, auth, auth_depth, flags: self.flags, key: self.key };
        let pdu = self.source.pdu().clone();
        NewEvent { graph: Arc::new(self.graph_node()), auth: Arc::new(auth), pdu: Arc::new(pdu) }
    }

    /// The state after the event, which is accepted and not the only forward extremity.
    async fn state_after<R: RoomReader, I: Ids<Error = R::Error>>(
        &mut self,
        reader: &mut Overlay<'_, R>,
        room: &RoomFacts<'_>,
        ids: &I,
    ) -> Result<StateAt, R::Error> {
        if let Some(after) = self.after {
            return Ok(after);
        }
        let state = after(reader, room.secret, &self.graph_node(), || ids.side()).await?;
        let at = reader.keep(state);
        self.after = Some(at);
        Ok(at)
    }
}

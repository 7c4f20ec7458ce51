//! Counting at a user's look at a room: anew, or adding what is new to an earlier count.

use std::collections::HashSet;

use super::{
    Basis, COLD_EVENTS, Counted, MAX_EVENTS, Outcome, Owed,
    judged::{Effect, Found, Judged},
    steps::{MAX_STEPS, Reach, WorkBudget},
    tally::Tally,
};
use crate::{
    ephemeral::receipts::Reads,
    push::{Push, rules::evaluate::Verdict},
    room::{Room, Rooms},
    store::{Error, KeyNid, Position, vocabulary::User},
};

/// A user's look at a room, which counts.
pub(super) struct Counting<'a> {
    pub(super) push: &'a Push,
    pub(super) rooms: &'a Rooms,
    pub(super) room: &'a Room,
    pub(super) user: &'a User,
    pub(super) basis: Basis,
    pub(super) reads: Reads,
    pub(super) upto: Position,
    pub(super) budget: &'a WorkBudget,
}

/// The verdicts for the events of a look, one for each. An event that does not count has a verdict without notification.
struct Settled {
    verdicts: Vec<Verdict>,
    reach: Reach,
}

impl Counting<'_> {
    /// The position after which a new count starts: the user's join, or their receipt for the whole room.
    pub(super) fn start(&self) -> Position {
        self.basis.joined_at.max(self.reads.up_to(""))
    }

    /// Counts the latest [`COLD_EVENTS`] from the start.
    pub(super) async fn count_anew(&self) -> Result<Counted, Error> {
        let start = self.start();
        let mut counted = Counted {
            basis: self.basis.version(),
            upto: start,
            tally: Tally::default(),
            read_upto: Position::BEFORE_ALL,
            through: HashSet::new(),
            owed: Owed::Nothing,
            unsaved: 0,
            is_new: true,
        };
        if self.room.last_pos() <= start {
            counted.upto = start.max(self.upto);
            return Ok(counted);
        }
        if self.budget.is_spent() {
            counted.owed = Owed::All;
            return Ok(counted);
        }
        let found = self.judged(&self.basis.rules.compiled, start, COLD_EVENTS).await?;
        let settled = self.settle(&found).await?;
        self.add(&mut counted, &found, &settled.verdicts).await?;
        if settled.reach == Reach::OutOfBudget {
            counted.owed = Owed::All;
            // These only serve to add events to this tally, and it will be counted anew. Cleared, so that their number
            // does not stop the tally from being kept.
            counted.through.clear();
        }
        counted.upto = counted.upto.max(self.upto);
        Ok(counted)
    }

    /// Adds the events since the last look.
    pub(super) async fn go_on(&self, counted: &mut Counted) -> Result<Outcome, Error> {
        if self.upto <= counted.upto {
            return Ok(Outcome::Counted);
        }
        if self.budget.is_spent() && counted.upto < self.room.last_pos() {
            counted.owed = Owed::News;
            return Ok(Outcome::Counted);
        }
        let limit = self.budget.added_left().clamp(COLD_EVENTS, MAX_EVENTS);
        let found = self.judged(&self.basis.rules.compiled, counted.upto, limit).await?;
        self.budget.add(found.events.len());
        match found.reach {
            Reach::OutOfBudget => {
                counted.owed = Owed::News;
                return Ok(Outcome::Counted);
            }
            Reach::All if found.more => return Ok(Outcome::CountAnew),
            Reach::All | Reach::Latest => {}
        }
        for event in &found.events {
            if self.redact(counted, event).await? == Outcome::CountAnew {
                return Ok(Outcome::CountAnew);
            }
        }
        let settled = self.settle(&found).await?;
        match settled.reach {
            Reach::All => {}
            Reach::Latest => {
                // A new count would not reach the events that were counted before.
                counted.tally = Tally::default();
                counted.tally.changed(self.upto);
            }
            Reach::OutOfBudget => {
                counted.owed = Owed::News;
                return Ok(Outcome::Counted);
            }
        }
        self.add(counted, &found, &settled.verdicts).await?;
        counted.upto = self.upto;
        if std::mem::replace(&mut counted.owed, Owed::Nothing) == Owed::News {
            counted.tally.changed(self.upto);
        }
        Ok(Outcome::Counted)
    }

    /// Removes the event that `event` redacts.
    async fn redact(&self, counted: &mut Counted, event: &Judged) -> Result<Outcome, Error> {
        let redacted = match event.effect(self.rooms, self.room).await? {
            Effect::None => return Ok(Outcome::Counted),
            Effect::Unknown => return Ok(Outcome::CountAnew),
            Effect::Redacts(redacted) => redacted,
        };
        // Related events say to which thread an event belongs. A redacted one no longer does.
        if redacted.changes_all(&self.user.user_id) || counted.through.contains(&redacted.nid) {
            return Ok(Outcome::CountAnew);
        }
        counted.tally.redacted(event.pos, redacted.nid);
        Ok(Outcome::Counted)
    }

    /// The verdicts of the user's own rules, newest event first because the latest ones count. Stops after [`MAX_STEPS`],
    /// or when the budget is used up.
    async fn settle(&self, found: &Found) -> Result<Settled, Error> {
        let rules = &self.basis.rules.compiled;
        let mut settled = Settled { verdicts: vec![Verdict::default(); found.events.len()], reach: found.reach };
        // The steps of all events count, whoever made them: so a count does not depend on who has looked before.
        let (mut steps, mut own_steps) = (0, 0);
        let mut member_key = None;
        for (event, verdict) in found.events.iter().zip(&mut settled.verdicts).rev() {
            if steps > MAX_STEPS {
                settled.reach = Reach::Latest;
                break;
            }
            steps += event.steps();
            if !self.counts(event) || !event.judgement.may_notify() {
                continue;
            }
            let name = if rules.asks_display_name(&event.judgement) {
                let key = match member_key {
                    Some(key) => key,
                    None => *member_key.insert(self.member_key().await?),
                };
                let evaluator = &self.push.evaluator;
                Some(evaluator.display_name(self.rooms, self.room, (self.user, key), event.pos).await?)
            } else {
                None
            };
            let before = steps;
            let name = name.as_ref().and_then(|name| name.glob());
            *verdict = rules.settle(&event.judgement, name, &mut steps).await;
            own_steps += steps - before;
        }
        self.budget.spend(own_steps);
        Ok(settled)
    }

    async fn member_key(&self) -> Result<Option<KeyNid>, Error> {
        self.rooms.find_key(self.room, "m.room.member", self.user.user_id.as_str()).await
    }

    /// Returns whether an event can count for the user at all.
    fn counts(&self, event: &Judged) -> bool {
        !event.is_redacted && event.sender() != self.user.user_id && !self.basis.ignored.contains(event.sender())
    }

    /// Adds events with their verdicts, oldest first. All must be newer than the events added before.
    async fn add(&self, counted: &mut Counted, found: &Found, verdicts: &[Verdict]) -> Result<(), Error> {
        counted.unsaved += found.events.len();
        for (event, verdict) in found.events.iter().zip(verdicts) {
            if event.is_redacted || self.basis.ignored.contains(event.sender()) {
                continue;
            }
            if !event.matters(*verdict, self.user) {
                continue;
            }
            let conversation = event.conversation(self.rooms, self.room).await?;
            counted.add(event, *verdict, conversation, self.user);
        }
        Ok(())
    }
}

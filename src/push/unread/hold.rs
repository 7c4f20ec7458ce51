//! Evaluation of events against a user's rules, limited by the steps of a look and those of an answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Basis, Look};
use crate::{
    push::rules::evaluate::Verdict,
    room::{circumstances::Circumstances, event::StoredEvent, timeline::Placed},
    store::{Error, Position},
};

/// Maximum steps of matching for the events of one look, newest first: some tens of milliseconds. Enough for a thousand
/// events of 500 bytes and a hundred words to search for. With long patterns and long texts, fewer events count.
pub(super) const MAX_STEPS: usize = 50_000_000;

/// Maximum steps for the looks of one answer, all rooms together: some tenths of a second. With ordinary rules and
/// texts this is enough for a hundred thousand events.
pub(super) const MAX_STEPS_IN_ALL: usize = 4 * MAX_STEPS;

/// The remaining steps for the looks of an answer.
pub struct StepBudget(AtomicUsize);

impl Default for StepBudget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_STEPS_IN_ALL))
    }
}

impl StepBudget {
    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left() == 0
    }

    fn spend(&self, steps: usize) {
        // One task writes an answer, so nothing else changes the number in between.
        self.0.store(self.left().saturating_sub(steps), Ordering::Relaxed);
    }
}

/// The verdicts for some events, one for each. An event that does not count has a verdict without notification.
pub(super) struct Held {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) reach: Reach,
}

/// The part of the events for which the steps were enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// The latest events. [`MAX_STEPS`] is the same for every count.
    Latest,
    /// The events for which the budget of this answer was enough.
    OutOfBudget,
}

impl Look<'_> {
    /// Evaluates the events against the rules, newest first because the latest ones count. Stops after [`MAX_STEPS`],
    /// or when the budget is used up.
    pub(super) async fn hold(&self, basis: &Basis, events: &[Placed]) -> Result<Held, Error> {
        let may_notify = |event: &StoredEvent| {
            let sender = event.sender();
            event.redacted_because.is_none() && !basis.ignored.contains(sender) && sender != self.user.user_id
        };
        let mut held = Held { verdicts: vec![Verdict::default(); events.len()], reach: Reach::All };
        let Some((first, _)) = events.iter().find(|(_, event)| may_notify(event)) else { return Ok(held) };
        let found = self.rooms.circumstances(self.room, &self.user.user_id, Position(first.0 - 1)).await?;
        let (of, rules) = ((self.room, self.user), &basis.rules.compiled);
        let (mut steps, left) = (0, self.budget.left());
        for ((pos, event), verdict) in events.iter().zip(&mut held.verdicts).rev() {
            if !may_notify(event) {
                continue;
            }
            if steps > MAX_STEPS {
                held.reach = Reach::Latest;
                break;
            }
            if steps >= left {
                held.reach = Reach::OutOfBudget;
                break;
            }
            let stood = Circumstances::at(&found, *pos)
                .ok_or_else(|| Error::damaged("state log", "it does not reach an event of the timeline"))?;
            *verdict = self.push.evaluator.verdict(self.rooms, of, rules, event, stood, &mut steps).await?;
        }
        self.budget.spend(steps);
        Ok(held)
    }
}

//! Holding events against the rules of a user, as far as there are steps for it: those of a look, and those of an answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Basis, Look};
use crate::{
    push::evaluate::Verdict,
    room::{circumstances::Circumstances, event::StoredEvent, timeline::Placed},
    store::{Error, Position},
};

/// How many steps of matching the events of one look may take, newest first: some tens of milliseconds. A thousand events of
/// 500 bytes fit with a hundred words to look for; who has long patterns and gets long texts has fewer that count.
pub(super) const MAX_STEPS: usize = 50_000_000;

/// How many steps the looks of one answer may take, all rooms together: some tenths of a second. With ordinary rules and texts
/// these are a hundred thousand events.
pub(super) const MAX_STEPS_IN_ALL: usize = 4 * MAX_STEPS;

/// How many more steps the looks of an answer may take.
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
        // One answer is written by one task, so nothing comes in between.
        self.0.store(self.left().saturating_sub(steps), Ordering::Relaxed);
    }
}

/// What the rules say about some events, for each of them. One that does not count has the verdict of no notification.
pub(super) struct Held {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) reach: Reach,
}

/// For which of the events there were enough steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// For the latest: [`MAX_STEPS`] are the same for whoever counts.
    Latest,
    /// For those that the budget of this answer was left for.
    OutOfBudget,
}

impl Look<'_> {
    /// Holds events against the rules: newest first, as it is the latest that count, until that took [`MAX_STEPS`] or what
    /// was left of the budget.
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

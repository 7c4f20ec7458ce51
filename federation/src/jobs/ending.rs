//! The ends of rounds and jobs.
//!
//! A round ends when no server is left. It is repeated while something may come of it and a user cannot simply try again: a
//! leave, and a join that some server may have taken. A job ends well, or fails, or becomes a leave.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{Job, JobEffect, JobFailure, JobNews, JobState, Round, SETTLE, Step, retry};
use crate::build::template::TemplateKind;

impl Job {
    /// Ends a round in which no server has helped.
    pub(super) fn end_round(&mut self, step: &mut Step<'_>) {
        let failure = self.round.failure.take().unwrap_or(JobFailure::NoServer);
        let is_worth_it = self.row.kind == TemplateKind::Leave || self.is_in_doubt();
        if is_worth_it && self.round.may_pass && step.now_ms < self.row.until_ms {
            step.effects.push(JobEffect::Tell(JobNews::Later(failure)));
            self.wait(step);
        } else {
            self.give_up(failure, step);
        }
    }

    /// Waits for the next round.
    pub(super) fn wait(&mut self, step: &mut Step<'_>) {
        let round = std::mem::take(&mut self.round);
        self.row.tries = self.row.tries.saturating_add(1);
        let wait = retry::wait(self.row.tries, round.retry_after, step.random);
        self.row.next_ms = retry::after(step.now_ms, wait);
        self.store(step);
        step.effects.push(JobEffect::Wake { at_ms: self.row.next_ms });
    }

    /// Ends the job without success. If a server has taken the event, or may have, a leave takes the place of the job.
    pub(super) fn give_up(&mut self, failure: JobFailure, step: &mut Step<'_>) {
        self.round = Round::default();
        if self.row.kind != TemplateKind::Leave && self.is_in_doubt() {
            self.become_leave(step);
        } else {
            self.row.state = JobState::Failed;
            step.effects.push(JobEffect::Delete);
        }
        step.effects.push(JobEffect::Tell(JobNews::Failed(failure)));
    }

    /// Makes a leave of the job. It is stored in the place of the join, so none of the two is lost.
    fn become_leave(&mut self, step: &mut Step<'_>) {
        // Another event of the job may still be on its way, even if this one was taken.
        let wait = if self.row.lost_answer { SETTLE } else { Duration::ZERO };
        let from_ms = retry::after(step.now_ms, wait);
        let row = &mut self.row;
        row.kind = TemplateKind::Leave;
        row.state = JobState::Make;
        row.event = None;
        row.content = RawValue::from_string("{}".to_owned()).expect("an empty object is JSON");
        (row.lost_answer, row.cancelled, row.tries) = (false, false, 0);
        (row.next_ms, row.until_ms) = (from_ms, retry::limit_ms(TemplateKind::Leave, from_ms));
        self.store(step);
        step.effects.push(JobEffect::Wake { at_ms: from_ms });
    }

    /// Ends the job well.
    pub(super) fn finish(&mut self, step: &mut Step<'_>) {
        self.row.state = JobState::Done;
        self.round = Round::default();
        step.effects.extend([JobEffect::Delete, JobEffect::Tell(JobNews::Done)]);
    }

    /// The user leaves.
    pub(super) fn cancel(&mut self, step: &mut Step<'_>) {
        match self.row.state {
            JobState::Joined | JobState::Resync | JobState::Done | JobState::Failed => {}
            _ if self.row.kind == TemplateKind::Leave => {}
            // The answer will say whether there is something to leave.
            JobState::Sent if !self.round.waiting.is_empty() => {
                self.row.cancelled = true;
                self.store(step);
            }
            JobState::Importing => {
                step.effects.push(JobEffect::StopImport);
                self.give_up(JobFailure::Cancelled, step);
            }
            JobState::Make | JobState::Signed | JobState::Sent => self.give_up(JobFailure::Cancelled, step),
        }
    }
}

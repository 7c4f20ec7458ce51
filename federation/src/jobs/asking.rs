//! The state *make*: servers are asked for a template, one after another, until one has a good one. The next one is asked as
//! soon as one has failed, or after three seconds without an answer.

use std::sync::Arc;

use ruma::OwnedServerName;

use super::{
    AskError, Job, JobEffect, JobFailure, JobRow, JobState, SignedEvent, Step,
    errors::{self, Verdict},
    retry,
};
use crate::{
    build::template::{Template, TemplateError, Wanted, build_from_template},
    room_version,
};

impl Job {
    /// Asks the next server. Without one, and without one to wait for, the round is over.
    pub(super) fn ask_next(&mut self, step: &mut Step<'_>) {
        let mut not_asked = self.row.via.iter().filter(|server| !self.round.asked.contains(*server));
        let Some(server) = not_asked.next().cloned() else {
            if self.round.waiting.is_empty() {
                self.end_round(step);
            }
            return;
        };
        let is_last = not_asked.next().is_none();
        self.round.asked.insert(server.clone());
        self.round.waiting.insert(server.clone());
        self.round.next_ask_ms = retry::after(step.now_ms, retry::NEXT_ASK);
        step.effects.push(JobEffect::Ask { server, limit: retry::ASK_LIMIT });
        if !is_last {
            step.effects.push(JobEffect::Wake { at_ms: self.round.next_ask_ms });
        }
    }

    pub(super) fn made(&mut self, server: &OwnedServerName, result: Result<Template, AskError>, step: &mut Step<'_>) {
        if self.row.state != JobState::Make || !self.round.waiting.remove(server) {
            return;
        }
        match result {
            Ok(template) => self.sign(server, &template, step),
            Err(error) => self.not_made(server, error, step),
        }
    }

    fn not_made(&mut self, server: &OwnedServerName, error: AskError, step: &mut Step<'_>) {
        let verdict = errors::of_make(self.row.kind, &error);
        if !self.ends_at(server, error, verdict, step) {
            self.ask_next(step);
        }
    }

    /// Builds the event and sends it. The first good template counts, and the others are not waited for.
    fn sign(&mut self, server: &OwnedServerName, template: &Template, step: &mut Step<'_>) {
        let Some(rules) = room_version::rules(&template.room_version) else {
            let error = TemplateError::UnsupportedVersion { version: template.room_version.to_string() };
            return self.not_made(server, error.into(), step);
        };
        let JobRow { kind, room_id, user, content, .. } = &self.row;
        let wanted = Wanted { kind: *kind, room_id, user };
        let pdu = match build_from_template(&rules, step.signer, &wanted, content, template, step.now_ms) {
            Ok(pdu) => pdu,
            // The rest of the event is ours, so another template would not help.
            Err(error) => return self.give_up(JobFailure::Build(error), step),
        };
        self.row.event = Some(SignedEvent { pdu: Arc::new(pdu), room_version: template.room_version.clone() });
        self.row.state = JobState::Signed;
        self.prefer(server);
        for other in std::mem::take(&mut self.round.waiting) {
            self.round.asked.remove(&other);
        }
        self.send_next(step);
    }

    /// Takes note of a failure. Returns whether it has ended the job.
    pub(super) fn ends_at(
        &mut self,
        server: &OwnedServerName,
        error: AskError,
        verdict: Verdict,
        step: &mut Step<'_>,
    ) -> bool {
        if let AskError::Refused { retry_after, .. } = error {
            self.round.retry_after = self.round.retry_after.max(retry_after);
        }
        let failure = JobFailure::of_answer(server.clone(), error);
        // While some server may have taken the event, the word of another one settles nothing.
        if verdict.ends && !self.is_in_doubt() {
            self.give_up(failure, step);
            return true;
        }
        self.note(failure, verdict.may_pass);
        false
    }

    /// Takes note of a failure in this round.
    pub(super) fn note(&mut self, failure: JobFailure, may_pass: bool) {
        self.round.may_pass |= may_pass;
        if self.round.failure.as_ref().is_none_or(|noted| noted.rank() < failure.rank()) {
            self.round.failure = Some(failure);
        }
    }
}

//! The states *signed*, *sent* and *importing*: the event goes to the server whose template it is built on, and then to the
//! others, until one has taken it and its answer is read.
//!
//! It is always the same event: all servers take it as one, however often it comes. The exception is a join that names a user
//! who authorises it. Only that user's server signs it, so no other server can take it, and a join through another server needs
//! an event of its own. If the first one was taken without our knowing, two joins of one user are as good as one.

use std::sync::Arc;

use ruma::{OwnedServerName, OwnedUserId};
use serde::Deserialize;

use super::{
    AskError, ImportError, Job, JobEffect, JobFailure, JobNews, JobState, Round, Step,
    errors::{self, Verdict},
    retry,
};
use crate::{Pdu, build::template::TemplateKind};

impl Job {
    /// Sends the event to the next server. It is stored before, together with the fact that a server may have it.
    pub(super) fn send_next(&mut self, step: &mut Step<'_>) {
        let Some(event) = self.row.event.as_ref().map(|event| Arc::clone(&event.pdu)) else {
            // A row that no step has stored. It can only begin again.
            self.row.state = JobState::Make;
            return self.ask_next(step);
        };
        // An event that one server has taken and signed may be known to others already.
        let only = if self.row.state == JobState::Importing { None } else { authorising_server(&event) };
        let may_take = |server: &&OwnedServerName| only.as_ref().is_none_or(|only| only == *server);
        let mut not_sent_to = self.row.via.iter().filter(|server| !self.round.sent_to.contains(*server));
        let Some(server) = not_sent_to.find(may_take).cloned() else {
            return if only.is_some() { self.ask_others(step) } else { self.end_round(step) };
        };
        self.round.sent_to.insert(server.clone());
        self.round.waiting.insert(server.clone());
        if self.row.state == JobState::Signed {
            self.row.state = JobState::Sent;
            self.store(step);
        }
        step.effects.push(JobEffect::Send { server, event, limit: retry::send_limit(self.row.kind) });
    }

    /// Asks the other servers for a template of their own, because none but the one that was tried can take the event.
    fn ask_others(&mut self, step: &mut Step<'_>) {
        self.row.state = JobState::Make;
        self.row.event = None;
        self.round.sent_to.clear();
        self.store(step);
        self.ask_next(step);
    }

    pub(super) fn answered(&mut self, server: &OwnedServerName, result: Result<(), AskError>, step: &mut Step<'_>) {
        let is_sent = matches!(self.row.state, JobState::Sent | JobState::Importing);
        if !is_sent || !self.round.waiting.remove(server) {
            return;
        }
        match result {
            Ok(()) => self.taken(server, step),
            Err(error) => self.not_taken(server, error, step),
        }
    }

    fn taken(&mut self, server: &OwnedServerName, step: &mut Step<'_>) {
        self.prefer(server);
        if self.row.kind == TemplateKind::Leave {
            return self.finish(step);
        }
        let was_taken_before = self.row.state == JobState::Importing;
        self.row.state = JobState::Importing;
        if self.row.cancelled {
            return self.give_up(JobFailure::Cancelled, step);
        }
        if !was_taken_before {
            self.store(step);
        }
        let mut then = self.row.clone();
        (then.state, then.tries, then.next_ms) = (JobState::Joined, 0, step.now_ms);
        let then = (self.row.kind == TemplateKind::Join).then(|| Box::new(then));
        self.round.waiting.insert(server.clone());
        step.effects.push(JobEffect::Import { server: server.clone(), then });
    }

    fn not_taken(&mut self, server: &OwnedServerName, error: AskError, step: &mut Step<'_>) {
        let verdict: Verdict = errors::of_send(self.row.kind, &error);
        self.row.lost_answer |= verdict.may_be_taken;
        if !self.is_in_doubt() {
            self.row.state = JobState::Signed;
        }
        if self.row.cancelled {
            self.give_up(JobFailure::Cancelled, step);
        } else if !self.ends_at(server, error, verdict, step) {
            self.send_next(step);
        }
    }

    pub(super) fn imported(&mut self, step: &mut Step<'_>) {
        if self.row.state != JobState::Importing {
            return;
        }
        step.effects.push(JobEffect::Tell(JobNews::Done));
        self.round = Round::default();
        if self.row.kind != TemplateKind::Join {
            self.row.state = JobState::Done;
            return;
        }
        self.row.state = JobState::Joined;
        (self.row.tries, self.row.next_ms) = (0, step.now_ms);
        self.resync(step);
    }

    pub(super) fn not_imported(&mut self, error: ImportError, step: &mut Step<'_>) {
        if self.row.state != JobState::Importing {
            return;
        }
        let Some(server) = self.round.waiting.pop_first() else { return };
        self.note(JobFailure::NotImported { server, source: error }, error != ImportError::Wrong);
        match error {
            ImportError::Wrong | ImportError::Interrupted => self.send_next(step),
            ImportError::Internal => self.end_round(step),
        }
    }

    /// Completes the state of the room, if something is missing.
    pub(super) fn resync(&mut self, step: &mut Step<'_>) {
        if self.round.resyncing {
            return;
        }
        self.round.resyncing = true;
        if self.row.state == JobState::Joined {
            self.row.state = JobState::Resync;
            self.store(step);
        }
        step.effects.push(JobEffect::Resync);
    }

    pub(super) fn resynced(&mut self, is_complete: bool, step: &mut Step<'_>) {
        if !self.round.resyncing {
            return;
        }
        if is_complete {
            self.row.state = JobState::Done;
            self.round = Round::default();
            step.effects.push(JobEffect::Delete);
        } else {
            // Never given up: the room is in use.
            self.wait(step);
        }
    }
}

/// The server whose user authorises a join.
fn authorising_server(event: &Pdu) -> Option<OwnedServerName> {
    #[derive(Deserialize)]
    struct Content {
        join_authorised_via_users_server: Option<OwnedUserId>,
    }
    let content: Content = serde_json::from_str(event.content.get()).ok()?;
    Some(content.join_authorised_via_users_server?.server_name().to_owned())
}

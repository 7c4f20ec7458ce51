//! Joins, knocks and leaves through other servers, as jobs that survive restarts.
//!
//! Promise: a join or a knock ends alike on both sides, whatever is lost, refused or killed on the way. Either the user is in
//! the room here and there, or in neither place. An event that was signed is stored before it is sent, and no other one
//! takes its place, because a server whose answer was lost may have taken it. (One exception: see [`sending`].) If a join
//! is given up while a server may have taken it, a leave follows.
//!
//! A job is a machine without a clock, a network or a database: [`Job::step`] takes an input and returns effects. The
//! caller carries these out in their order, and an effect only once a [`JobEffect::Store`] before it is committed. If it
//! cannot be committed, or the process ends, [`Job::resume`] goes on from the last stored [`JobRow`].
//!
//! The states are, in order: *make* (servers are asked for a template), *signed* (no server has the event), *sent* (a server
//! may have it), *importing* (a server has taken it and its answer is read), *joined* (the room is here), *resync* (its
//! state is completed). A knock ends after the import, a leave when a server has taken it.
//!
//! [`asking`] has the state *make*, [`sending`] those up to the import, [`ending`] the ends of rounds and jobs. [`errors`]
//! judges failures, and [`retry`] has the times.
//!
//! Server-server API, [Joining rooms](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::Rng;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId};
use serde_json::value::RawValue;

use crate::{
    Pdu, ServerSigner,
    build::template::{Template, TemplateKind, Wanted},
};

mod asking;
mod ending;
mod errors;
mod retry;
mod sending;

pub use self::{
    errors::{AskError, ImportError, JobFailure},
    retry::{JOIN_LIMIT, LEAVE_LIMIT, SETTLE},
};

/// Maximum number of servers that a job tries. Clients may name any number of them.
const MAX_VIA: usize = 20;

/// The step that a job has reached. Each is stored but the last two: when they are reached, the row is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum JobState {
    Make = 1,
    Signed = 2,
    Sent = 3,
    Importing = 4,
    Joined = 5,
    Resync = 6,
    Done = 7,
    Failed = 8,
}

impl JobState {
    /// The number this state is stored as.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The state stored as `code`, if it is one.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Make, Self::Signed, Self::Sent, Self::Importing, Self::Joined, Self::Resync]
            .into_iter()
            .find(|state| state.code() == code)
    }
}

/// An event that a job has signed.
#[derive(Clone, Debug)]
pub struct SignedEvent {
    pub pdu: Arc<Pdu>,
    /// The room version that the template said. The answer to `send_join` must prove it.
    pub room_version: RoomVersionId,
}

/// A job as it is stored. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct JobRow {
    pub room_id: OwnedRoomId,
    /// A user of this server.
    pub user: OwnedUserId,
    pub kind: TemplateKind,
    pub state: JobState,
    /// The servers to try, in this order.
    pub via: Vec<OwnedServerName>,
    /// The rest of the content of the event, for the time when it is built.
    pub content: Box<RawValue>,
    /// The version of the room, if we know it from elsewhere.
    pub room_version: Option<RoomVersionId>,
    /// Set from [`JobState::Signed`] on.
    pub event: Option<SignedEvent>,
    /// Whether a server may have taken an event of this job without our knowing. If the job fails, a leave follows.
    pub lost_answer: bool,
    /// Whether the user has left meanwhile. It is settled when the answer comes to the event that is on its way.
    pub cancelled: bool,
    /// The number of rounds that have failed.
    pub tries: u32,
    /// The time of the next round.
    pub next_ms: i64,
    /// The time after which the job is given up, unless the room is here.
    pub until_ms: i64,
}

/// A join, a knock or a leave in progress.
#[derive(Debug)]
pub struct Job {
    row: JobRow,
    round: Round,
}

/// The progress of one round through the servers. A restart begins a new round.
#[derive(Default, Debug)]
struct Round {
    /// The servers that were asked for a template.
    asked: BTreeSet<OwnedServerName>,
    /// The servers that were sent the event.
    sent_to: BTreeSet<OwnedServerName>,
    /// The servers whose answer is awaited. Several may be asked for a template at the same time.
    waiting: BTreeSet<OwnedServerName>,
    /// The time at which the next server is asked for a template, even if no answer has come.
    next_ask_ms: i64,
    /// Whether the room's state is being completed.
    resyncing: bool,
    /// Whether a failure of this round may pass.
    may_pass: bool,
    /// The longest time that a server asked us to wait.
    retry_after: Option<Duration>,
    /// The failure that says the most.
    failure: Option<JobFailure>,
}

/// The news for a job.
#[derive(Debug)]
pub enum JobInput {
    /// The job is new or resumed, or a time of [`JobEffect::Wake`] has come. It does no harm at other times.
    Due,
    /// The answer to [`JobEffect::Ask`]. A [`TemplateError`](crate::build::template::TemplateError) is a failure too.
    Made { server: OwnedServerName, result: Result<Template, AskError> },
    /// The status of the answer to [`JobEffect::Send`]: whether the server has taken the event.
    Answered { server: OwnedServerName, result: Result<(), AskError> },
    /// The last commit of [`JobEffect::Import`] is done.
    Imported,
    /// The import has failed, and nothing of it is visible.
    NotImported(ImportError),
    /// The result of [`JobEffect::Resync`]: whether the room's state is complete.
    Resynced { is_complete: bool },
    /// The user leaves. When the last commit of an import is under way, [`Self::Imported`] comes first. Once the job is
    /// [`JobState::Joined`], the room is an ordinary one, and this has no effect, nor has it on a leave.
    Cancel,
}

/// The work that a step asks for. Each [`Ask`](Self::Ask), [`Send`](Self::Send), [`Import`](Self::Import) and
/// [`Resync`](Self::Resync) must get its one answer as an input, within its limit if it has one: the job waits for it.
#[derive(Debug)]
pub enum JobEffect {
    /// Commit the row, in place of that of the same room and user. The effects after it wait for that.
    Store(Box<JobRow>),
    /// Delete the row.
    Delete,
    /// Ask the server for a template: `make_join`, `make_knock` or `make_leave`.
    Ask { server: OwnedServerName, limit: Duration },
    /// Send this event to the server: `send_join`, `send_knock` or `send_leave`. It has the time until its answer begins.
    Send { server: OwnedServerName, event: Arc<Pdu>, limit: Duration },
    /// Take in the rest of the server's answer, which holds the room or its stripped state. The last commit of that stores
    /// this row too; `None`: it deletes the row.
    Import { server: OwnedServerName, then: Option<Box<JobRow>> },
    /// Stop the import, if there is one.
    StopImport,
    /// Fetch the parts of the room's state that are missing, if any.
    Resync,
    /// Tell it to the requests that wait for the job.
    Tell(JobNews),
    /// Come back with [`JobInput::Due`] at this time.
    Wake { at_ms: i64 },
}

/// The news for the requests that wait for a job.
#[derive(Debug)]
pub enum JobNews {
    /// The user is in the room, has knocked, or has left.
    Done,
    /// Nothing more will be tried.
    Failed(JobFailure),
    /// This round has failed. The job goes on.
    Later(JobFailure),
}

/// One step of a job: what comes in with it, and what goes out.
struct Step<'a> {
    signer: &'a ServerSigner,
    now_ms: i64,
    random: &'a mut dyn Rng,
    effects: Vec<JobEffect>,
}

impl Job {
    /// A new job, which begins with [`JobInput::Due`]. `via` are the servers to try, the best ones first. This server is left
    /// out, and the server that the room ID names is the last one.
    pub fn new(
        wanted: &Wanted<'_>,
        content: Box<RawValue>,
        via: impl IntoIterator<Item = OwnedServerName>,
        room_version: Option<RoomVersionId>,
        now_ms: i64,
    ) -> Self {
        let named = wanted.room_id.server_name().map(ToOwned::to_owned);
        let mut servers: Vec<OwnedServerName> = Vec::new();
        for server in via.into_iter().take(MAX_VIA - 1).chain(named) {
            if server != wanted.user.server_name() && !servers.contains(&server) {
                servers.push(server);
            }
        }
        Self::resume(JobRow {
            room_id: wanted.room_id.to_owned(),
            user: wanted.user.to_owned(),
            kind: wanted.kind,
            state: JobState::Make,
            via: servers,
            content,
            room_version,
            event: None,
            lost_answer: false,
            cancelled: false,
            tries: 0,
            next_ms: now_ms,
            until_ms: retry::limit_ms(wanted.kind, now_ms),
        })
    }

    /// This job in the place of another one of its room and user: a join while a leave is tried, or a join of a
    /// user who has knocked. If it fails, a leave clears up what the other one may have left at other servers.
    #[must_use]
    pub fn in_place_of(mut self, other: &JobRow) -> Self {
        let may_be_taken = matches!(other.state, JobState::Sent | JobState::Importing);
        self.row.lost_answer |= other.kind == TemplateKind::Leave || other.lost_answer || may_be_taken;
        self
    }

    /// The job of a stored row.
    pub fn resume(mut row: JobRow) -> Self {
        // The answer may have come while nobody was there to read it.
        row.lost_answer |= row.state == JobState::Sent;
        Self { row, round: Round::default() }
    }

    /// The job as it would be stored now.
    pub fn row(&self) -> &JobRow {
        &self.row
    }

    /// Takes one step. `now_ms` is the time in milliseconds since the Unix epoch; a clock that was wrong delays a job by two
    /// hours at most.
    pub fn step(
        &mut self,
        input: JobInput,
        signer: &ServerSigner,
        now_ms: i64,
        random: &mut dyn Rng,
    ) -> Vec<JobEffect> {
        let mut step = Step { signer, now_ms, random, effects: Vec::new() };
        match input {
            JobInput::Due => self.due(&mut step),
            JobInput::Made { server, result } => self.made(&server, result, &mut step),
            JobInput::Answered { server, result } => self.answered(&server, result, &mut step),
            JobInput::Imported => self.imported(&mut step),
            JobInput::NotImported(error) => self.not_imported(error, &mut step),
            JobInput::Resynced { is_complete } => self.resynced(is_complete, &mut step),
            JobInput::Cancel => self.cancel(&mut step),
        }
        step.effects
    }

    fn due(&mut self, step: &mut Step<'_>) {
        let state = self.row.state;
        if matches!(state, JobState::Done | JobState::Failed) {
            return;
        }
        if !self.round.waiting.is_empty() {
            if state == JobState::Make && step.now_ms >= self.round.next_ask_ms {
                self.ask_next(step);
            }
            return;
        }
        if retry::is_early(step.now_ms, self.row.next_ms) {
            step.effects.push(JobEffect::Wake { at_ms: self.row.next_ms });
            return;
        }
        match state {
            JobState::Joined | JobState::Resync => self.resync(step),
            _ if self.row.cancelled => self.give_up(JobFailure::Cancelled, step),
            _ if step.now_ms >= self.row.until_ms => self.give_up(JobFailure::Expired, step),
            JobState::Make => self.ask_next(step),
            _ => self.send_next(step),
        }
    }

    /// Whether a server has, or may have, taken an event of this job.
    fn is_in_doubt(&self) -> bool {
        self.row.lost_answer || self.row.state == JobState::Importing
    }

    fn store(&self, step: &mut Step<'_>) {
        step.effects.push(JobEffect::Store(Box::new(self.row.clone())));
    }

    /// Makes this server the first one to try.
    fn prefer(&mut self, server: &OwnedServerName) {
        self.row.via.sort_by_key(|other| other != server);
    }
}

#[cfg(test)]
mod tests;

//! A server: its room on disk and in memory, and its work, one step at a time.
//!
//! The steps are those of a real server. Between judging an event and settling it the server sends local events, so that the
//! room goes on meanwhile. What is settled is in memory at once, and on disk with the next commit; nobody hears of it before
//! that. A crash leaves the disk.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use ruma::UserId;

use super::{
    bugs::Bug,
    check::{self, Violation},
    clock::BEGIN_MS,
    faults::Fate,
    pull::Pulls,
    push::Pushes,
    stage::{Room, Stage, Step},
    store::{Memory, Rows, Write},
    trace::{line_of, missing_of, short},
};
use crate::{
    build::{EventDraft, EventPosition, build_and_sign},
    pdu::Pdu,
    receive::{
        Decision, Incoming, Judged, Mode, Settled, Verdict, foresee, judge,
        local::{self, LocalError},
        settle,
    },
    received::Verified,
    signing::ServerSigner,
    standing::Flags,
    state_log::StateHashKey,
    test_ready::ready,
};

/// The longest time in milliseconds that a server takes until it judges an event, until it settles it, and until it commits.
const WORK_MS: i64 = 30;

/// The number of events that a server has between inbox and memory: two, so that one of them may change the room for the
/// other one.
const AT_ONCE: usize = 2;

/// The longest time in milliseconds until a server that died runs again.
const DOWN_MS: i64 = 5_000;

pub(super) struct Server {
    pub number: usize,
    pub signer: ServerSigner,
    pub secret: StateHashKey,
    pub disk: Rows,
    pub memory: Memory,
    pub is_down: bool,
    /// The number of crashes: steps that were planned before the last one do not happen.
    life: u64,
    /// Decisions that are not committed.
    queued: Vec<Write>,
    /// Events to be judged, each with the server that sent it.
    inbox: VecDeque<(usize, Incoming)>,
    /// The number of events that are about to be judged.
    to_judge: usize,
    /// The events that were judged and are not settled, each with the server that sent it.
    judged: VecDeque<(usize, Box<Judged>)>,
    pub pulls: Pulls,
    pub pushes: Pushes,
    skew_ms: i64,
    bug: Option<Bug>,
}

impl Server {
    pub fn new(number: usize, signer: ServerSigner, secret: StateHashKey, skew_ms: i64, bug: Option<Bug>) -> Self {
        let disk = Rows::new();
        let memory = Memory::load(disk.clone(), &secret).expect("an empty room is whole");
        Self {
            number,
            signer,
            secret,
            disk,
            memory,
            is_down: false,
            life: 0,
            queued: Vec::new(),
            inbox: VecDeque::new(),
            to_judge: 0,
            judged: VecDeque::new(),
            pulls: Pulls::default(),
            pushes: Pushes::default(),
            skew_ms,
            bug,
        }
    }

    /// The server, if it did not die since.
    pub fn of_life(&mut self, life: u64) -> Option<&mut Self> {
        (self.life == life).then_some(self)
    }

    /// Returns whether the server has nothing to do and waits for nothing.
    pub fn is_quiet(&self) -> bool {
        let works = !self.inbox.is_empty() || !self.judged.is_empty() || !self.queued.is_empty();
        !self.is_down && !works && self.pulls.is_empty() && self.pushes.are_acknowledged()
    }

    /// Takes a push of another server.
    pub fn receive(&mut self, stage: &mut Stage, from: usize, number: u64, events: &[Arc<str>]) {
        let mut ids = BTreeSet::new();
        for event in self.verify(stage, events) {
            ids.insert(event.pdu().event_id.clone());
            if !self.memory.rows.knows(&event.pdu().event_id) {
                self.enqueue(stage, from, Incoming::new(event, Mode::Pushed));
            }
        }
        self.pushes.receive(from, number, ids);
        self.pushes.acknowledge(stage, self.number, &self.disk);
    }

    /// Takes events that were asked for.
    pub fn receive_pulled(&mut self, stage: &mut Stage, from: usize, events: &[Arc<str>]) {
        for event in self.verify(stage, events) {
            if let Some(mode) = self.pulls.mode(&event.pdu().event_id) {
                self.enqueue(stage, from, Incoming::new(event, mode));
            }
        }
    }

    /// Reads and verifies events that came. Those that fail are dropped.
    fn verify(&self, stage: &mut Stage, events: &[Arc<str>]) -> Vec<Verified> {
        let believes = self.bug == Some(Bug::BelievesSignatures);
        let verify = |json: &Arc<str>| if believes { stage.believe(json) } else { stage.verify(json) };
        events.iter().filter_map(verify).collect()
    }

    /// Takes an event that shall be judged.
    fn enqueue(&mut self, stage: &mut Stage, from: usize, incoming: Incoming) {
        self.inbox.push_back((from, incoming));
        self.plan_work(stage);
    }

    fn plan_work(&mut self, stage: &mut Stage) {
        if self.to_judge < self.inbox.len() && self.to_judge + self.judged.len() < AT_ONCE {
            self.to_judge += 1;
            stage.soon(WORK_MS, Step::Judge { server: self.number, life: self.life });
        }
    }

    /// Judges the next event of the inbox.
    pub fn judge(&mut self, stage: &mut Stage) -> Result<(), Violation> {
        self.to_judge -= 1;
        let Some((from, incoming)) = self.inbox.pop_front() else { return Ok(()) };
        let event_id = incoming.event.pdu().event_id.clone();
        let facts = self.memory.facts(&stage.room.rules, &stage.room.room_id);
        match ready(judge(&self.memory, &facts, self.memory.head(), incoming, &self.memory))? {
            Verdict::Judged(judged) => {
                stage.note(self.number, format_args!("judged {}", short(&event_id)));
                self.judged.push_back((from, judged));
                stage.soon(WORK_MS, Step::Settle { server: self.number, life: self.life });
            }
            Verdict::Known { .. } => stage.note(self.number, format_args!("knew {}", short(&event_id))),
            Verdict::Dropped(reason) => {
                return Err(Violation::new(format!("s{} dropped {event_id}: {reason}", self.number)));
            }
            Verdict::Wait { missing, event } => {
                stage.note(self.number, format_args!("waits with {} for {}", short(&event_id), missing_of(&missing)));
                self.pulls.wait(stage, self.number, from, missing, *event);
            }
        }
        self.plan_work(stage);
        Ok(())
    }

    /// Settles the event that was judged.
    pub fn settle(&mut self, stage: &mut Stage) -> Result<(), Violation> {
        if let Some((from, judged)) = self.judged.pop_front() {
            let facts = self.memory.facts(&stage.room.rules, &stage.room.room_id);
            match ready(settle(&self.memory, &facts, self.memory.head(), judged, &self.memory))? {
                Settled::Store(decision) => self.take(stage, *decision)?,
                Settled::Known { .. } => {}
                Settled::Moved(mut judged) => {
                    stage.counts.moved += 1;
                    stage.note(self.number, format_args!("the states moved"));
                    let facts = self.memory.facts(&stage.room.rules, &stage.room.room_id);
                    ready(foresee(&self.memory, &facts, self.memory.head(), &mut judged, &self.memory))?;
                    self.judged.push_back((from, judged));
                    stage.soon(WORK_MS, Step::Settle { server: self.number, life: self.life });
                }
                Settled::Stale(incoming) => {
                    stage.counts.stale += 1;
                    stage.note(self.number, format_args!("the verdict is stale"));
                    self.inbox.push_front((from, *incoming));
                }
            }
        }
        self.plan_work(stage);
        Ok(())
    }

    /// Takes a decision into memory, and queues it.
    fn take(&mut self, stage: &mut Stage, mut decision: Decision) -> Result<(), Violation> {
        if let Some(bug) = self.bug {
            bug.spoil(&self.memory, &mut decision);
        }
        let event_id = decision.event.pdu().event_id.clone();
        stage.note(self.number, format_args!("{}", line_of(&decision)));
        stage.counts.count(&decision);
        if self.bug == Some(Bug::AcknowledgesEarly) && decision.flags.contains(Flags::OURS) {
            stage.acknowledged.push(event_id.clone());
        }
        let is_outlier = decision.flags.contains(Flags::OUTLIER);
        let write = self.memory.take(&stage.room.rules, decision)?;
        if self.queued.is_empty() {
            stage.soon(WORK_MS, Step::Commit { server: self.number, life: self.life });
        }
        self.queued.push(write);
        self.inbox.extend(self.pulls.came(&event_id, is_outlier));
        self.plan_work(stage);
        Ok(())
    }

    /// Commits everything that is queued, in one write.
    pub fn commit(&mut self, stage: &mut Stage) -> Result<(), Violation> {
        let fate = stage.fate();
        stage.note(self.number, format_args!("commit of {}: {fate:?}", self.queued.len()));
        match fate {
            Fate::Done => {
                self.write(&stage.room);
                self.tell(stage);
                check::extremities(self)
            }
            Fate::Failed => {
                stage.counts.failed_commits += 1;
                self.load()
            }
            Fate::DiesBefore | Fate::DiesAfter => {
                stage.counts.crashes += 1;
                if fate == Fate::DiesAfter {
                    self.write(&stage.room);
                }
                self.die(stage);
                Ok(())
            }
        }
    }

    fn write(&mut self, room: &Room) {
        for write in &self.queued {
            self.disk.commit(&room.rules, write);
        }
    }

    /// Tells everybody of what was committed: our users, and other servers.
    fn tell(&mut self, stage: &mut Stage) {
        for write in std::mem::take(&mut self.queued) {
            if write.decision.flags.contains(Flags::OURS) {
                let event_id = write.decision.event.pdu().event_id.clone();
                stage.acknowledged.push(event_id.clone());
                self.pushes.push(stage, self.number, self.life, &self.disk, vec![event_id]);
            }
        }
        self.pushes.acknowledge(stage, self.number, &self.disk);
    }

    /// Drops everything that is not on disk.
    fn load(&mut self) -> Result<(), Violation> {
        self.queued.clear();
        self.judged.clear();
        self.memory = Memory::load(self.disk.clone(), &self.secret)?;
        check::loaded(self)?;
        check::extremities(self)
    }

    fn die(&mut self, stage: &mut Stage) {
        self.is_down = true;
        self.to_judge = 0;
        self.life += 1;
        self.inbox.clear();
        (self.pulls, self.pushes) = (Pulls::default(), Pushes::default());
        stage.soon(DOWN_MS, Step::Restart { server: self.number });
    }

    /// Begins again with what is on disk.
    pub fn restart(&mut self, stage: &mut Stage) -> Result<(), Violation> {
        stage.note(self.number, format_args!("restarts"));
        self.is_down = false;
        self.load()?;
        self.pushes.push_again(stage, self.number, self.life, &self.disk);
        Ok(())
    }

    /// Repeats what was not answered.
    pub fn tick(&mut self, stage: &mut Stage) {
        if !self.is_down {
            self.pulls.ask_again(stage, self.number);
            self.pushes.send_again(stage, self.number, &self.disk);
        }
    }

    /// Sends an event of a local user, unless the room does not allow it.
    pub fn send(&mut self, stage: &mut Stage, sender: &UserId, draft: EventDraft) -> Result<(), Violation> {
        let what = draft.event_type.clone();
        let facts = self.memory.facts(&stage.room.rules, &stage.room.room_id);
        let base = local::base(&self.memory, &facts, self.memory.head(), (sender, &draft), &self.memory);
        let base = match ready(base) {
            Ok(base) => base,
            Err(LocalError::NotAllowed(_)) => {
                self.refuse(stage, &what);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let position = EventPosition {
            room_id: Some(&stage.room.room_id),
            sender,
            prev_events: &base.prev_events,
            auth_events: &base.auth_events,
            depth: base.depth,
            origin_server_ts: BEGIN_MS + stage.agenda.now_ms() + self.skew_ms,
        };
        let event = build_and_sign(&stage.room.rules, &self.signer, draft, position);
        let event = event.map_err(|error| Violation::new(format!("{what} was not built: {error}")))?;
        self.decide(stage, event)
    }

    /// Decides about an event that was built here.
    pub fn decide(&mut self, stage: &mut Stage, event: Pdu) -> Result<(), Violation> {
        let (what, event) = (event.event_type.clone(), Arc::new(event));
        stage.note_built(&event);
        let facts = self.memory.facts(&stage.room.rules, &stage.room.room_id);
        match ready(local::decide(&self.memory, &facts, self.memory.head(), event, &self.memory)) {
            Ok(decision) => self.take(stage, *decision),
            Err(LocalError::NotAllowed(_)) => {
                self.refuse(stage, &what);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn refuse(&self, stage: &mut Stage, what: &str) {
        stage.counts.refused += 1;
        stage.note(self.number, format_args!("refuses {what}"));
    }
}

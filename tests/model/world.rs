//! The record of a run: every request that changes something, its answer, and the order of both.
//!
//! The server may handle two requests that overlap in either order. So each act has two ticks of one clock: one when it
//! was sent, one when its answer arrived. An act that ended before another began came before it; all other orders are
//! allowed.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use serde_json::Value;
use tokio::sync::watch;

use crate::plan::Op;

/// The end of an act.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Answered with 200: it is done, and must stay so.
    Acknowledged(Value),
    /// Answered with a client error: nothing was done.
    Refused,
    /// The connection was cut: the act is done or not done, but not half done.
    Unknown,
}

/// A request that changes something.
#[derive(Debug, Clone)]
pub struct Act {
    pub user: usize,
    pub op: Op,
    /// The text that only this act writes.
    pub nonce: String,
    /// The event that a redaction or a receipt is about.
    pub about: Option<String>,
    pub began: u64,
    /// `u64::MAX` for an act whose end is unknown.
    pub ended: u64,
    pub ending: Ending,
}

impl Act {
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.ending, Ending::Acknowledged(_))
    }

    /// Tells whether the act may have been done.
    pub fn may_be_done(&self) -> bool {
        self.ending != Ending::Refused
    }

    /// Returns the event ID, if the answer has one.
    pub fn event_id(&self) -> Option<&str> {
        match &self.ending {
            Ending::Acknowledged(answer) => answer["event_id"].as_str(),
            _ => None,
        }
    }
}

/// Something that a server must not do.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The broken promise, in a few words that are the same for every case.
    pub kind: &'static str,
    /// The client, the event, the expected and the actual value.
    pub text: String,
}

/// The moves of the lease between two processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moves {
    /// Away from a process that gave it up.
    pub given_up: u64,
    /// Away from a process that stalled.
    pub stalled: u64,
}

/// The record that all clients of a run write into.
pub struct World {
    clock: AtomicU64,
    acts: Mutex<Vec<Act>>,
    faults: Mutex<Vec<Fault>>,
    /// Acknowledged events by room, for redactions and receipts.
    events: Mutex<Vec<Vec<String>>>,
    answers: AtomicU64,
    moves: Mutex<Moves>,
    /// The number of acts that have ended; `u64::MAX` once all writers are done.
    progress: watch::Sender<u64>,
}

impl World {
    pub fn new(rooms: usize) -> Arc<Self> {
        Arc::new(Self {
            clock: AtomicU64::new(1),
            acts: Mutex::default(),
            faults: Mutex::default(),
            events: Mutex::new(vec![Vec::new(); rooms]),
            answers: AtomicU64::new(0),
            moves: Mutex::default(),
            progress: watch::Sender::new(0),
        })
    }

    /// Returns the next tick.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    pub fn record(&self, act: Act) {
        if let (Some(room), Some(event_id)) = (act.op.room(), act.event_id()) {
            lock(&self.events)[room].push(event_id.to_owned());
        }
        lock(&self.acts).push(act);
        self.progress.send_modify(|count| *count += 1);
    }

    /// Counts an answer that a follower has taken.
    pub fn took_an_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Counts a move of the lease, from a process that gave it up or from one that stalled.
    pub fn lease_moved(&self, has_stalled: bool) {
        let mut moves = lock(&self.moves);
        *if has_stalled { &mut moves.stalled } else { &mut moves.given_up } += 1;
    }

    pub fn moves(&self) -> Moves {
        *lock(&self.moves)
    }

    /// Tells all followers that the writers are done.
    pub fn writers_are_done(&self) {
        self.progress.send_replace(u64::MAX);
    }

    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub fn acts(&self) -> Vec<Act> {
        lock(&self.acts).clone()
    }

    /// Returns one of the latest acknowledged events of a room.
    pub fn some_event(&self, room: usize, pick: usize) -> Option<String> {
        const LATEST: usize = 8;
        let events = lock(&self.events);
        let latest = &events[room][events[room].len().saturating_sub(LATEST)..];
        (!latest.is_empty()).then(|| latest[pick % latest.len()].clone())
    }

    pub fn fault(&self, kind: &'static str, text: impl Into<String>) {
        lock(&self.faults).push(Fault { kind, text: text.into() });
    }

    pub fn has_faults(&self) -> bool {
        !lock(&self.faults).is_empty()
    }

    pub fn take_faults(&self) -> Vec<Fault> {
        std::mem::take(&mut lock(&self.faults))
    }
}

/// Locks a mutex, even if its holder panicked: the data is still good, and the panic itself is reported.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

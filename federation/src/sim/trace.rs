//! The trace: every step of a simulation as a line of text, and the hash of all lines.
//!
//! Two runs of a seed that do the same have the same hash. So nothing may get into a line that differs from run to run.

use std::{collections::VecDeque, fmt};

use ruma::EventId;
use sha2::{Digest as _, Sha256};

use crate::{
    receive::{Decision, Missing},
    standing::Flags,
};

/// The number of lines that a report of a violation shows.
const LAST_LINES: usize = 60;

/// The lines so far.
#[derive(Default)]
pub(super) struct Trace {
    hash: Sha256,
    last: VecDeque<String>,
    /// Prints each line.
    pub is_loud: bool,
}

impl Trace {
    /// Adds a line. `server` is the one that takes the step.
    pub fn step(&mut self, now_ms: i64, server: usize, what: fmt::Arguments<'_>) {
        let line = format!("{now_ms:>7} s{server} {what}");
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        if self.is_loud {
            println!("{line}");
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The hash of all lines.
    pub fn hash(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// The last lines.
    pub fn end(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The beginning of an event ID, for the trace.
pub(super) fn short(event_id: &EventId) -> &str {
    event_id.as_str().get(..7).unwrap_or(event_id.as_str())
}

/// The events for which an event waits.
pub(super) fn missing_of(missing: &Missing) -> String {
    let (kind, ids) = match missing {
        Missing::AuthEvents(ids) => ("auth", ids),
        Missing::Prevs(ids) => ("prev", ids),
    };
    format!("{kind} {}", ids.iter().map(|id| short(id)).collect::<Vec<_>>().join(" "))
}

/// A decision in the trace.
pub(super) fn line_of(decision: &Decision) -> String {
    let (pdu, flags) = (decision.event.pdu(), decision.flags);
    let names = [
        (Flags::OUTLIER, "outlier"),
        (Flags::REJECTED, "rejected"),
        (Flags::SOFT_FAILED, "soft-failed"),
        (Flags::OURS, "ours"),
        (Flags::TIP, "tip"),
    ];
    let names: Vec<_> = names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
    let prev: Vec<_> = pdu.prev_events.iter().map(|id| short(id)).collect();
    format!(
        "stores {} {} {:?} of {} on {prev:?}: {names:?}, {} changes, {} sides",
        short(&pdu.event_id),
        pdu.event_type,
        pdu.state_key,
        pdu.sender,
        decision.changes.len(),
        decision.sides.len()
    )
}

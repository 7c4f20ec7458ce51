//! The invariants: those that hold after each commit, and those that hold when everything has healed.

use std::{collections::BTreeSet, fmt::Display, sync::Arc};

use ruma::OwnedEventId;

use super::{
    server::Server,
    stage::Stage,
    store::{Damage, EventRow, NotStored, Rows},
    trace::short,
    truth::{Outcome, Truth, View},
};
use crate::{
    graph::NoneLeft,
    ids::Position,
    pdu::Pdu,
    receive::{ReceiveError, local::LocalError},
    sides,
    standing::{Flags, StateAt},
    state_log::StateLog,
    test_ready::ready,
};

/// An invariant does not hold.
#[derive(Debug)]
pub(super) struct Violation(pub String);

impl Violation {
    pub fn new(what: impl Display) -> Self {
        Self(what.to_string())
    }
}

impl From<ReceiveError<NotStored>> for Violation {
    fn from(error: ReceiveError<NotStored>) -> Self {
        Self(format!("an event was not decided about: {error:?}"))
    }
}

impl From<LocalError<NotStored>> for Violation {
    fn from(error: LocalError<NotStored>) -> Self {
        Self(format!("a local event was not decided about: {error:?}"))
    }
}

impl From<NotStored> for Violation {
    fn from(error: NotStored) -> Self {
        Self(format!("something that was named is not stored: {error}"))
    }
}

impl From<NoneLeft> for Violation {
    fn from(error: NoneLeft) -> Self {
        Self(format!("a decision cannot be stored: {error}"))
    }
}

impl From<Damage> for Violation {
    fn from(error: Damage) -> Self {
        Self(format!("the room cannot be loaded: {error}"))
    }
}

/// Fails with a text unless something holds.
macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(Violation(format!($($text)+)));
        }
    };
}

/// After a commit, and after loading: the extremities are there, are accepted, and have a state.
pub(super) fn extremities(server: &Server) -> Result<(), Violation> {
    let Server { number, memory, .. } = server;
    let rows = &memory.rows;
    ensure!(rows.in_order().is_empty() || !rows.extremities.is_empty(), "s{number} has no forward extremity");
    for extremity in rows.extremities.iter() {
        let row = &rows.events[&extremity.nid];
        ensure!(row.flags.is_accepted(), "s{number} has {} as extremity, which it did not accept", extremity.event_id);
        let after = match extremity.after {
            Some(after) => after,
            None => {
                ensure!(row.flags.contains(Flags::TIP), "s{number} lost the state after {}", extremity.event_id);
                StateAt::in_log(row.pos)
            }
        };
        ready(sides::hash(memory, after))?;
    }
    Ok(())
}

/// After loading, and in the end: the log is what all its rows make.
pub(super) fn loaded(server: &Server) -> Result<(), Violation> {
    let Server { number, memory, .. } = server;
    let rows = &memory.rows;
    let replayed = StateLog::new(server.secret.clone(), Position::BEFORE_ALL).replay(rows.log.iter().copied());
    let replayed = replayed.map_err(|error| Violation(format!("s{number}: {error}")))?;
    ensure!(
        replayed.entries() == memory.log.entries() && replayed.hash() == rows.hash,
        "s{number} has another log than its rows make"
    );
    Ok(())
}

/// In the end: every server did with each event what it had to do, and all agree.
pub(super) fn end(servers: &[Server], stage: &mut Stage) -> Result<(), Violation> {
    // First, because the truth knows only the events that were really built.
    for server in servers {
        loaded(server)?;
        durable(server)?;
        verified(server, stage)?;
        acknowledged(server, stage)?;
    }
    let is_known = |pdu: &&Arc<Pdu>| servers.iter().any(|server| server.disk.knows(&pdu.event_id));
    let mut truth = Truth::about(&stage.room.rules, stage.built.iter().filter(is_known).map(|pdu| &**pdu));
    for server in servers {
        as_in_truth(server, &mut truth)?;
        redactions(server, &truth)?;
    }
    stage.counts.resolutions = truth.resolutions();
    for server in &servers[1..] {
        let first = &servers[0];
        same(
            server,
            "the extremities, beside those of s0,",
            &server.disk.extremity_ids(),
            &first.disk.extremity_ids(),
        )?;
        same(server, "the room's state, beside that of s0,", &current(server), &current(first))?;
    }
    Ok(())
}

/// The events of the room's state.
fn current(server: &Server) -> BTreeSet<OwnedEventId> {
    server.memory.events_of(StateAt::in_log(server.memory.rows.pos))
}

/// Memory is what the disk makes.
fn durable(server: &Server) -> Result<(), Violation> {
    let Server { number, memory, disk, .. } = server;
    let standing = |rows: &Rows| -> Vec<_> {
        let row = |row: &EventRow| (row.pdu.json.clone(), row.flags, row.place, row.before, row.pos);
        rows.events.iter().map(|(nid, event)| (*nid, row(event))).collect()
    };
    ensure!(standing(disk) == standing(&memory.rows), "s{number} has other events in memory than on disk");
    ensure!(disk.log == memory.rows.log, "s{number} has another log in memory than on disk");
    ensure!(disk.extremities == memory.rows.extremities, "s{number} has other extremities in memory than on disk");
    Ok(())
}

/// Every event was signed by its server, and has the ID of its bytes.
fn verified(server: &Server, stage: &mut Stage) -> Result<(), Violation> {
    for row in server.disk.events.values() {
        let (number, event_id) = (server.number, &row.pdu.event_id);
        let is_so = stage.verify(&row.pdu.json).is_some_and(|verified| verified.pdu().event_id == *event_id);
        ensure!(is_so, "s{number} stored {event_id}, which was not verified");
    }
    Ok(())
}

/// Every event that was acknowledged to its user is in the room.
fn acknowledged(server: &Server, stage: &Stage) -> Result<(), Violation> {
    for event_id in &stage.acknowledged {
        ensure!(server.disk.knows(event_id), "s{} has not {event_id}, which was acknowledged", server.number);
    }
    Ok(())
}

/// The outcome of each event, the state before it, and the extremities and the state of the room after it are those of the
/// truth.
fn as_in_truth(server: &Server, truth: &mut Truth) -> Result<(), Violation> {
    let Server { number, memory, .. } = server;
    let mut view = View::default();
    for row in memory.rows.in_order() {
        let event_id = &row.pdu.event_id;
        let expected = truth.show(&mut view, event_id);
        let outcome = match () {
            () if row.flags.contains(Flags::REJECTED) => Outcome::Rejected,
            () if row.flags.contains(Flags::SOFT_FAILED) => Outcome::SoftFailed,
            () => Outcome::Accepted,
        };
        ensure!(outcome == expected, "s{number}: {event_id} is {outcome:?}, and should be {expected:?}");
        ensure!(row.place.is_some() == (outcome == Outcome::Accepted), "s{number}: {event_id} is at {:?}", row.place);

        let before = memory.events_of(row.before);
        same(server, format_args!("the state before {event_id}"), &before, &truth.before(event_id))?;
        let current = memory.events_of(StateAt::in_log(row.pos));
        same(server, format_args!("the room's state with {event_id}"), &current, &truth.current(&view))?;

        let is_tip = outcome == Outcome::Accepted && truth.extremities(&view).len() == 1;
        ensure!(
            row.flags.contains(Flags::TIP) == is_tip,
            "s{number}: {event_id} is wrongly said to be the only tip or not"
        );
    }
    same(server, "the extremities", &memory.rows.extremity_ids(), &truth.extremities(&view))
}

/// The redacted events are those that an accepted redaction redacts.
fn redactions(server: &Server, truth: &Truth) -> Result<(), Violation> {
    let rows = &server.disk;
    let mut expected: BTreeSet<OwnedEventId> = BTreeSet::new();
    for row in rows.in_order().into_iter().filter(|row| row.flags.is_accepted()) {
        if let Some(target) = row.redacts.as_ref().and_then(|id| rows.find(id))
            && truth.may_redact(&row.pdu.event_id, &target.pdu.sender)
        {
            expected.insert(target.pdu.event_id.clone());
        }
    }
    let redacted = rows.events.values().filter(|row| row.is_redacted).map(|row| row.pdu.event_id.clone()).collect();
    same(server, "the redacted events", &redacted, &expected)
}

/// Fails if two sets of events differ.
fn same(
    server: &Server,
    what: impl Display,
    found: &BTreeSet<OwnedEventId>,
    expected: &BTreeSet<OwnedEventId>,
) -> Result<(), Violation> {
    ensure!(
        found == expected,
        "s{}: {what} lack {:?}, and have {:?} too many",
        server.number,
        expected.difference(found).map(|id| short(id)).collect::<Vec<_>>(),
        found.difference(expected).map(|id| short(id)).collect::<Vec<_>>()
    );
    Ok(())
}

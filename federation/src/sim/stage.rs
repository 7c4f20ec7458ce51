//! The stage: everything that servers share, and the way in which they make something happen.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{
    clock::Agenda,
    faults::{Fate, Faults},
    net::{Message, Net},
    rand::Rand,
    rogue::forge,
    signatures::{Made, SimSignatures},
    trace::Trace,
};
use crate::{
    build::MAX_PREV_EVENTS,
    pdu::Pdu,
    published_keys::PublicKey,
    receive::{Decision, Redaction},
    received::{self, Signatures, Verified},
    signing::ServerSigner,
    standing::Flags,
};

/// Something that happens. Servers are named by their numbers.
pub(super) enum Step {
    /// A user of a server wants to send something.
    Wish {
        server: usize,
    },
    /// The rogue sends something.
    Rogue,
    /// The rogue sends many messages.
    Crowd,
    /// A message arrives.
    Arrive {
        from: usize,
        to: usize,
        message: Message,
    },
    Judge {
        server: usize,
        life: u64,
    },
    Settle {
        server: usize,
        life: u64,
    },
    Commit {
        server: usize,
        life: u64,
    },
    Restart {
        server: usize,
    },
    /// A server repeats what was not answered.
    Tick {
        server: usize,
    },
    /// A partition begins, or ends.
    Partition(Option<Vec<bool>>),
}

/// The room that all servers share.
pub(super) struct Room {
    pub rules: RoomVersionRules,
    pub room_id: OwnedRoomId,
}

pub(super) struct Stage {
    pub agenda: Agenda<Step>,
    pub net: Net,
    pub faults: Faults,
    pub trace: Trace,
    pub signatures: SimSignatures,
    pub room: Room,
    /// The honest servers. Their numbers are those below, and the rogue's is this one.
    pub servers: usize,
    /// The events of local users that were acknowledged to them.
    pub acknowledged: Vec<OwnedEventId>,
    /// All events that were built, each after those that it names.
    pub built: Vec<Arc<Pdu>>,
    pub counts: Counts,
    pub rand: Rand,
    /// The events that came, by their JSON. `None`: the event is dropped.
    seen: BTreeMap<Arc<str>, Option<Verified>>,
    keys: BTreeMap<(OwnedServerName, OwnedServerSigningKeyId), PublicKey>,
}

/// The situations that were met, in numbers: a simulation in which nothing happens shows nothing.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    pub stored: usize,
    pub refused: usize,
    pub dropped: usize,
    pub rejected: usize,
    pub soft_failed: usize,
    pub outliers: usize,
    pub sides: usize,
    pub resolutions: usize,
    pub redacted: usize,
    /// Local events that could not name all forward extremities.
    pub crowded: usize,
    pub pulls: usize,
    pub moved: usize,
    pub stale: usize,
    pub crashes: usize,
    pub failed_commits: usize,
}

impl Counts {
    pub fn count(&mut self, decision: &Decision) {
        let is = |flags| usize::from(decision.flags.contains(flags));
        self.stored += 1;
        self.rejected += is(Flags::REJECTED);
        self.soft_failed += is(Flags::SOFT_FAILED);
        self.outliers += is(Flags::OUTLIER);
        self.sides += decision.sides.len();
        self.crowded += usize::from(is(Flags::OURS) == 1 && decision.prev.len() == MAX_PREV_EVENTS);
        self.redacted += usize::from(matches!(decision.redaction, Some(Redaction::Applies(_))));
    }

    /// Adds other numbers to these.
    pub fn add(&mut self, other: &Self) {
        for (number, other) in self.all_mut().into_iter().zip(other.clone().all_mut()) {
            *number += *other;
        }
    }

    /// The least of the numbers.
    pub fn least(&self) -> usize {
        self.clone().all_mut().into_iter().map(|number| *number).min().unwrap_or_default()
    }

    fn all_mut(&mut self) -> [&mut usize; 15] {
        [
            &mut self.stored,
            &mut self.refused,
            &mut self.dropped,
            &mut self.rejected,
            &mut self.soft_failed,
            &mut self.outliers,
            &mut self.sides,
            &mut self.resolutions,
            &mut self.redacted,
            &mut self.crowded,
            &mut self.pulls,
            &mut self.moved,
            &mut self.stale,
            &mut self.crashes,
            &mut self.failed_commits,
        ]
    }
}

impl Stage {
    pub fn new<'a>(
        seed: u64,
        room: Room,
        faults: Faults,
        signers: impl ExactSizeIterator<Item = &'a ServerSigner>,
    ) -> Self {
        let servers = signers.len() - 1;
        let key = |signer: &ServerSigner| {
            ((signer.server_name().to_owned(), signer.key_id().to_owned()), PublicKey::of(signer))
        };
        Self {
            agenda: Agenda::new(),
            net: Net::new(Rand::new(seed, b"net     ")),
            faults,
            trace: Trace::default(),
            signatures: SimSignatures::of_seed(seed),
            room,
            servers,
            acknowledged: Vec::new(),
            built: Vec::new(),
            counts: Counts::default(),
            rand: Rand::new(seed, b"stage   "),
            seen: BTreeMap::new(),
            keys: signers.map(key).collect(),
        }
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, server: usize, what: fmt::Arguments<'_>) {
        self.trace.step(self.agenda.now_ms(), server, what);
    }

    /// Plans a step within this time.
    pub fn soon(&mut self, most_ms: i64, step: Step) {
        let delay_ms = self.rand.between(0..=most_ms);
        self.agenda.after(delay_ms, step);
    }

    /// The numbers of all honest servers but this one.
    pub fn others(&self, server: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.servers).filter(move |other| *other != server)
    }

    pub fn any_other(&mut self, server: usize) -> usize {
        let others: Vec<usize> = self.others(server).collect();
        *self.rand.pick(&others)
    }

    /// Sends a message, which may be lost, and may be followed by a forged one.
    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        if let Message::Push { events, .. } = &message
            && self.rand.percent(self.faults.forged_percent)
        {
            let events = events.iter().map(|json| forge(json, &mut self.rand).into()).collect();
            self.post(from, to, Message::Push { number: FORGED, events });
        }
        self.post(from, to, message);
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        for delay_ms in self.net.delays(from, to) {
            self.agenda.after(delay_ms, Step::Arrive { from, to, message: message.clone() });
        }
    }

    /// The end of the next commit.
    pub fn fate(&mut self) -> Fate {
        self.faults.fate(&mut self.rand)
    }

    /// Reads and verifies an event that came. `None`: it is dropped.
    ///
    /// The answer depends on the bytes alone, so it is found once for all servers.
    pub fn verify(&mut self, json: &Arc<str>) -> Option<Verified> {
        if !self.seen.contains_key(json) {
            let verified = self.read(json, &self.signatures);
            self.seen.insert(Arc::clone(json), verified);
        }
        let verified = self.seen.get(json).cloned().flatten();
        self.counts.dropped += usize::from(verified.is_none());
        verified
    }

    /// Reads an event that came, and believes its signatures.
    pub fn believe(&self, json: &str) -> Option<Verified> {
        self.read(json, &Made::default())
    }

    fn read(&self, json: &str, signatures: &dyn Signatures) -> Option<Verified> {
        let json = RawValue::from_string(json.to_owned()).ok()?;
        let event = received::read(&self.room.rules, &self.room.room_id, &json).ok()?;
        event.verify(signatures, &|server, key_id| self.key(server, key_id)).ok()
    }

    /// The key of a server.
    fn key(&self, server: &ServerName, key_id: &ServerSigningKeyId) -> Option<PublicKey> {
        self.keys.get(&(server.to_owned(), key_id.to_owned())).copied()
    }

    /// Notes an event that was built just now, and its signatures.
    pub fn note_built(&mut self, event: &Arc<Pdu>) {
        let made = Made::default();
        let read = self.read(&event.json, &made).expect("others accept what we build");
        assert_eq!(read.pdu().event_id, event.event_id, "others compute the same ID");
        self.signatures.note(made);
        self.built.push(Arc::clone(event));
    }
}

/// The number of pushes whose acknowledgement means nothing.
const FORGED: u64 = u64::MAX;

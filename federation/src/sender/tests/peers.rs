//! Other servers: how they answer, and what they have.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, rngs::StdRng};
use serde::Deserialize;

use super::super::*;
use crate::ids::{EventNid, RoomNid, UserNid};

/// How a server answers. Each has its time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Up,
    /// No connection.
    Down,
    /// A proxy answers for it.
    BadGateway,
    /// No answer in time.
    Hanging,
    /// Everything is accepted after a while.
    Slow,
    Busy,
    /// Everything is accepted, and half of the answers are lost.
    LosesAnswers,
    /// Any of the others, at each request.
    Flapping,
}

impl Mode {
    pub fn drawn(rand: &mut StdRng) -> Self {
        let all = [
            Self::Up,
            Self::Down,
            Self::BadGateway,
            Self::Hanging,
            Self::Slow,
            Self::Busy,
            Self::LosesAnswers,
            Self::Flapping,
        ];
        all[rand.random_range(0..all.len())]
    }
}

/// A part of a transaction, as the tests write it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Debug)]
pub enum Sent {
    Event(i64),
    Devices(i64, i64),
    Item(i64),
    Typing(i64),
}

#[derive(Deserialize)]
struct Body {
    origin: String,
    origin_server_ts: i64,
    pdus: Vec<Padded>,
    edus: Vec<Padded>,
}

#[derive(Deserialize)]
struct Padded {
    part: Sent,
}

/// The parts of a transaction. It is well-formed, and within the bounds.
pub fn parts(transaction: &Transaction) -> Vec<Sent> {
    assert!(transaction.body().len() <= MAX_TRANSACTION_BYTES);
    let body: Body = serde_json::from_str(transaction.body()).unwrap();
    assert_eq!((body.origin.as_str(), body.origin_server_ts > 0), ("here.test", true));
    assert!(body.pdus.len() <= MAX_PDUS && body.edus.len() <= MAX_EDUS);
    body.pdus.into_iter().chain(body.edus).map(|padded| padded.part).collect()
}

/// A server, and everything that must come to it.
#[derive(Debug)]
pub struct Peer {
    pub mode: Mode,
    /// Events and items that it does not take: it answers with this status, or hangs.
    pub refuses: BTreeMap<Sent, Option<u16>>,
    /// The events for it, with their room.
    pub events: BTreeMap<EventNid, RoomNid>,
    pub devices: BTreeSet<(UserNid, Position)>,
    pub items: BTreeSet<i64>,
    pub has: BTreeSet<Sent>,
    pub skipped: BTreeSet<Sent>,
    /// The latest change of devices that it has of each user.
    pub has_devices: BTreeMap<UserNid, Position>,
    /// Rooms of which the newest events were read: the next one stands for those before it, which it fetches.
    pub cut_rooms: BTreeSet<RoomNid>,
    /// The bodies that it has seen.
    seen: BTreeMap<String, String>,
    pub requests: u64,
}

impl Peer {
    pub fn new() -> Self {
        Self {
            mode: Mode::Up,
            refuses: BTreeMap::new(),
            events: BTreeMap::new(),
            devices: BTreeSet::new(),
            items: BTreeSet::new(),
            has: BTreeSet::new(),
            skipped: BTreeSet::new(),
            has_devices: BTreeMap::new(),
            cut_rooms: BTreeSet::new(),
            seen: BTreeMap::new(),
            requests: 0,
        }
    }

    /// Answers a transaction, after this time.
    pub fn answer(&mut self, transaction: &Transaction, rand: &mut StdRng) -> (Duration, SendResult) {
        self.requests += 1;
        let mut mode = self.mode;
        while mode == Mode::Flapping {
            mode = Mode::drawn(rand);
        }
        let answered = |status| SendResult::Answered { status, retry_after: None };
        let quick = Duration::from_millis(rand.random_range(5..400));
        match mode {
            Mode::Down => return (quick, SendResult::Failed),
            Mode::BadGateway => return (quick, answered([502, 503, 401, 404][rand.random_range(0..4)])),
            Mode::Hanging => return (SEND_TIME, SendResult::TimedOut),
            Mode::Busy => {
                let retry_after = Some(Duration::from_secs(rand.random_range(0..7_200)));
                return (quick, SendResult::Answered { status: 429, retry_after });
            }
            Mode::Up | Mode::Slow | Mode::LosesAnswers | Mode::Flapping => {}
        }
        let parts = parts(transaction);
        let refused = parts.iter().find_map(|part| self.refuses.get(part));
        match refused {
            Some(Some(status)) => return (quick, answered(*status)),
            Some(None) => return (SEND_TIME, SendResult::TimedOut),
            None => {}
        }
        self.accept(transaction, parts);
        match mode {
            Mode::Slow => (Duration::from_millis(rand.random_range(500..50_000)), answered(200)),
            Mode::LosesAnswers if rand.random_bool(0.5) => (quick, SendResult::Failed),
            _ => (quick, answered(200)),
        }
    }

    fn accept(&mut self, transaction: &Transaction, parts: Vec<Sent>) {
        let body = self.seen.entry(transaction.id().to_string()).or_insert_with(|| transaction.body().to_string());
        assert_eq!(**body, **transaction.body(), "an ID is of one body");
        for part in parts {
            match part {
                Sent::Event(nid) => self.take_event(EventNid(nid)),
                Sent::Devices(user, pos) => {
                    let has = self.has_devices.entry(UserNid(user)).or_insert(Position(pos));
                    *has = (*has).max(Position(pos));
                }
                Sent::Item(seq) => {
                    assert!(self.items.contains(&seq));
                }
                Sent::Typing(_) => {}
            }
            self.has.insert(part);
        }
    }

    fn take_event(&mut self, event: EventNid) {
        let room = self.events[&event];
        let has = |it: EventNid| self.has.contains(&Sent::Event(it.0)) || self.skipped.contains(&Sent::Event(it.0));
        if has(event) {
            return;
        }
        let earlier = self.events.range(..event).filter(|(it, its)| **its == room && !has(**it));
        let earlier: Vec<Sent> = earlier.map(|(it, _)| Sent::Event(it.0)).collect();
        let stands_for_older = self.cut_rooms.remove(&room);
        assert!(earlier.is_empty() || stands_for_older, "{event:?} came before {earlier:?}");
        self.has.extend(earlier);
    }

    /// The first thing that it still lacks.
    pub fn lacks(&self) -> Option<Sent> {
        let has = |part: &Sent| self.has.contains(part) || self.skipped.contains(part);
        let events = self.events.keys().map(|event| Sent::Event(event.0));
        let items = self.items.iter().map(|seq| Sent::Item(*seq));
        let devices = self.devices.iter().filter(|(user, pos)| self.has_devices.get(user) < Some(pos));
        let devices = devices.map(|(user, pos)| Sent::Devices(user.0, pos.0)).filter(|part| !has(part));
        events.chain(items).filter(|part| !has(part)).chain(devices).next()
    }
}

impl Peer {
    /// Notes a part that it does not get. It has refused it.
    pub fn skip(&mut self, part: Sent) {
        assert!(self.refuses.contains_key(&part), "skipped without reason: {part:?}");
        if let Sent::Event(nid) = part {
            // It may have stood for those before it, which then come with the next one.
            let (event, room) = (EventNid(nid), self.events[&EventNid(nid)]);
            if self.cut_rooms.contains(&room) {
                let earlier = self.events.range(..event).filter(|(_, its)| **its == room);
                self.skipped.extend(earlier.map(|(it, _)| Sent::Event(it.0)));
            }
        }
        self.skipped.insert(part);
    }
}

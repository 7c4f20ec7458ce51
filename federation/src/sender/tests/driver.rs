//! The driver of a shard, with a database in memory: carries out its effects, after a while, and crashes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::server_name;

use super::{
    super::*,
    peers::{Peer, Sent},
};
use crate::ids::{EventNid, RoomNid, UserNid};

/// The age from which entries of the log may be deleted.
const LOG_KEPT_FOR: Duration = Duration::from_secs(600);

const START_MS: i64 = 1_700_000_000_000;

/// The rows and events that are committed.
#[derive(Debug)]
pub struct Disk {
    pub log: Vec<(Position, Moment, Vec<Outgoing>)>,
    /// The log has everything after this.
    pub log_after: Position,
    pub cursor: Position,
    pub rows: BTreeMap<ServerNid, LagRow>,
    pub items: BTreeMap<ServerNid, BTreeSet<i64>>,
}

/// An effect that is being carried out.
#[derive(Debug)]
enum Pending {
    Load { server: ServerNid, number: EffectNumber, wanted: Wanted },
    Read { server: ServerNid, number: EffectNumber, after: Position, upto: Position },
    Request { server: ServerNid, number: EffectNumber, result: SendResult },
}

/// A write. They are committed in their order.
#[derive(Debug)]
enum Write {
    Lag { row: LagRow, number: EffectNumber },
    Unlag { server: ServerNid },
    DeleteItems { server: ServerNid, upto: i64 },
}

pub struct World {
    pub now: Now,
    pub rand: StdRng,
    pub disk: Disk,
    pub peers: BTreeMap<ServerNid, Peer>,
    pub shard: Shard,
    pub bounds: Bounds,
    /// The number of entries of the log that the shard was told.
    told: usize,
    pending: BTreeMap<(Moment, u64), Pending>,
    writes: VecDeque<Write>,
    write_at: Option<Moment>,
    /// The request in flight of each server.
    in_flight: BTreeMap<ServerNid, EffectNumber>,
    last_pending: u64,
    last_done: Position,
    /// Chance that the database does not answer a read.
    pub failing_reads: f64,
    pub skipped: u64,
    pub read_by_room: u64,
    pub replayed: u64,
    pub aborted: u64,
}

fn shard(disk: &Disk, bounds: Bounds, now: Now, rand: &mut StdRng) -> Shard {
    let rows = disk.rows.values().cloned();
    Shard::new(server_name!("here.test").to_owned(), bounds, disk.cursor, rows, now, rand)
}

impl World {
    pub fn new(seed: u64, servers: i64, bounds: Bounds) -> Self {
        let mut rand = StdRng::seed_from_u64(seed);
        let now = Now { moment: Moment(0), unix_ms: START_MS };
        let (log, rows, items) = (vec![], BTreeMap::new(), BTreeMap::new());
        let disk = Disk { log, log_after: Position(0), cursor: Position(0), rows, items };
        let shard = shard(&disk, bounds, now, &mut rand);
        Self {
            now,
            rand,
            disk,
            peers: (1..=servers).map(|nid| (ServerNid(nid), Peer::new())).collect(),
            shard,
            bounds,
            told: 0,
            pending: BTreeMap::new(),
            writes: VecDeque::new(),
            write_at: None,
            in_flight: BTreeMap::new(),
            last_pending: 0,
            last_done: Position(0),
            failing_reads: 0.0,
            skipped: 0,
            read_by_room: 0,
            replayed: 0,
            aborted: 0,
        }
    }

    /// Lets time pass, and everything happen whose time comes.
    pub fn pass(&mut self, length: Duration) {
        let end = self.now.moment.after(length);
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.move_to(at);
            self.happen();
        }
        self.move_to(end);
    }

    /// Lets time pass until nothing happens any more.
    ///
    /// # Panics
    /// When that is not so after `most`.
    pub fn pass_until_quiet(&mut self, most: Duration) {
        let end = self.now.moment.after(most);
        while let Some(at) = self.next_at() {
            assert!(at <= end, "not quiet: {:?} {:?}", self.shard, self.disk.rows);
            self.move_to(at);
            self.happen();
        }
    }

    fn next_at(&self) -> Option<Moment> {
        let pending = self.pending.first_key_value().map(|((at, _), _)| *at);
        [pending, self.write_at, self.shard.due_at()].into_iter().flatten().min()
    }

    fn move_to(&mut self, moment: Moment) {
        let passed = moment.since(self.now.moment);
        self.now.moment = self.now.moment.after(passed);
        self.now.unix_ms += i64::try_from(passed.as_millis()).unwrap();
    }

    fn happen(&mut self) {
        let now = self.now.moment;
        if self.write_at.is_some_and(|at| at <= now) {
            self.commit_write();
        } else if self.pending.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, pending) = self.pending.pop_first().unwrap();
            self.complete(pending);
        } else {
            self.input(SenderInput::Tick);
        }
    }

    fn commit_write(&mut self) {
        let write = self.writes.pop_front().unwrap();
        let pause = Duration::from_millis(self.rand.random_range(0..200));
        self.write_at = (!self.writes.is_empty()).then(|| self.now.moment.after(pause));
        if let Some((server, number)) = self.disk.write(write) {
            self.input(SenderInput::LagStored { server, number });
        }
    }

    fn complete(&mut self, pending: Pending) {
        let is_failing = self.rand.random_bool(self.failing_reads);
        match pending {
            Pending::Load { server, number, .. } | Pending::Read { server, number, .. } if is_failing => {
                self.input(SenderInput::NotRead { server, number });
            }
            Pending::Load { server, number, wanted } => {
                let loaded = self.disk.load(server, &wanted);
                self.input(SenderInput::Loaded { server, number, loaded });
            }
            Pending::Read { server, number, after, upto } => {
                let page = self.read(server, after);
                assert!(!page.is_last || page.upto >= upto);
                self.input(SenderInput::Missed { server, number, page });
            }
            Pending::Request { server, number, result } => {
                if self.in_flight.get(&server) == Some(&number) {
                    self.in_flight.remove(&server);
                }
                self.input(SenderInput::Answered { server, number, result, reason: format!("{result:?}") });
            }
        }
    }

    pub fn input(&mut self, input: SenderInput) {
        let effects = self.shard.step(input, self.now, &mut self.rand);
        effects.into_iter().for_each(|effect| self.effect(effect));
        self.check();
    }

    fn effect(&mut self, effect: SenderEffect) {
        match effect {
            SenderEffect::Load { server, number, wanted } => {
                assert!(wanted.devices.len() <= MAX_EDUS && wanted.events.len() <= MAX_PDUS);
                self.later(20, Pending::Load { server, number, wanted });
            }
            SenderEffect::ReadMissed { server, number, after, upto } => {
                self.later(50, Pending::Read { server, number, after, upto });
            }
            SenderEffect::Send { server, number, transaction } => {
                let before = self.in_flight.insert(server, number);
                assert_eq!(before, None, "one transaction in flight");
                let (pause, result) = self.peers.get_mut(&server).unwrap().answer(&transaction, &mut self.rand);
                let at = self.now.moment.after(pause);
                self.put(at, Pending::Request { server, number, result });
            }
            SenderEffect::Abort { server, number } => {
                assert_eq!(self.in_flight.remove(&server), Some(number));
                self.aborted += 1;
            }
            SenderEffect::Lag { row, number } => self.write(Write::Lag { row, number }),
            SenderEffect::Unlag { server } => self.write(Write::Unlag { server }),
            SenderEffect::DeleteItems { server, upto } => self.write(Write::DeleteItems { server, upto }),
            SenderEffect::Skipped { server, part, .. } => {
                let part = match part {
                    Part::Event { event, .. } => Sent::Event(event.0),
                    Part::Devices { user, pos } => Sent::Devices(user.0, pos.0),
                    Part::Item { seq } => Sent::Item(seq),
                };
                self.skipped += 1;
                self.peers.get_mut(&server).unwrap().skip(part);
            }
        }
    }

    fn write(&mut self, write: Write) {
        self.writes.push_back(write);
        let pause = Duration::from_millis(self.rand.random_range(1..3_000));
        self.write_at.get_or_insert(self.now.moment.after(pause));
    }

    fn later(&mut self, most_ms: u64, pending: Pending) {
        let pause = Duration::from_millis(self.rand.random_range(0..most_ms));
        self.put(self.now.moment.after(pause), pending);
    }

    fn put(&mut self, at: Moment, pending: Pending) {
        self.last_pending += 1;
        self.pending.insert((at, self.last_pending), pending);
    }

    /// The invariants of each step.
    fn check(&mut self) {
        let usage = self.shard.usage(self.now);
        assert!(usage.queued <= self.bounds.queued && usage.edu_bytes <= self.bounds.edu_bytes, "{usage:?}");
        assert!(usage.body_bytes <= self.bounds.body_bytes.max(4 * MAX_TRANSACTION_BYTES), "{usage:?}");
        assert!(usage.catching_up <= 16, "{usage:?}");
        let told = self.told.checked_sub(1).map_or(self.disk.cursor, |last| self.disk.log[last].0);
        let done = self.shard.done_upto().unwrap_or(told);
        assert!(done >= self.last_done, "the cursor goes back: {done:?} {:?}", self.last_done);
        self.last_done = done;
    }

    /// Commits work, and tells the shard of it, or later.
    pub fn commit(&mut self, work: Vec<Outgoing>, tells: bool) {
        let pos = self.next_pos();
        for outgoing in &work {
            match outgoing {
                Outgoing::Event { room, event, to } => {
                    to.iter().for_each(|server| _ = self.peer(*server).events.insert(*event, *room));
                }
                Outgoing::DeviceList { user, to } => {
                    to.iter().for_each(|server| _ = self.peer(*server).devices.insert((*user, pos)));
                }
                Outgoing::Item { server, seq } => {
                    self.peer(*server).items.insert(*seq);
                    self.disk.items.entry(*server).or_default().insert(*seq);
                }
            }
        }
        self.disk.log.push((pos, self.now.moment, work));
        if tells {
            self.tell();
        }
    }

    /// The position of the next commit.
    pub fn next_pos(&self) -> Position {
        Position(i64::try_from(self.disk.log.len()).unwrap() + 1)
    }

    pub fn peer(&mut self, server: ServerNid) -> &mut Peer {
        self.peers.get_mut(&server).unwrap()
    }

    /// Tells the shard of all commits.
    pub fn tell(&mut self) {
        while let Some((pos, _, work)) = self.disk.log.get(self.told).cloned() {
            self.told += 1;
            self.input(SenderInput::Committed { pos, work });
        }
    }

    /// Stores the cursor, and trims the log.
    pub fn store_cursor(&mut self) {
        self.disk.cursor = self.disk.cursor.max(self.last_done);
        let is_old = |at: Moment| at.after(LOG_KEPT_FOR) <= self.now.moment;
        let gone = self.disk.log.iter().take_while(|(pos, at, _)| *pos <= self.disk.cursor && is_old(*at));
        self.disk.log_after = gone.last().map_or(self.disk.log_after, |(pos, ..)| *pos);
    }

    /// Ends the process and starts it again. Some of its writes are committed before, and requests that are under way
    /// have no answer.
    pub fn crash(&mut self, away: Duration) {
        let committed = self.rand.random_range(0..=self.writes.len());
        for write in self.writes.drain(..committed) {
            self.disk.write(write);
        }
        self.writes.clear();
        self.write_at = None;
        self.pending.clear();
        self.in_flight.clear();
        self.move_to(self.now.moment.after(away));
        // The clock begins anew.
        self.disk.log.iter_mut().for_each(|(_, at, _)| at.0 -= self.now.moment.0);
        self.now.moment = Moment(0);
        self.shard = shard(&self.disk, self.bounds, self.now, &mut self.rand);
        self.told = self.disk.log.partition_point(|(pos, ..)| *pos <= self.disk.cursor);
        self.last_done = self.disk.cursor;
        let items = self.disk.items.iter().filter_map(|(server, items)| Some((*server, *items.last()?)));
        let work = items.map(|(server, seq)| Outgoing::Item { server, seq }).collect();
        self.input(SenderInput::Committed { pos: self.disk.cursor, work });
        self.tell();
    }

    /// Reads a page of what a server has missed.
    fn read(&mut self, server: ServerNid, after: Position) -> MissedPage {
        let snapshot = Position(self.next_pos().0 - 1);
        let by_room = after < self.disk.log_after;
        let mut events: BTreeMap<Position, (RoomNid, EventNid)> = BTreeMap::new();
        let mut devices: BTreeMap<Position, UserNid> = BTreeMap::new();
        let mut newest: BTreeMap<RoomNid, Position> = BTreeMap::new();
        let mut changed: BTreeMap<UserNid, Position> = BTreeMap::new();
        for (pos, _, work) in self.disk.log.iter().filter(|(pos, ..)| *pos > after) {
            for outgoing in work {
                match outgoing {
                    Outgoing::Event { room, event, to } if to.contains(&server) => {
                        let before = newest.insert(*room, *pos).filter(|_| by_room);
                        before.and_then(|before| events.remove(&before));
                        events.insert(*pos, (*room, *event));
                    }
                    Outgoing::DeviceList { user, to } if to.contains(&server) => {
                        changed.insert(*user, *pos).and_then(|before| devices.remove(&before));
                        devices.insert(*pos, *user);
                    }
                    _ => {}
                }
            }
        }
        let all: BTreeSet<Position> = events.keys().chain(devices.keys()).copied().collect();
        let most = self.rand.random_range(1..=MAX_PAGE);
        let is_last = all.len() <= most;
        let upto = if is_last { snapshot } else { *all.iter().nth(most - 1).unwrap() };
        events.retain(|pos, _| *pos <= upto);
        devices.retain(|pos, _| *pos <= upto);
        if by_room {
            self.read_by_room += 1;
            self.peers.get_mut(&server).unwrap().cut_rooms.extend(newest.keys());
        } else {
            self.replayed += 1;
        }
        let events = events.into_iter().map(|(pos, (room, event))| MissedEvent { pos, room, event });
        MissedPage { events: events.collect(), devices: devices.into_iter().collect(), upto, is_last, by_room }
    }

    /// Fails unless every server has everything, and nothing is left to do.
    pub fn check_all_delivered(&mut self) {
        for (server, peer) in &self.peers {
            assert_eq!(peer.lacks(), None, "{server:?}");
        }
        assert!(self.disk.rows.is_empty(), "{:?}", self.disk.rows);
        assert!(self.disk.items.values().all(BTreeSet::is_empty), "{:?}", self.disk.items);
        assert_eq!(self.shard.done_upto(), None);
        assert_eq!(self.shard.usage(self.now), ShardUsage::default());
    }
}

impl Disk {
    /// Commits a write. Returns whose row was stored.
    fn write(&mut self, write: Write) -> Option<(ServerNid, EffectNumber)> {
        match write {
            Write::Lag { row, number } => {
                let server = row.server;
                self.rows.insert(server, row);
                Some((server, number))
            }
            Write::Unlag { server } => {
                self.rows.remove(&server);
                None
            }
            Write::DeleteItems { server, upto } => {
                self.items.entry(server).or_default().retain(|seq| *seq > upto);
                None
            }
        }
    }

    fn load(&self, server: ServerNid, wanted: &Wanted) -> Loaded {
        let mut bytes = 0;
        let mut json = |part: Sent, padding: i64| {
            let padding = usize::try_from(padding).unwrap();
            let (name, args) = match part {
                Sent::Event(nid) => ("Event", nid.to_string()),
                Sent::Devices(user, pos) => ("Devices", format!("[{user},{pos}]")),
                Sent::Item(seq) => ("Item", seq.to_string()),
                Sent::Typing(number) => ("Typing", number.to_string()),
            };
            let json = format!(r#"{{"part":{{"{name}":{args}}},"padding":"{}"}}"#, "x".repeat(padding));
            bytes += json.len();
            (bytes <= wanted.most_bytes).then(|| Arc::from(json))
        };
        let mut loaded = Loaded::default();
        if let Some(WantedItems { after, most }) = wanted.items {
            let items = self.items.get(&server).into_iter().flatten().filter(|seq| **seq > after).take(most);
            let items = items.map_while(|seq| {
                let kind = if seq % 7 == 0 { ItemKind::Pdu } else { ItemKind::Edu };
                Some(LoadedItem { seq: *seq, kind, json: json(Sent::Item(*seq), padding(*seq))? })
            });
            loaded.items = items.collect();
        }
        // Some changes have several EDUs, and some events are gone.
        loaded.devices = wanted
            .devices
            .iter()
            .map_while(|(user, pos)| {
                (0..=pos.0 % 3).map(|_| json(Sent::Devices(user.0, pos.0), 100)).collect::<Option<Vec<_>>>()
            })
            .collect();
        loaded.events =
            wanted.events.iter().map_while(|event| json(Sent::Event(event.0), padding(event.0)).map(Some)).collect();
        loaded
    }
}

/// The size of a part: now and then, a large one.
fn padding(number: i64) -> i64 {
    if number % 11 == 0 { 40_000 } else { number % 200 }
}

/// The JSON of an EDU.
pub fn typing(number: i64) -> Arc<str> {
    format!(r#"{{"part":{{"Typing":{number}}}}}"#).into()
}

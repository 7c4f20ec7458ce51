//! A shard whose effects are shown as text, and whose reads of parts are answered at once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use ruma::server_name;

use super::super::{
    super::*,
    driver::typing,
    peers::{Sent, parts},
};
use crate::ids::{EventNid, RoomNid, UserNid};

pub const START_MS: i64 = 1_700_000_000_000;

pub struct Hand {
    pub shard: Shard,
    pub now: Now,
    rand: StdRng,
    /// The latest request, read or row of each server.
    pub numbers: BTreeMap<(ServerNid, &'static str), EffectNumber>,
    pub sent: Vec<Arc<Transaction>>,
    /// The stored items.
    pub items: Vec<i64>,
    /// The size of a part.
    pub padding: usize,
    /// Events that are no longer stored.
    pub gone: Vec<i64>,
    /// The position after which was read last.
    pub read_after: i64,
}

impl Hand {
    pub fn new(rows: &[LagRow], cursor: i64) -> Self {
        let now = Now { moment: Moment(0), unix_ms: START_MS };
        let mut rand = StdRng::seed_from_u64(1);
        let origin = server_name!("here.test").to_owned();
        let shard = Shard::new(origin, Bounds::default(), Position(cursor), rows.to_vec(), now, &mut rand);
        let (numbers, sent, items, gone) = (BTreeMap::new(), vec![], vec![], vec![]);
        Self { shard, now, rand, numbers, sent, items, padding: 0, gone, read_after: 0 }
    }

    /// Takes an input. Returns the effects as text.
    pub fn step(&mut self, input: SenderInput) -> Vec<String> {
        let mut inputs = VecDeque::from([input]);
        let mut shown = vec![];
        while let Some(input) = inputs.pop_front() {
            for effect in self.shard.step(input, self.now, &mut self.rand) {
                if let SenderEffect::Load { server, number, wanted } = effect {
                    let loaded = self.load(&wanted);
                    inputs.push_back(SenderInput::Loaded { server, number, loaded });
                } else {
                    shown.push(self.show(effect));
                }
            }
        }
        shown
    }

    fn show(&mut self, effect: SenderEffect) -> String {
        match effect {
            SenderEffect::Load { .. } => unreachable!("a step answers it"),
            SenderEffect::Send { server, number, transaction } => {
                self.numbers.insert((server, "send"), number);
                let parts = parts(&transaction).into_iter().map(|part| match part {
                    Sent::Event(nid) => format!("e{nid}"),
                    Sent::Devices(user, pos) => format!("d{user}@{pos}"),
                    Sent::Item(seq) => format!("i{seq}"),
                    Sent::Typing(number) => format!("t{number}"),
                });
                let text = format!("send {}: {}", server.0, parts.collect::<Vec<_>>().join(" "));
                self.sent.push(transaction);
                text
            }
            SenderEffect::Abort { server, .. } => format!("abort {}", server.0),
            SenderEffect::Lag { row, number } => {
                self.numbers.insert((row.server, "lag"), number);
                let next = (row.next_ms - self.now.unix_ms) / 1_000;
                format!("lag {} after {} for {} s: next in {next} s", row.server.0, row.pos.0, row.interval_ms / 1_000)
            }
            SenderEffect::Unlag { server } => format!("unlag {}", server.0),
            SenderEffect::ReadMissed { server, number, after, upto } => {
                self.numbers.insert((server, "read"), number);
                self.read_after = after.0;
                format!("read {} ({}, {}]", server.0, after.0, upto.0)
            }
            SenderEffect::DeleteItems { server, upto } => format!("delete {} upto {upto}", server.0),
            SenderEffect::Skipped { server, part, reason } => format!("skip {}: {part:?} {reason:?}", server.0),
        }
    }

    fn load(&self, wanted: &Wanted) -> Loaded {
        let json = |part: &str, arg: String| -> Arc<str> {
            format!(r#"{{"part":{{"{part}":{arg}}},"padding":"{}"}}"#, "x".repeat(self.padding)).into()
        };
        let items = wanted.items.map(|WantedItems { after, most }| {
            let items = self.items.iter().filter(|seq| **seq > after).take(most);
            items
                .map(|seq| LoadedItem { seq: *seq, kind: ItemKind::Edu, json: json("Item", seq.to_string()) })
                .collect()
        });
        let devices = wanted.devices.iter();
        let devices = devices.map(|(user, pos)| vec![json("Devices", format!("[{},{}]", user.0, pos.0))]);
        let event = |event: &EventNid| {
            let is_gone = self.gone.contains(&event.0);
            (!is_gone).then(|| json("Event", event.0.to_string()))
        };
        let events = wanted.events.iter().map(event).collect();
        Loaded { items: items.unwrap_or_default(), devices: devices.collect(), events }
    }

    /// An event in room 1 at this position, which is its number too.
    pub fn event(&mut self, pos: i64, to: &[i64]) -> Vec<String> {
        let to = to.iter().copied().map(ServerNid).collect();
        let work = vec![Outgoing::Event { room: RoomNid(1), event: EventNid(pos), to }];
        self.step(SenderInput::Committed { pos: Position(pos), work })
    }

    pub fn devices(&mut self, pos: i64, user: i64, to: &[i64]) -> Vec<String> {
        let to = to.iter().copied().map(ServerNid).collect();
        let work = vec![Outgoing::DeviceList { user: UserNid(user), to }];
        self.step(SenderInput::Committed { pos: Position(pos), work })
    }

    pub fn item(&mut self, pos: i64, server: i64) -> Vec<String> {
        self.items.push(pos);
        let work = vec![Outgoing::Item { server: ServerNid(server), seq: pos }];
        self.step(SenderInput::Committed { pos: Position(pos), work })
    }

    pub fn typing(&mut self, number: i64, to: &[i64]) -> Vec<String> {
        let key = EduKey::Typing { room: RoomNid(1), user: UserNid(1) };
        let to = to.iter().copied().map(ServerNid).collect();
        self.step(SenderInput::Edu(EduOut { key, to, json: typing(number) }))
    }

    /// Answers the latest request of a server.
    pub fn answer(&mut self, server: i64, result: SendResult) -> Vec<String> {
        let server = ServerNid(server);
        let number = self.numbers[&(server, "send")];
        self.step(SenderInput::Answered { server, number, result, reason: "no".to_owned() })
    }

    pub fn status(&mut self, server: i64, status: u16) -> Vec<String> {
        self.answer(server, SendResult::Answered { status, retry_after: None })
    }

    pub fn ok(&mut self, server: i64) -> Vec<String> {
        self.status(server, 200)
    }

    /// Commits the latest row of a server.
    pub fn stored(&mut self, server: i64) -> Vec<String> {
        let server = ServerNid(server);
        let number = self.numbers[&(server, "lag")];
        self.step(SenderInput::LagStored { server, number })
    }

    /// Answers the latest read of a server.
    pub fn missed(&mut self, server: i64, page: MissedPage) -> Vec<String> {
        let server = ServerNid(server);
        let number = self.numbers[&(server, "read")];
        self.step(SenderInput::Missed { server, number, page })
    }

    /// Lets time pass. Returns the effects until then.
    pub fn pass(&mut self, length: Duration) -> Vec<String> {
        let end = self.now.moment.after(length);
        let mut effects = vec![];
        while let Some(at) = self.shard.due_at().filter(|at| *at <= end) {
            self.move_to(at);
            effects.extend(self.step(SenderInput::Tick));
        }
        self.move_to(end);
        effects
    }

    pub fn pass_s(&mut self, seconds: u64) -> Vec<String> {
        self.pass(Duration::from_secs(seconds))
    }

    fn move_to(&mut self, at: Moment) {
        self.now.unix_ms += (at.0 - self.now.moment.0).max(0);
        self.now.moment = self.now.moment.max(at);
    }

    pub fn done_upto(&self) -> Option<i64> {
        self.shard.done_upto().map(|pos| pos.0)
    }

    pub fn usage(&self) -> ShardUsage {
        self.shard.usage(self.now)
    }
}

/// A page with events in these rooms, at positions that are their numbers.
pub fn page(events: &[(i64, i64)], upto: i64, is_last: bool, by_room: bool) -> MissedPage {
    let event =
        |(room, pos): &(i64, i64)| MissedEvent { pos: Position(*pos), room: RoomNid(*room), event: EventNid(*pos) };
    let events = events.iter().map(event).collect();
    MissedPage { events, devices: vec![], upto: Position(upto), is_last, by_room }
}

/// A row of server 1.
pub fn row(pos: i64, interval_s: i64, failing_for_s: i64, next_in_s: i64) -> LagRow {
    LagRow {
        server: ServerNid(1),
        pos: Position(pos),
        next_ms: START_MS + next_in_s * 1_000,
        interval_ms: interval_s * 1_000,
        failing_since_ms: START_MS - failing_for_s * 1_000,
        reason: "".into(),
    }
}

/// The shown events of a range of numbers.
pub fn events(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|number| format!("e{number}")).collect::<Vec<_>>().join(" ")
}

pub const NOTHING: [&str; 0] = [];

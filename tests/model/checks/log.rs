//! Checks the commit log: its entries can be read and follow each other, they name what the tables hold, and the reader
//! was told of each.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use sabha::store::{
    Position,
    log::{LogEntry, Touch, decode},
};
use sabha_federation::standing::Flags;
use sqlx::{Connection as _, PgConnection, Row as _, SqliteConnection};

use crate::{
    reader::Told,
    world::{Fault, World},
};

/// A thing that an entry names: its position, its kind, and its numbers.
type Named = (i64, &'static str, Vec<i64>);

/// Queries of the tables that entries follow, each with the kind of its rows: the position of a row, then its numbers.
const ROWS: [(&str, &str); 8] = [
    ("event", "SELECT pos, room_nid, event_nid FROM timeline WHERE sub = 0"),
    (
        "state",
        "SELECT pos, room_nid, key_nid, COALESCE(event_nid, 0), COALESCE(prev_event_nid, 0), \
         COALESCE(membership, -1) FROM state_log",
    ),
    (
        "redaction",
        "SELECT e.pos, e.room_nid, r.event_nid, r.redaction_nid FROM redaction r \
         JOIN event e ON e.event_nid = r.redaction_nid",
    ),
    ("membership", "SELECT pos, room_nid, user_nid, membership FROM member"),
    ("receipt", "SELECT pos, room_nid, user_nid, kind FROM receipt"),
    ("account data", "SELECT pos, room_nid, user_nid FROM account_data"),
    ("message", "SELECT pos, device_nid FROM to_device"),
    ("device list", "SELECT pos, user_nid FROM device_change"),
];

/// The kinds whose rows never go away and never change: each one that is named must be there.
const KEPT: [&str; 2] = ["event", "state"];

/// Memberships that their users have forgotten.
const FORGOTTEN: &str = "SELECT pos, room_nid, user_nid FROM member WHERE forgotten";

/// The place of the database.
#[derive(Debug, Clone)]
pub enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

/// A connection of the test.
enum Tables {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Tables {
    async fn open(place: &Place) -> Self {
        match place {
            Place::Sqlite(path) => {
                let url = format!("sqlite:{}", path.display());
                Self::Sqlite(SqliteConnection::connect(&url).await.expect("the server's database"))
            }
            Place::Postgres(url) => Self::Postgres(PgConnection::connect(url).await.expect("the server's database")),
        }
    }

    /// Returns rows of numbers.
    async fn numbers(&mut self, text: &'static str) -> Vec<Vec<i64>> {
        match self {
            Self::Sqlite(conn) => {
                let rows = sqlx::query(text).fetch_all(conn).await.expect("a query");
                rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
            }
            Self::Postgres(conn) => {
                let rows = sqlx::query(text).fetch_all(conn).await.expect("a query");
                rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
            }
        }
    }

    async fn log(&mut self) -> Vec<(i64, Vec<u8>)> {
        const TEXT: &str = "SELECT pos, touched FROM commit_log ORDER BY pos";
        match self {
            Self::Sqlite(conn) => sqlx::query_as(TEXT).fetch_all(conn).await,
            Self::Postgres(conn) => sqlx::query_as(TEXT).fetch_all(conn).await,
        }
        .expect("a query")
    }
}

pub async fn check(world: &World, place: &Place, told: &[Told]) {
    let mut tables = Tables::open(place).await;
    // The tables first: each of their rows has its entry by then.
    let mut rows = Vec::new();
    for (kind, text) in ROWS {
        rows.extend(tables.numbers(text).await.into_iter().map(|row| (row[0], kind, row[1..].to_vec())));
    }
    let forgotten = tables.numbers(FORGOTTEN).await;
    let mut faults = Vec::new();
    let entries = read(tables.log().await, &mut faults);
    complete(&entries, rows, &forgotten, &mut faults);
    all_told(&entries, told, &mut faults);
    for Fault { kind, text } in faults {
        world.fault(kind, text);
    }
}

fn fault(kind: &'static str, text: String) -> Fault {
    Fault { kind, text }
}

/// Reads the entries. Each must follow the one before.
fn read(rows: Vec<(i64, Vec<u8>)>, faults: &mut Vec<Fault>) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::with_capacity(rows.len());
    let mut bytes = None;
    for (pos, blob) in rows {
        let entry = match decode(Position(pos), &blob) {
            Ok(entry) => entry,
            Err(error) => {
                faults.push(fault("an entry of the log cannot be read", format!("at {pos}: {error}")));
                continue;
            }
        };
        let is_next = entries.last().is_none_or(|last| last.pos <= entry.after) && entry.after < entry.pos;
        if !is_next || bytes.is_some_and(|bytes| bytes != entry.bytes_before) {
            let before = entries.last().map(|last| (last.after, last.pos, last.bytes_before));
            let text = format!("{:?} follows {before:?}", (entry.after, entry.pos, entry.bytes_before));
            faults.push(fault("an entry of the log does not follow the one before", text));
        }
        bytes = Some(entry.bytes_before + blob.len() as u64);
        entries.push(entry);
    }
    entries
}

fn named(at: Position, touch: &Touch) -> Option<Named> {
    let (kind, numbers) = match *touch {
        // An event that was fetched into a gap has the position of the gap.
        Touch::Event { room, event, sub: 0, flags } if Flags::from_bits(flags).is_accepted() => {
            ("event", vec![room.0, event.0])
        }
        Touch::State { room, key, event, before, membership } => {
            let nid = |event: Option<sabha::store::EventNid>| event.map_or(0, |event| event.0);
            ("state", vec![room.0, key.0, nid(event), nid(before), membership.map_or(-1, i64::from)])
        }
        Touch::Redacted { room, event, by } => ("redaction", vec![room.0, event.0, by.0]),
        Touch::Member { room, user, forgotten: true, .. } => ("forgotten", vec![room.0, user.0]),
        Touch::Member { room, user, membership, .. } => ("membership", vec![room.0, user.0, i64::from(membership)]),
        Touch::Receipt { room, user, private } => ("receipt", vec![room.0, user.0, i64::from(private)]),
        Touch::AccountData { user, room, .. } => ("account data", vec![room.0, user.0]),
        Touch::ToDevice { device, .. } => ("message", vec![device.0]),
        Touch::DeviceList { user } => ("device list", vec![user.0]),
        _ => return None,
    };
    Some((at.0, kind, numbers))
}

/// Checks that the log names each row after its beginning, and that rows which cannot go away are there.
fn complete(entries: &[LogEntry], rows: Vec<Named>, forgotten: &[Vec<i64>], faults: &mut Vec<Fault>) {
    let Some(begin) = entries.first().map(|first| first.after.0) else {
        faults.push(fault("the log is empty", format!("{} rows", rows.len())));
        return;
    };
    let touches = entries.iter().flat_map(|entry| &entry.touches);
    let found: HashSet<Named> = touches.filter_map(|(at, touch)| named(*at, touch)).collect();
    let stored: HashSet<Named> = rows.into_iter().filter(|(pos, ..)| *pos > begin).collect();
    for row in stored.difference(&found) {
        faults.push(fault("the log does not name a row", format!("{row:?}, after {begin}")));
    }
    for touch in found.difference(&stored).filter(|(_, kind, _)| KEPT.contains(kind)) {
        faults.push(fault("the log names a row that is not there", format!("{touch:?}")));
    }
    let mut last_forgotten: BTreeMap<&[i64], i64> = BTreeMap::new();
    for (pos, _, numbers) in found.iter().filter(|(_, kind, _)| *kind == "forgotten") {
        let last = last_forgotten.entry(numbers).or_insert(*pos);
        *last = *pos.max(last);
    }
    for row in forgotten {
        // An older one may have been forgotten before the log begins.
        if row[0] > begin && last_forgotten.get(&row[1..]).is_none_or(|last| *last <= row[0]) {
            faults.push(fault("the log does not name a row", format!("a forgotten membership: {row:?}")));
        }
    }
}

/// Checks that the reader was told of each entry that is left, as it is, and in order.
fn all_told(entries: &[LogEntry], told: &[Told], faults: &mut Vec<Fault>) {
    let mut tables: Vec<(Position, Position)> = Vec::new();
    let mut read: BTreeMap<Position, &LogEntry> = BTreeMap::new();
    // The position up to which it was told everything.
    let mut upto: Option<Position> = None;
    for told in told {
        match told {
            Told::Tables(from, to) => {
                // Only a new consumer begins with the tables; the log is kept for all others.
                if *from != Position::BEFORE_ALL {
                    faults.push(fault("the log was trimmed before a cursor", format!("{from:?} to {to:?}")));
                }
                tables.push((*from, *to));
                upto = Some(*to.max(&upto.unwrap_or(*to)));
            }
            Told::Entry(entry) => {
                let left_out = |upto: Position| entries.iter().find(|it| it.pos > upto && it.pos < entry.pos);
                if let Some(left_out) = upto.and_then(left_out) {
                    let text = format!("{:?}, between {upto:?} and {:?}", left_out.pos, entry.pos);
                    faults.push(fault("a reader of the log missed an entry", text));
                }
                upto = Some(entry.pos.max(upto.unwrap_or(entry.pos)));
                read.insert(entry.pos, entry);
            }
        }
    }
    let first = read.keys().next().copied();
    for entry in entries {
        let is_in_tables = tables.iter().any(|(from, to)| *from < entry.pos && entry.pos <= *to);
        match read.get(&entry.pos) {
            Some(told) if *told != entry => {
                faults.push(fault("a reader was told another entry", format!("{told:?}, not {entry:?}")));
            }
            None if !is_in_tables && first.is_some_and(|first| first < entry.pos) && Some(entry.pos) <= upto => {
                faults.push(fault("a reader of the log missed an entry", format!("{:?}", entry.pos)));
            }
            _ => {}
        }
    }
    if upto.is_none() {
        faults.push(fault("a reader of the log was told nothing", format!("{} entries", entries.len())));
    }
}

//! The knowledge of a client that only follows `/sync`, kept as a careful client would keep it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::ways::{Kind, names};

/// A part of a room's timeline, as an answer had it.
#[derive(Debug, Clone)]
pub struct Piece {
    /// True if older events are missing before it, until they are read back.
    pub limited: bool,
    /// Events read back with `/messages`, oldest first. `None` if that was no longer possible.
    pub gap: Option<Vec<String>>,
    pub events: Vec<String>,
    /// True if the client was not in the room before, and the piece only tells that it is out.
    pub only_departure: bool,
}

/// A room as the client knows it.
#[derive(Debug, Default)]
pub struct KnownRoom {
    pub pieces: Vec<Piece>,
    /// Event IDs of the pieces, except those that are only a departure.
    events: HashSet<String>,
    pub state: BTreeMap<(String, String), String>,
    pub account_data: BTreeMap<String, Value>,
    /// The last event that each user has read.
    pub receipts: BTreeMap<String, String>,
    pub typing: BTreeSet<String>,
    pub unread: Value,
    /// Numbers of joined and of invited members in the answers.
    pub members: (Option<u64>, Option<u64>),
    /// True after an invitation or a knock while the client was in the room: earlier events were not told.
    pub torn: bool,
    /// The token before the latest piece, if events may be missing there.
    gap_from: Option<String>,
}

/// The knowledge of a client.
#[derive(Debug)]
pub struct Known {
    user_id: String,
    kind: Kind,
    pub since: Option<String>,
    pub rooms: BTreeMap<String, KnownRoom>,
    pub joined: BTreeSet<String>,
    pub invited: BTreeSet<String>,
    pub knocked: BTreeSet<String>,
    pub account_data: BTreeMap<String, Value>,
    /// Nonces of messages to the device, in the order in which they came.
    pub letters: Vec<String>,
    /// Users whose device lists changed, with the tick at which the client learned of it.
    pub changed_lists: Vec<(u64, BTreeSet<String>)>,
    /// The tick of the first answer.
    pub first_answer: Option<u64>,
    /// Every answer that was taken, for fault reports.
    pub answers: Vec<Taken>,
}

/// The change of the client's token by an answer, and the section of each room in it.
#[derive(Debug)]
pub struct Taken {
    pub since: Option<String>,
    pub next_batch: String,
    pub rooms: BTreeMap<String, &'static str>,
}

type Faults = Vec<(&'static str, String)>;

impl Known {
    pub fn new(user_id: String, kind: Kind) -> Self {
        Self {
            user_id,
            kind,
            since: None,
            rooms: BTreeMap::new(),
            joined: BTreeSet::new(),
            invited: BTreeSet::new(),
            knocked: BTreeSet::new(),
            account_data: BTreeMap::new(),
            letters: Vec::new(),
            changed_lists: Vec::new(),
            first_answer: None,
            answers: Vec::new(),
        }
    }

    /// Describes how the client's token moved, and in which section each answer had the room.
    pub fn way_of(&self, room_id: &str) -> String {
        let step = |taken: &Taken| {
            let since = taken.since.as_deref().unwrap_or("the beginning");
            let told = taken.rooms.get(room_id).unwrap_or(&"nothing");
            format!("{since} to {}: {told}", taken.next_batch)
        };
        self.answers.iter().map(step).collect::<Vec<_>>().join("\n    ")
    }

    pub fn knows(&self, room_id: &str, event_id: &str) -> bool {
        self.rooms.get(room_id).is_some_and(|room| room.events.contains(event_id))
    }

    /// Takes an answer in. What no answer may say is a fault.
    pub fn take(&mut self, answer: &Value, got: u64) -> Faults {
        let mut faults = Vec::new();
        for (room_id, room) in object(&answer["rooms"]["join"]) {
            self.take_room(room_id, room, true, &mut faults);
        }
        for (room_id, room) in object(&answer["rooms"]["leave"]) {
            self.take_room(room_id, room, false, &mut faults);
        }
        for (room_id, _) in object(&answer["rooms"]["invite"]) {
            self.knocked.remove(room_id);
            self.invited.insert(room_id.clone());
            self.tear(room_id);
        }
        for (room_id, _) in object(&answer["rooms"]["knock"]) {
            self.invited.remove(room_id);
            self.knocked.insert(room_id.clone());
            self.tear(room_id);
        }
        for event in events(&answer["account_data"]) {
            self.account_data.insert(text(event, "type"), event["content"].clone());
        }
        let letters = events(&answer["to_device"]).iter().map(|event| text(&event["content"], "nonce"));
        self.letters.extend(letters);
        self.changed_lists.push((got, names(&answer["device_lists"]["changed"])));
        self.first_answer.get_or_insert(got);
        let sections = ["join", "leave", "invite", "knock"].into_iter();
        let rooms = sections.flat_map(|section| object(&answer["rooms"][section]).map(move |(id, _)| (id, section)));
        let rooms = rooms.map(|(room_id, section)| (room_id.clone(), section)).collect();
        let next_batch = text(answer, "next_batch");
        self.answers.push(Taken { since: self.since.replace(next_batch.clone()), next_batch, rooms });
        faults
    }

    /// Notes that the client is invited to a room or waits before it, and was perhaps not told how its stay ended.
    fn tear(&mut self, room_id: &str) {
        if self.joined.remove(room_id) {
            let room = self.rooms.entry(room_id.to_owned()).or_default();
            room.torn = true;
            room.state.clear();
            room.typing.clear();
        }
    }

    fn take_room(&mut self, room_id: &str, news: &Value, is_joined: bool, faults: &mut Faults) {
        let was_joined = self.joined.contains(room_id);
        let room = self.rooms.entry(room_id.to_owned()).or_default();
        let timeline = events(&news["timeline"]);
        let limited = news["timeline"]["limited"] == true;
        let only_departure = !is_joined && !was_joined && !limited;
        let ids: Vec<String> = timeline.iter().map(|event| text(event, "event_id")).collect();
        if !ids.is_empty() || limited {
            if limited && room.pieces.iter().any(|piece| !piece.only_departure) {
                room.gap_from = news["timeline"]["prev_batch"].as_str().map(str::to_owned);
            }
            room.pieces.push(Piece { limited, gap: None, events: ids, only_departure });
        }
        let field = if self.kind.state_after { "state_after" } else { "state" };
        let in_timeline = timeline.iter().filter(|_| !self.kind.state_after);
        for event in events(&news[field]).iter().chain(in_timeline) {
            if let Some(state_key) = event["state_key"].as_str() {
                room.state.insert((text(event, "type"), state_key.to_owned()), text(event, "event_id"));
            }
        }
        if is_joined {
            room.torn = false;
            let member = |user: &str| room.state.contains_key(&("m.room.member".to_owned(), user.to_owned()));
            if self.kind.follows_state("m.room.member") {
                for event in timeline.iter().filter(|event| !member(&text(event, "sender"))) {
                    faults.push(("the sender of an event is not told", format!("in {room_id}, of {event}")));
                }
                for hero in names(&news["summary"]["m.heroes"]).iter().filter(|hero| !member(hero)) {
                    faults.push((
                        "a hero's member event is not told",
                        format!("in {room_id}, of {hero}: {}", news["summary"]),
                    ));
                }
            }
            let summary = &news["summary"];
            room.members.0 = summary["m.joined_member_count"].as_u64().or(room.members.0);
            room.members.1 = summary["m.invited_member_count"].as_u64().or(room.members.1);
            if let Some(unread) = news.get("unread_notifications") {
                room.unread = unread.clone();
            }
        }
        for event in events(&news["account_data"]) {
            room.account_data.insert(text(event, "type"), event["content"].clone());
        }
        for event in events(&news["ephemeral"]) {
            if event["type"] == "m.typing" {
                room.typing = names(&event["content"]["user_ids"]);
            } else if event["type"] == "m.receipt" {
                read_receipts(&event["content"], &mut room.receipts);
            }
        }
        if is_joined {
            self.joined.insert(room_id.to_owned());
        } else {
            self.joined.remove(room_id);
            // Events without the user are not told until they come back; then all state is told.
            room.state.clear();
            // Nobody is seen to type there.
            room.typing.clear();
        }
        self.invited.remove(room_id);
        self.knocked.remove(room_id);
    }

    /// Returns rooms of the last answer with missing events before their piece, and the token where these begin.
    pub fn gaps(&mut self) -> Vec<(String, String)> {
        let gap = |(room_id, room): (&String, &mut KnownRoom)| Some((room_id.clone(), room.gap_from.take()?));
        let gaps = self.rooms.iter_mut().filter_map(gap).collect();
        for room in self.rooms.values_mut() {
            // A piece without a gap continues directly. A piece with a gap is known when the gap is filled.
            let has_gap = |piece: &Piece| piece.limited && piece.gap.is_none();
            let whole = room.pieces.iter().filter(|piece| !piece.only_departure);
            let first = room.events.is_empty();
            let ids: Vec<String> =
                whole.filter(|piece| first || !has_gap(piece)).flat_map(|piece| piece.events.clone()).collect();
            room.events.extend(ids);
        }
        gaps
    }

    /// Fills a gap with events read back, newest first; `None` if the room may not be read any more.
    pub fn fill(&mut self, room_id: &str, found: Option<Vec<String>>) {
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        let Some(piece) = room.pieces.last_mut() else { return };
        piece.gap = found.map(|found| found.into_iter().rev().collect());
        let ids = piece.gap.iter().flatten().chain(&piece.events).cloned();
        room.events.extend(ids);
    }

    pub fn user_id(&self) -> &str {
        &self.user_id
    }
}

/// Reads all receipts of an `m.receipt` event: the public ones, and the private ones under another name.
pub fn read_receipts(content: &Value, receipts: &mut BTreeMap<String, String>) {
    for (event_id, kinds) in object(content) {
        for (user, _) in object(&kinds["m.read"]) {
            receipts.insert(user.clone(), event_id.clone());
        }
        for (user, _) in object(&kinds["m.read.private"]) {
            receipts.insert(format!("{user} in private"), event_id.clone());
        }
    }
}

pub fn object(json: &Value) -> impl Iterator<Item = (&String, &Value)> {
    json.as_object().into_iter().flatten()
}

pub fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map_or(&[], Vec::as_slice)
}

pub fn text(json: &Value, key: &str) -> String {
    json[key].as_str().unwrap_or_default().to_owned()
}

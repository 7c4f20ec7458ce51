//! The true history of a room, as its creator reads it at the end, and the part of it that each user may see.
//!
//! The visibility rules are written here again from the specification ([visibility]), and not shared with the server.
//!
//! [visibility]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use serde_json::Value;

use crate::{
    api::{Api, Request, v3},
    followers::known::text,
};

/// An event of the timeline.
#[derive(Debug, Clone)]
pub struct TrueEvent {
    pub event_id: String,
    pub event_type: String,
    pub sender: String,
    pub state_key: Option<String>,
    pub content: Value,
    pub redacted: bool,
}

impl TrueEvent {
    fn new(event: &Value) -> Self {
        Self {
            event_id: text(event, "event_id"),
            event_type: text(event, "type"),
            sender: text(event, "sender"),
            state_key: event["state_key"].as_str().map(str::to_owned),
            content: event["content"].clone(),
            redacted: event["unsigned"]["redacted_because"].is_object(),
        }
    }

    pub fn is_member(&self, user_id: &str) -> bool {
        self.event_type == "m.room.member" && self.state_key.as_deref() == Some(user_id)
    }

    /// Returns the text of the act that made the event.
    pub fn nonce(&self) -> Option<&str> {
        self.content["nonce"].as_str().or_else(|| self.content["reason"].as_str())
    }

    fn state(&self) -> Option<(String, String)> {
        Some((self.event_type.clone(), self.state_key.clone()?))
    }
}

/// A room's whole history, oldest first.
pub struct TrueRoom {
    pub room_id: String,
    pub events: Vec<TrueEvent>,
    pub index: HashMap<String, usize>,
}

impl TrueRoom {
    pub async fn read(api: &Api, token: &str, room_id: &str) -> Self {
        let mut found = read_all(api, token, room_id).await;
        found.reverse();
        let events: Vec<TrueEvent> = found.iter().map(TrueEvent::new).collect();
        let index = events.iter().enumerate().map(|(index, event)| (event.event_id.clone(), index)).collect();
        Self { room_id: room_id.to_owned(), events, index }
    }

    /// Returns the state after the event at `upto`.
    pub fn state_at(&self, upto: usize) -> BTreeMap<(String, String), String> {
        let until = self.events.len().min(upto + 1);
        self.events[..until].iter().filter_map(|event| Some((event.state()?, event.event_id.clone()))).collect()
    }

    /// Returns the user's membership after the event at `index`.
    pub fn membership_at(&self, user_id: &str, index: usize) -> &str {
        let before = self.events[..self.events.len().min(index + 1)].iter().rev();
        before
            .filter(|event| event.is_member(user_id))
            .find_map(|event| event.content["membership"].as_str())
            .unwrap_or("leave")
    }

    /// Tells whether an event may be the last power levels of a room that was upgraded: a copy with other numbers.
    pub fn closes(&self, index: usize) -> bool {
        self.events[index].event_type == "m.room.power_levels"
            && self.events[..index].iter().any(|event| event.event_type == "m.room.tombstone")
    }

    pub fn membership(&self, user_id: &str) -> &str {
        self.membership_at(user_id, self.events.len())
    }

    fn visibility_at(&self, index: usize) -> &str {
        let before = self.events[..self.events.len().min(index + 1)].iter().rev();
        before
            .filter(|event| event.event_type == "m.room.history_visibility")
            .find_map(|event| event.content["history_visibility"].as_str())
            .unwrap_or("shared")
    }

    /// Returns the end of the user's last stay: their departure, or the last event. `None` if they were never in the
    /// room.
    pub fn end_of_stay(&self, user_id: &str) -> Option<usize> {
        let members = self.events.iter().enumerate().filter(|(_, event)| event.is_member(user_id));
        let mut end = None;
        let mut is_in = false;
        for (index, event) in members {
            let joins = event.content["membership"] == "join";
            if is_in && !joins {
                end = Some(index);
            }
            is_in = joins;
        }
        if is_in { Some(self.events.len().saturating_sub(1)) } else { end }
    }

    /// Returns the user's last stay, with their departure, if an invitation or a knock came after it.
    pub fn asked_after_stay(&self, user_id: &str) -> Option<RangeInclusive<usize>> {
        let until = self.end_of_stay(user_id)?;
        let joins = |index: &usize| self.membership_at(user_id, *index) == "join";
        let from = (0..until).rev().take_while(joins).last()?;
        let mut later = self.events[until + 1..].iter().filter(|event| event.is_member(user_id));
        let asks = |event: &TrueEvent| matches!(event.content["membership"].as_str(), Some("invite" | "knock"));
        later.any(asks).then_some(from..=until)
    }

    /// Returns the beginning of the user's present stay.
    pub fn begin_of_stay(&self, user_id: &str) -> Option<usize> {
        let members = self.events.iter().enumerate().filter(|(_, event)| event.is_member(user_id));
        let mut begin = None;
        for (index, event) in members {
            begin = if event.content["membership"] == "join" { begin.or(Some(index)) } else { None };
        }
        begin
    }

    /// Tells whether the user may see an event, as of the end of the history.
    ///
    /// A change of membership or visibility is judged by the value before it and the value after it. The specification
    /// says this for visibility. For membership it follows, or nobody would see their own removal.
    pub fn may_see(&self, user_id: &str, index: usize) -> bool {
        let joins_later = self.events[index + 1..]
            .iter()
            .any(|event| event.is_member(user_id) && event.content["membership"] == "join");
        let allows = |visibility: &str, membership: &str| match visibility {
            "world_readable" => true,
            "shared" => membership == "join" || joins_later,
            "invited" => matches!(membership, "join" | "invite"),
            _ => membership == "join",
        };
        let before = index.checked_sub(1);
        let membership_before = before.map_or("leave", |before| self.membership_at(user_id, before));
        let visibility_before = before.map_or("shared", |before| self.visibility_at(before));
        [visibility_before, self.visibility_at(index)].iter().any(|visibility| {
            allows(visibility, membership_before) || allows(visibility, self.membership_at(user_id, index))
        })
    }

    /// Returns how far the user reads with `/messages` and `/state`: everything, or only events up to their departure.
    /// `None`: nothing.
    pub fn horizon(&self, user_id: &str) -> Option<usize> {
        if self.visibility_at(self.events.len()) == "world_readable" {
            return Some(self.events.len().saturating_sub(1));
        }
        self.end_of_stay(user_id)
    }

    /// Returns the index of an event in the timeline.
    pub fn find(&self, event_id: &str) -> Option<usize> {
        self.index.get(event_id).copied()
    }

    /// Describes an event in a few words.
    pub fn describe(&self, index: usize) -> String {
        let event = &self.events[index];
        let key = event.state_key.as_deref().map(|key| format!(" [{key}]")).unwrap_or_default();
        let membership = event.content["membership"].as_str().unwrap_or_default();
        let nonce = event.nonce().unwrap_or("no nonce");
        format!("#{index} {}{key} {membership} by {} ({nonce}, {})", event.event_type, event.sender, event.event_id)
    }
}

/// Returns all events of a room that `/messages` shows to a user, newest first.
pub async fn read_all(api: &Api, token: &str, room_id: &str) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    let mut from = String::new();
    loop {
        let path = format!("{}?dir=b&limit=100{from}", v3(["rooms", room_id, "messages"]));
        let answer = api.need(token, &Request::get(path)).await;
        found.extend(answer["chunk"].as_array().into_iter().flatten().cloned());
        match answer["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return found,
        }
    }
}

/// Checks a history of messages and of member events of a user `@b`, under one visibility, against the indices that the
/// user may see.
#[test]
fn visibility_follows_the_table_of_the_specification() {
    let check = |visibility: &str, history: &[&str], expected: &[usize]| {
        let event = |index: usize, what: &str| TrueEvent {
            event_id: format!("${index}"),
            event_type: match what {
                "visibility" => "m.room.history_visibility".to_owned(),
                "message" => "m.room.message".to_owned(),
                _ => "m.room.member".to_owned(),
            },
            sender: "@a".to_owned(),
            state_key: (what != "message").then(|| if what == "visibility" { "" } else { "@b" }.to_owned()),
            content: serde_json::json!({ "membership": what, "history_visibility": visibility }),
            redacted: false,
        };
        let events: Vec<TrueEvent> =
            ["visibility"].iter().chain(history).enumerate().map(|(index, what)| event(index, what)).collect();
        let room = TrueRoom { room_id: "!r".to_owned(), events, index: HashMap::new() };
        // The first event is the visibility itself, which the default before it also affects.
        let seen: Vec<usize> = (1..room.events.len()).filter(|index| room.may_see("@b", *index)).collect();
        assert_eq!(seen, expected, "{visibility}: {history:?}");
    };
    let came_and_went = ["message", "invite", "message", "join", "message", "leave", "message"];
    check("world_readable", &came_and_went, &[1, 2, 3, 4, 5, 6, 7]);
    check("shared", &came_and_went, &[1, 2, 3, 4, 5, 6]);
    check("invited", &came_and_went, &[2, 3, 4, 5, 6]);
    check("joined", &came_and_went, &[4, 5, 6]);
    check("shared", &["message", "join", "leave", "message", "join"], &[1, 2, 3, 4, 5]);
    check("joined", &["message", "join", "leave", "message", "join"], &[2, 3, 5]);
    check("shared", &["message", "invite", "leave"], &[]);
    check("joined", &["join", "ban", "message", "leave"], &[1, 2]);
}

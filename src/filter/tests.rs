//! Compiled filters answer like their definitions, and are bounded.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn compiled(filter: &Value) -> Result<SyncFilter, FilterError> {
    SyncFilter::new(&Definition::read(&filter.to_string()).expect("a filter"))
}

/// The parts of a filter that have lists of types and senders. Those in `room` have lists of rooms too, as has `room`
/// itself.
const PARTS: [&[&str]; 6] = [
    &["presence"],
    &["account_data"],
    &["room", "account_data"],
    &["room", "ephemeral"],
    &["room", "state"],
    &["room", "timeline"],
];

const ROOM: &[&str] = &["room"];

/// All lists of a filter, each with the fields before it.
fn lists() -> Vec<(&'static [&'static str], &'static str)> {
    let of_events = ["types", "not_types", "senders", "not_senders"];
    let of_rooms = ["rooms", "not_rooms"];
    let parts_of_room = PARTS.into_iter().filter(|part| part.starts_with(ROOM)).chain([ROOM]);
    let event_lists = PARTS.into_iter().flat_map(|part| of_events.map(|name| (part, name)));
    event_lists.chain(parts_of_room.flat_map(|part| of_rooms.map(|name| (part, name)))).collect()
}

/// Writes a list into a filter.
fn with_list(filter: &mut Value, (parts, name): (&[&str], &str), entries: usize) {
    let sigil = if name.ends_with("senders") {
        "@"
    } else if name.ends_with("rooms") {
        "!"
    } else {
        ""
    };
    let entries: Vec<String> = (0..entries).map(|number| format!("{sigil}{number}:sabha.test")).collect();
    parts.iter().fold(filter, |part, name| &mut part[*name])[name] = json!(entries);
}

#[test]
fn the_entries_of_all_lists_count_together() {
    let lists = lists();
    for list in lists.iter().copied() {
        let mut filter = json!({});
        with_list(&mut filter, list, MAX_ENTRIES);
        assert!(compiled(&filter).is_ok(), "{list:?}");
        with_list(&mut filter, list, MAX_ENTRIES + 1);
        assert_eq!(compiled(&filter).err(), Some(FilterError::TooManyEntries), "{list:?}");
    }
    let mut filter = json!({});
    for list in lists.iter().copied() {
        with_list(&mut filter, list, MAX_ENTRIES / lists.len());
    }
    assert!(compiled(&filter).is_ok());
    for list in lists.iter().copied() {
        let mut filter = filter.clone();
        with_list(&mut filter, list, MAX_ENTRIES / lists.len() + MAX_ENTRIES % lists.len() + 1);
        assert_eq!(compiled(&filter).err(), Some(FilterError::TooManyEntries), "{list:?}");
    }
}

#[test]
fn a_compiled_filter_takes_little_more_than_its_definition() {
    let empty = SyncFilter::default().size_bytes();
    assert!(empty < 4_096, "{empty} bytes");
    for list in lists() {
        let mut filter = json!({});
        with_list(&mut filter, list, MAX_ENTRIES);
        let (bytes, text) = (compiled(&filter).expect("as many as may be").size_bytes(), filter.to_string().len());
        // The end of each name takes a number, and JSON two quotes and a comma.
        assert!(bytes < empty + text + MAX_ENTRIES * size_of::<usize>(), "{list:?}: {bytes} bytes for {text}");
    }
    let patterns: Vec<String> = (0..MAX_PATTERNS).map(|number| format!("{number:0>254}*")).collect();
    let filter = json!({ "room": { "timeline": { "types": patterns } } });
    let (bytes, text) = (compiled(&filter).expect("as many as may be").size_bytes(), filter.to_string().len());
    assert!(bytes < empty + 2 * text, "{bytes} bytes for {text}");
}

fn users() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("@[ab]{1,2}:s", 0..5)
}

fn rooms() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("![ab]{1,2}:s", 0..5)
}

proptest! {
    #[test]
    fn a_compiled_filter_answers_like_its_definition(
        senders in prop::option::of(users()),
        not_senders in users(),
        rooms in prop::option::of(rooms()),
        not_rooms in rooms(),
        asked_users in users(),
        asked_rooms in rooms(),
    ) {
        let mut list = json!({ "not_senders": not_senders, "not_rooms": not_rooms });
        if let Some(senders) = &senders {
            list["senders"] = json!(senders);
        }
        if let Some(rooms) = &rooms {
            list["rooms"] = json!(rooms);
        }
        let filter = compiled(&json!({ "room": { "timeline": list } })).expect("a small filter");
        let timeline = &filter.room.timeline;
        for user in asked_users.iter().chain(&not_senders).chain(senders.iter().flatten()) {
            let wanted = senders.as_ref().is_none_or(|senders| senders.contains(user)) && !not_senders.contains(user);
            let user_id = UserId::parse(user).expect("a user ID");
            prop_assert_eq!(timeline.accepts_sender(&user_id), wanted, "{}", user);
        }
        for room in asked_rooms.iter().chain(&not_rooms).chain(rooms.iter().flatten()) {
            let wanted = rooms.as_ref().is_none_or(|rooms| rooms.contains(room)) && !not_rooms.contains(room);
            let room_id = RoomId::parse(room).expect("a room ID");
            prop_assert_eq!(timeline.accepts_room(&room_id), wanted, "{}", room);
        }
        prop_assert_eq!(timeline.accepts_all(), senders.is_none() && not_senders.is_empty());
    }
}

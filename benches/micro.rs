//! Micro benchmarks of the pure hot paths: build and sign an event, render it, splice it, look state up, resolve states.
//!
//! Run with `cargo bench --bench micro`. These are times of single functions, not of requests: those are in
//! `benches/load`.

use std::sync::Arc;

use divan::{Bencher, black_box};
use ruma::{OwnedEventId, RoomVersionId, owned_room_id, owned_server_name, owned_user_id};
use sabha::{
    room::event::{StoredEvent, View},
    store::{EventNid, KeyNid, Position, RoomNid},
};
use sabha_federation::{
    EventDraft, EventPosition, Pdu, ServerSigner, build_and_sign, rules,
    standing::Standing,
    state_log::{StateHashKey, StateLog, checkpoint},
};
use serde_json::{json, value::to_raw_value};
// The paths at which the room in memory of the crate's tests expects them.
use sabha_federation::{auth, held, ids, model, pdu, room_version, sides, standing, state_log};

#[path = "micro/resolution.rs"]
mod resolution;
#[path = "../federation/src/test_ready.rs"]
mod test_ready;
#[expect(dead_code, reason = "only tests use all of it")]
#[path = "../federation/src/test_world.rs"]
mod test_world;

fn main() {
    divan::main();
}

fn draft() -> EventDraft {
    let content =
        json!({ "msgtype": "m.text", "body": "A message of ordinary length, as people send them all day long." });
    EventDraft {
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: to_raw_value(&content).expect("JSON"),
        redacts: None,
    }
}

fn event_ids(count: usize) -> Vec<OwnedEventId> {
    (0..count).map(|n| format!("${n:043}").parse().expect("an event ID")).collect()
}

fn built(signer: &ServerSigner) -> Pdu {
    let rules = rules(&RoomVersionId::V11).expect("version 11 is supported");
    let (room_id, sender) = (owned_room_id!("!room:example.org"), owned_user_id!("@alice:example.org"));
    let (prev, auth) = (event_ids(1), event_ids(3));
    let position = EventPosition {
        room_id: Some(&room_id),
        sender: &sender,
        prev_events: &prev,
        auth_events: &auth,
        depth: 42,
        origin_server_ts: 1_700_000_000_000,
    };
    build_and_sign(&rules, signer, draft(), position).expect("the event can be built")
}

fn stored(signer: &ServerSigner) -> StoredEvent {
    let pdu = Arc::new(built(signer));
    StoredEvent::new(EventNid(1), RoomNid(1), Standing::OUTLIER, 1, None, pdu, None, None)
}

fn signer() -> ServerSigner {
    ServerSigner::generate(owned_server_name!("example.org"))
}

fn state(keys: i64) -> StateLog {
    let mut log = StateLog::new(StateHashKey::new(&[7; 32]), Position(0));
    for key in 1..=keys {
        let change = log.change(KeyNid(key), Position(key), Some(EventNid(key)), None);
        log.apply(change);
    }
    log
}

#[divan::bench]
fn build_and_sign_a_message(bencher: Bencher<'_, '_>) {
    let signer = signer();
    bencher.bench_local(|| black_box(built(&signer)));
}

#[divan::bench]
fn render_an_event(bencher: Bencher<'_, '_>) {
    let signer = signer();
    bencher.with_inputs(|| (stored(&signer), Vec::with_capacity(2048))).bench_local_values(|(event, mut out)| {
        event.write(&mut out, View { now_ms: 1, ..View::default() });
        (event, out)
    });
}

#[divan::bench]
fn splice_1000_events(bencher: Bencher<'_, '_>) {
    let event = stored(&signer());
    event.write(&mut Vec::new(), View::default());
    bencher.bench_local(|| {
        let mut out = Vec::with_capacity(1 << 20);
        for _ in 0..1000 {
            event.write(&mut out, View { with_room_id: true, now_ms: 1, ..View::default() });
        }
        black_box(out.len())
    });
}

#[divan::bench(args = [100, 50_000])]
fn look_up_a_key(bencher: Bencher<'_, '_>, keys: i64) {
    let log = state(keys);
    bencher.bench_local(|| black_box(log.get(KeyNid(black_box(keys / 2)))));
}

#[divan::bench(args = [50_000])]
fn encode_a_checkpoint(bencher: Bencher<'_, '_>, keys: i64) {
    let log = state(keys);
    bencher.bench_local(|| black_box(checkpoint::encode(log.entries())));
}

#[divan::bench(args = [50_000])]
fn decode_a_checkpoint(bencher: Bencher<'_, '_>, keys: i64) {
    let blob = checkpoint::encode(state(keys).entries());
    bencher.bench_local(|| black_box(checkpoint::decode(&blob).map(|entries| entries.len())));
}

//! Random runs: destinations that are down, slow, refuse or flap, and crashes. Nothing is lost.

use std::time::Duration;

use rand::RngExt as _;

use super::{
    super::*,
    driver::{World, typing},
    peers::{Mode, Sent},
};
use crate::ids::{EventNid, RoomNid, UserNid};

const SERVERS: i64 = 6;

/// Small bounds, so that they are met.
const BOUNDS: Bounds = Bounds { queued: 60, edu_bytes: 500, body_bytes: 0 };

/// The number of seeds. More by `SABHA_SENDER_SEEDS`, and one alone by `SABHA_SEED`.
const SEEDS: u64 = 60;

fn destinations(world: &mut World) -> Vec<ServerNid> {
    (1..=SERVERS).map(ServerNid).filter(|_| world.rand.random_bool(0.6)).collect()
}

fn commit_something(world: &mut World) {
    let (pos, to) = (world.next_pos(), destinations(world));
    let tells = world.rand.random_bool(0.8);
    let work = match world.rand.random_range(0..10) {
        0 => vec![],
        1..=6 => {
            let event = Outgoing::Event { room: RoomNid(world.rand.random_range(1..=3)), event: EventNid(pos.0), to };
            // Now and then one is for a server that does not take it.
            let server = ServerNid(world.rand.random_range(1..=SERVERS));
            if world.rand.random_bool(0.05) {
                let status = [Some(400), Some(500), Some(413), None][world.rand.random_range(0..4)];
                world.peer(server).refuses.insert(Sent::Event(pos.0), status);
            }
            vec![event]
        }
        7 | 8 => vec![Outgoing::DeviceList { user: UserNid(world.rand.random_range(1..=3)), to }],
        _ => to.into_iter().map(|server| Outgoing::Item { server, seq: pos.0 }).collect(),
    };
    world.commit(work, tells);
}

fn do_something(world: &mut World) {
    let server = ServerNid(world.rand.random_range(1..=SERVERS));
    match world.rand.random_range(0..100) {
        0..60 => (0..world.rand.random_range(1..20)).for_each(|_| commit_something(world)),
        60..70 => world.tell(),
        70..80 => {
            let mode = Mode::drawn(&mut world.rand);
            world.peer(server).mode = mode;
        }
        80..85 => world.input(SenderInput::Contact(server)),
        85..93 => {
            let key = EduKey::Typing { room: RoomNid(1), user: UserNid(world.rand.random_range(1..=20)) };
            let to = destinations(world);
            world.input(SenderInput::Edu(EduOut { key, to, json: typing(1) }));
        }
        93 => world.input(SenderInput::Announce((1..=SERVERS).map(ServerNid).collect())),
        94..97 => {
            let away = [1, 60, 4_000][world.rand.random_range(0..3)];
            world.crash(Duration::from_secs(away));
        }
        _ => world.store_cursor(),
    }
    if world.rand.random_bool(0.3) {
        world.store_cursor();
    }
    let most_ms = [10, 300, 3_000, 30_000, 600_000][world.rand.random_range(0..5)];
    let pause = Duration::from_millis(world.rand.random_range(0..most_ms));
    world.pass(pause);
}

/// Returns the world after everything is well again.
fn run(seed: u64) -> World {
    let mut world = World::new(seed, SERVERS, BOUNDS);
    world.failing_reads = 0.03;
    for _ in 0..world.rand.random_range(1..150) {
        do_something(&mut world);
    }
    world.tell();
    world.failing_reads = 0.0;
    for server in (1..=SERVERS).map(ServerNid) {
        world.peer(server).mode = Mode::Up;
    }
    // The longest pause ends, and the destinations have the time to be asked part by part.
    world.pass_until_quiet(Duration::from_secs(30 * 3_600));
    world.store_cursor();
    world.check_all_delivered();
    world
}

#[test]
fn nothing_is_lost_and_the_order_is_kept_whatever_happens() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds = number("SABHA_SENDER_SEEDS").unwrap_or(SEEDS);
    let seeds = number("SABHA_SEED").map_or(0..seeds, |seed| seed..seed + 1);
    let is_whole = seeds.end - seeds.start >= SEEDS;
    let (mut skipped, mut by_room, mut replayed, mut aborted) = (0, 0, 0, 0);
    for seed in seeds {
        eprintln!("SABHA_SEED={seed}");
        let world = run(seed);
        skipped += world.skipped;
        by_room += world.read_by_room;
        replayed += world.replayed;
        aborted += world.aborted;
    }
    // Each way was taken.
    eprintln!("{skipped} skipped, {by_room} pages by room, {replayed} of the log, {aborted} aborted");
    assert!(!is_whole || (skipped > 0 && by_room > 0 && replayed > 0 && aborted > 0));
}

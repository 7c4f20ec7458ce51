//! Random rooms: each event has the same state before it and the same rejection in whatever order the events come.

use proptest::prelude::*;

use super::*;

/// An event to be sent: by whom, what, and on which of the events before it.
#[derive(Clone, Debug)]
struct Step {
    sender: usize,
    content: usize,
    prev: Vec<prop::sample::Index>,
    /// Set if the event names the auth events of the room's beginning instead of those of its own state.
    old_auth: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let prev = prop::collection::vec(any::<prop::sample::Index>(), 1..3);
    (0..3_usize, 0..8_usize, prev, prop::bool::weighted(0.2)).prop_map(|(sender, content, prev, old_auth)| Step {
        sender,
        content,
        prev,
        old_auth,
    })
}

fn content(version: &RoomVersionId, number: usize, step: usize) -> Content {
    let rule = if step.is_multiple_of(2) { "public" } else { "invite" };
    match number {
        0 | 1 => message(&step.to_string()),
        2 => topic(&step.to_string()),
        3 => member(carol(), if step.is_multiple_of(2) { "ban" } else { "leave" }),
        4 => member(carol(), "join"),
        5 => member(bob(), if step.is_multiple_of(2) { "leave" } else { "join" }),
        6 => {
            let bobs = if step.is_multiple_of(2) { 0 } else { 100 };
            let listed = json!({ alice(): 100, bob(): bobs });
            let users = if *version == RoomVersionId::V12 { json!({ bob(): bobs }) } else { listed };
            ("m.room.power_levels", Some(String::new()), json!({ "users": users, "events": { "m.room.topic": 0 } }))
        }
        _ => ("m.room.join_rules", Some(String::new()), json!({ "join_rule": rule })),
    }
}

/// Builds the events on a server that gets them in the order of the steps.
fn make(version: &RoomVersionId, steps: &[Step]) -> (Server, Vec<Arc<Pdu>>) {
    let mut server = Server::with_room(version);
    let start = server.tips();
    let mut sent = start.clone();
    let mut events = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let mut prev: Vec<_> = step.prev.iter().map(|index| index.get(&sent).clone()).collect();
        prev.dedup();
        let sender = [alice(), bob(), carol()][step.sender];
        let content = content(version, step.content, number);
        let mut made = server.made_on(&prev, sender, &content);
        if step.old_auth {
            made.auth = server.made_on(&start, sender, &content).auth;
        }
        let event = made.build(&server.rules, &server.room_id);
        // An event that comes twice is one.
        if sent.contains(&event.event_id) {
            continue;
        }
        server.push(&event);
        sent.push(event.event_id.clone());
        events.push(Arc::new(event));
    }
    (server, events)
}

/// Gives the events to another server in an order in which each comes after its previous and auth events.
fn take_shuffled(copy: &mut Server, mut events: Vec<Arc<Pdu>>, order: &[prop::sample::Index]) {
    let mut order = order.iter().cycle();
    while !events.is_empty() {
        let ready = |event: &Pdu| {
            let mut named = event.prev_events.iter().chain(&event.auth_events);
            named.all(|id| events.iter().all(|other| other.event_id != *id))
        };
        let may: Vec<usize> = (0..events.len()).filter(|index| ready(&events[*index])).collect();
        let event = events.remove(*order.next().unwrap().get(&may));
        copy.push(&event);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_state_before_an_event_and_its_rejection_do_not_depend_on_the_order_of_arrival(
        steps in prop::collection::vec(step(), 1..16),
        order in prop::collection::vec(any::<prop::sample::Index>(), 16),
        version in prop::sample::select(versions().to_vec()),
    ) {
        let (server, events) = make(&version, &steps);
        let mut copy = Server::with_room(&version);
        take_shuffled(&mut copy, events.clone(), &order);
        for event in &events {
            let (ours, theirs) = (server.event(&event.event_id), copy.event(&event.event_id));
            prop_assert_eq!(ours.pdu.rejected, theirs.pdu.rejected, "{:?}", event);
            prop_assert_eq!(server.named(&ours.before), copy.named(&theirs.before), "{:?}", event);
        }
        for server in [&server, &copy] {
            let (mut tips, expected) = (server.tips(), server.open_ends());
            tips.sort();
            prop_assert_eq!(tips, expected);
        }
    }
}

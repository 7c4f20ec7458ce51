//! Tests of the limits of one answer, with small numbers in place of the real ones.

use ruma::RoomVersionId;
use serde_json::{Value, json, value::to_raw_value};

use super::{budget::Budget, *};
use crate::{
    account_data::ACCOUNT,
    limits::parked_syncs::MAX_FOR_DEVICE,
    room::{
        Room,
        tests::{Server, hold_commits_at, message, new_room, server},
        write::{
            create::{InitialState, Preset},
            profile::MemberProfile,
        },
    },
    store::committer::CommitStep,
    sync::token::MAX_HINTED_ROOMS,
};

/// A budget that no test uses up.
const PLENTY: usize = 1 << 30;

fn request(since: Option<SyncToken>, hints: Hints) -> Request {
    Request {
        filter: Arc::default(),
        since,
        hints,
        full_state: false,
        state_after: false,
        state_after_unstable: false,
        set_presence: PresenceState::Offline,
        timeout: Duration::ZERO,
    }
}

/// The next request of a client that has this answer.
fn next_request(answer: &Value) -> Request {
    let token = answer["next_batch"].as_str().expect("a token");
    request(Some(token.parse().expect("one of ours")), Hints::of(token).expect("we wrote them"))
}

async fn answer_within(
    server: &Server,
    caller: &LocalDevice,
    request: &Request,
    budgets: (usize, usize),
) -> Result<(Value, bool), SyncError> {
    answer_upto(server.app.db.committer().published(), server, caller, request, budgets).await
}

async fn answer_upto(
    upto: Position,
    server: &Server,
    caller: &LocalDevice,
    request: &Request,
    (timelines, states): (usize, usize),
) -> Result<(Value, bool), SyncError> {
    let app = &server.app;
    let live = app.bus.live(caller.user.nid, app.db.committer().published(), 0);
    watch(app, &live).await?;
    let look = Look {
        app,
        caller,
        request,
        since: request.since,
        upto,
        term: app.db.term(),
        ephemeral: app.bus.ephemeral(),
        now_ms: 0,
        ignored: OnceCell::new(),
        budgets: Budgets { timelines: Budget::new(timelines), states: Budget::new(states), ..Budgets::default() },
        live: &live,
    };
    let (bytes, has_news) = answer(&look, Instant::now()).await?;
    Ok((serde_json::from_slice(&bytes).expect("it is JSON"), has_news))
}

/// Creates a room with this many additional state events, and then messages, of this many bytes each.
async fn room_of(server: &Server, owner: &LocalDevice, state: (usize, usize), messages: (usize, usize)) -> Arc<Room> {
    let mut new = new_room(RoomVersionId::V11, Preset::Private);
    new.initial_state.extend((0..state.0).map(|key| InitialState {
        event_type: "com.example.state".to_owned(),
        state_key: key.to_string(),
        content: json!({ "x": "y".repeat(state.1) }),
    }));
    let room_id = server.app.rooms.create(owner, new).await.expect("created");
    for n in 0..messages.0 {
        let body = format!("{n}{}", "y".repeat(messages.1));
        server.app.rooms.send(owner, &room_id, message(&body), None).await.expect("sent");
    }
    server.app.rooms.find(&room_id).await.expect("read").expect("it was created")
}

fn joined<'a>(answer: &'a Value, room: &Room) -> &'a Value {
    &answer["rooms"]["join"][room.room_id.as_str()]
}

fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map_or(&[], Vec::as_slice)
}

#[tokio::test]
async fn once_the_part_of_timelines_is_spent_each_has_its_newest_event_and_a_gap() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..4 {
        rooms.push(room_of(&server, &alice, (0, 0), (5, 2_000)).await);
    }
    let (answer, _) =
        answer_within(&server, &alice, &request(None, Hints::default()), (22_000, PLENTY)).await.expect("answered");
    let mut counts = Vec::new();
    for room in &rooms {
        let timeline = &joined(&answer, room)["timeline"];
        let newest = events(timeline).last().expect("the newest event is told");
        assert!(newest["content"]["body"].as_str().is_some_and(|body| body.starts_with('4')), "{newest}");
        assert_eq!(timeline["limited"], true, "{timeline}");
        let is_told = |part: &str| events(&joined(&answer, room)[part]).iter().any(|e| e["type"] == "m.room.name");
        assert!(is_told("timeline") || is_told("state"), "what the timeline leaves out of the state is told before it");
        counts.push(events(timeline).len());
    }
    assert_eq!(counts[0], 10, "{counts:?}");
    assert!(counts[1] < 5, "{counts:?}");
    assert_eq!(counts[2..], [1, 1]);
}

#[tokio::test]
async fn rooms_whose_state_does_not_fit_are_told_whole_by_the_next_answers() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        // The messages are the whole timeline, so all of the state is sent before it.
        rooms.push(room_of(&server, &alice, (20, 1_000), (10, 0)).await);
    }
    let one_room = (PLENTY, 60_000);
    let mut asks = request(None, Hints::default());
    for (told, room) in rooms.iter().enumerate() {
        let (answer, has_news) = answer_within(&server, &alice, &asks, one_room).await.expect("answered");
        assert!(has_news);
        assert_eq!(answer["rooms"]["join"].as_object().map(serde_json::Map::len), Some(1), "{answer}");
        let state = events(&joined(&answer, room)["state"]);
        assert_eq!(state.iter().filter(|event| event["type"] == "com.example.state").count(), 20);
        assert!(state.iter().any(|event| event["type"] == "m.room.create"));
        asks = next_request(&answer);
        let left = rooms[told + 1..].iter().map(|room| room.nid).collect();
        assert_eq!(asks.hints.left_out, left);
    }
    let (quiet, has_news) = answer_within(&server, &alice, &asks, one_room).await.expect("answered");
    assert!(!has_news && quiet.get("rooms").is_none(), "{quiet}");
}

/// The room is treated like a damaged one: other rooms are sent, and nothing is sent repeatedly because of it.
#[tokio::test]
async fn a_room_that_no_answer_can_tell_keeps_nothing_else_back() {
    let server = server().await;
    let alice = server.register("alice").await;
    let hostile = room_of(&server, &alice, (60, 1_000), (10, 0)).await;
    let honest = room_of(&server, &alice, (0, 0), (1, 0)).await;
    let within = (PLENTY, 60_000);
    let asks = request(None, Hints::default());
    let (answer, _) = answer_within(&server, &alice, &asks, within).await.expect("answered");
    assert!(joined(&answer, &hostile).is_null() && !joined(&answer, &honest).is_null(), "{answer}");
    let asks = next_request(&answer);
    let (quiet, has_news) = answer_within(&server, &alice, &asks, within).await.expect("answered");
    assert!(!has_news && quiet.get("rooms").is_none(), "{quiet}");
    server.app.rooms.send(&alice, &honest.room_id, message("hello"), None).await.expect("sent");
    let (answer, _) = answer_within(&server, &alice, &next_request(&quiet), within).await.expect("answered");
    assert_eq!(events(&joined(&answer, &honest)["timeline"]).len(), 1, "{answer}");
    let (answer, _) = answer_within(&server, &alice, &next_request(&answer), (PLENTY, PLENTY)).await.expect("answered");
    assert!(!joined(&answer, &hostile).is_null(), "it is told as soon as it fits: {answer}");
}

#[tokio::test]
async fn more_rooms_than_a_token_can_name_are_not_left_for_the_next_answer() {
    let server = server().await;
    let alice = server.register("alice").await;
    for _ in 0..=MAX_HINTED_ROOMS {
        let new = new_room(RoomVersionId::V11, Preset::Private);
        server.app.rooms.create(&alice, new).await.expect("created");
    }
    let answer = answer_within(&server, &alice, &request(None, Hints::default()), (0, 0)).await;
    assert!(matches!(answer, Err(SyncError::TooMuchState)), "{answer:?}");
}

#[tokio::test]
async fn a_client_without_news_waits_for_no_turn_however_old_its_token_is() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (_, since) = server.sync(&alice, None).await;
    for _ in 0..11 {
        room_of(&server, &bob, (200, 0), (0, 0)).await;
    }
    let large = &server.app.large_answers;
    let _turns = [large.turn(alice.user.nid).await.expect("free"), large.turn(alice.user.nid).await.expect("free")];
    let (answer, next) = server.sync(&alice, Some(since)).await;
    assert!(next.position.0 - since.position.0 > FAR_BEHIND, "a look has moved the token: {next:?}");
    assert!(answer.get("rooms").is_none(), "{answer}");
}

#[tokio::test]
async fn the_token_of_a_sync_that_gives_way_moves_on_too() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (_, since) = server.sync(&alice, None).await;
    let waiting = Request { timeout: Duration::from_secs(60), ..request(Some(since), Hints::default()) };
    let displace = async {
        for _ in 0..11 {
            room_of(&server, &bob, (200, 0), (0, 0)).await;
        }
        tokio::time::pause();
        let app = &server.app;
        (0..MAX_FOR_DEVICE).map(|_| app.parked_syncs.park(&alice, &waiting.filter)).collect::<Vec<_>>()
    };
    let (answer, _places) = tokio::join!(sync(&server.app, &alice, &waiting), displace);
    let answer: Value = serde_json::from_slice(&answer.expect("answered")).expect("JSON");
    let next = next_request(&answer).since.expect("a token");
    assert!(next.position.0 - since.position.0 > FAR_BEHIND, "{answer}");
}

/// Only the hint makes a later start of the server tell the client that nobody types any more.
#[tokio::test]
async fn a_departure_after_the_answer_does_not_make_its_token_forget_who_types() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room_of(&server, &alice, (0, 0), (0, 0)).await;
    server.app.ephemeral.set_typing(room.nid, &bob.user, Some(Duration::from_secs(60)));
    let within = (PLENTY, PLENTY);
    let (told, _) = answer_within(&server, &alice, &request(None, Hints::default()), within).await.expect("answered");
    let asks = next_request(&told);
    assert_eq!(asks.hints.typing, [room.nid].into(), "{told}");
    let before = server.app.db.committer().published();
    server.app.rooms.leave(&alice, &room.room_id, None).await.expect("left");
    let (answer, _) = answer_upto(before, &server, &alice, &asks, within).await.expect("answered");
    assert_eq!(next_request(&answer).hints.typing, [room.nid].into(), "the client still shows it: {answer}");
    let (answer, _) = answer_within(&server, &alice, &next_request(&answer), within).await.expect("answered");
    assert!(!answer["rooms"]["leave"][room.room_id.as_str()].is_null(), "{answer}");
    assert_eq!(next_request(&answer).hints, Hints::default(), "{answer}");
}

/// If the user is in again by the next answer, that one tells nothing of them.
#[tokio::test]
async fn keys_that_changed_before_a_departure_are_told_though_it_is_in_memory_already() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let public = new_room(RoomVersionId::V11, Preset::Public);
    let room_id = server.app.rooms.create(&alice, public).await.expect("created");
    server.app.rooms.join(&bob, &room_id, None).await.expect("joined");
    let within = (PLENTY, PLENTY);
    for leaver in [&bob, &alice] {
        let (first, _) =
            answer_within(&server, &alice, &request(None, Hints::default()), within).await.expect("answered");
        let device_id = bob.device_id.as_ref().expect("it has signed in");
        let renamed = server.app.accounts.rename_device(bob.user.nid, device_id, Some("new".to_owned())).await;
        assert!(matches!(renamed, Ok(Ok(true))), "{renamed:?}");
        let upto = server.app.db.committer().published();
        server.app.rooms.leave(leaver, &room_id, None).await.expect("left");
        let (answer, _) = answer_upto(upto, &server, &alice, &next_request(&first), within).await.expect("answered");
        assert_eq!(answer["device_lists"]["changed"], json!([bob.user_id()]), "{answer}");
        let (answer, _) = answer_within(&server, &alice, &next_request(&answer), within).await.expect("answered");
        assert_eq!(answer["device_lists"]["changed"], json!([]), "{answer}");
        server.app.rooms.join(leaver, &room_id, None).await.expect("joined");
    }
}

/// The client takes the user for joined, and for the next answer the user was in no room before the invitation.
#[tokio::test]
async fn an_invitation_that_is_not_told_does_not_hide_the_departure_before_it() {
    for is_ignored in [false, true] {
        let server = server().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let rooms = &server.app.rooms;
        let room_id = rooms.create(&bob, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
        rooms.join(&alice, &room_id, None).await.expect("joined");
        let within = (PLENTY, PLENTY);
        let (first, _) =
            answer_within(&server, &alice, &request(None, Hints::default()), within).await.expect("answered");
        let asks = next_request(&first);
        rooms.kick(&bob, &room_id, alice.user_id(), None).await.expect("kicked");
        rooms.invite(&bob, &room_id, alice.user_id(), &MemberProfile::default(), None).await.expect("invited");
        let answer = if is_ignored {
            let list = to_raw_value(&json!({ "ignored_users": { bob.user_id().as_str(): {} } })).expect("JSON");
            let data = &server.app.account_data;
            data.put(alice.user.nid, ACCOUNT, "m.ignored_user_list", list).await.expect("stored");
            answer_within(&server, &alice, &asks, within).await.expect("answered").0
        } else {
            // The rejection is stored, and memory does not know it yet.
            let (gate, stored) = hold_commits_at(&server, CommitStep::Stored);
            let reject = async { rooms.leave(&alice, &room_id, None).await.expect("left") };
            let look = async {
                stored.notified().await;
                let (answer, _) = answer_within(&server, &alice, &asks, within).await.expect("answered");
                gate.add_permits(100);
                answer
            };
            tokio::join!(reject, look).1
        };
        let left = &answer["rooms"]["leave"][room_id.as_str()];
        let told = events(&left["timeline"]).iter().map(|event| event["content"]["membership"].as_str());
        assert_eq!(told.collect::<Vec<_>>(), [Some("leave")], "{is_ignored}: {answer}");
        assert!(answer["rooms"].get("invite").is_none(), "{is_ignored}: {answer}");
    }
}

//! Sessions: whose they are, when a flow is passed, and how many there may be.

use super::*;

const ALICE: Option<UserNid> = Some(UserNid(1));
const BOB: Option<UserNid> = Some(UserNid(2));
const TWO_STAGES: &[Flow] = &[&[Stage::RegistrationToken, Stage::Dummy]];
const EITHER: &[Flow] = &[&[Stage::Password], &[Stage::RegistrationToken, Stage::Dummy]];

fn auth() -> InteractiveAuth {
    InteractiveAuth::new(Duration::from_millis(1000))
}

#[test]
fn a_session_counts_for_its_owner_its_operation_and_its_lifetime() {
    let check = |owner, operation, now, expected| {
        let auth = auth();
        let session = auth.begin(ALICE, None, "delete A", 5000);
        assert_eq!(auth.is_open(&session, owner, operation, now), expected, "{owner:?} {operation} {now}");
    };
    check(ALICE, "delete A", 5000, true);
    check(ALICE, "delete A", 5999, true);
    check(ALICE, "delete A", 6000, false);
    check(ALICE, "delete B", 5000, false);
    check(BOB, "delete A", 5000, false);
    check(None, "delete A", 5000, false);
    assert!(!auth().is_open("made up", ALICE, "delete A", 5000));
}

#[test]
fn a_flow_is_passed_when_all_its_stages_are_and_only_once() {
    let check = |flows: &[Flow], stages: &[Stage], expected: bool| {
        let auth = auth();
        let session = auth.begin(None, None, "register", 0);
        let mut last = Progress::Open;
        for stage in stages {
            last = auth.pass(&session, *stage, None, flows);
        }
        assert_eq!(last != Progress::Open, expected, "{flows:?} {stages:?}");
        if expected {
            assert!(!auth.is_open(&session, None, "register", 0), "the session is used up");
            assert_eq!(auth.look(&session, flows), Progress::Open);
        }
    };
    check(TWO_STAGES, &[Stage::RegistrationToken], false);
    check(TWO_STAGES, &[Stage::Dummy], false);
    check(TWO_STAGES, &[Stage::Dummy, Stage::Dummy], false);
    check(TWO_STAGES, &[Stage::RegistrationToken, Stage::Dummy], true);
    check(TWO_STAGES, &[Stage::Dummy, Stage::RegistrationToken], true);
    check(EITHER, &[Stage::Password], true);
    check(EITHER, &[Stage::Dummy], false);
    check(&[], &[Stage::Dummy], false);
    check(&[&[]], &[Stage::Dummy], false);
}

#[test]
fn the_registration_token_is_remembered_until_the_last_stage() {
    let auth = auth();
    let session = auth.begin(None, None, "register", 0);
    assert_eq!(auth.pass(&session, Stage::RegistrationToken, Some("abc".to_owned()), TWO_STAGES), Progress::Open);
    assert_eq!(auth.completed(&session), [Stage::RegistrationToken]);
    let passed = Passed { registration_token: Some("abc".to_owned()) };
    assert_eq!(auth.pass(&session, Stage::Dummy, None, TWO_STAGES), Progress::Passed(passed));
}

fn network(number: u32) -> Option<IpAddr> {
    Some(IpAddr::from(number.to_be_bytes()))
}

#[test]
fn sessions_are_bounded_and_users_do_not_lose_theirs_to_strangers() {
    let auth = auth();
    let of_alice = auth.begin(ALICE, None, "delete A", 0);
    let first = auth.begin(None, network(0), "register", 0);
    for number in 1..=u32::try_from(MAX_SESSIONS).expect("a small number") {
        auth.begin(None, network(number), "register", 1);
    }
    assert!(!auth.is_open(&first, None, "register", 1));
    assert!(auth.is_open(&of_alice, ALICE, "delete A", 1));
    let pools = lock(&auth.pools);
    assert!(pools[0].sessions.len() <= MAX_SESSIONS && pools[0].held.len() <= MAX_SESSIONS);
}

#[test]
fn whoever_begins_many_sessions_loses_their_own() {
    let auth = auth();
    let of_alice = auth.begin(ALICE, None, "delete A", 0);
    let stranger = auth.begin(None, network(1), "register", 0);
    let of_bob: Vec<_> = (0..3 * MAX_SESSIONS).map(|_| auth.begin(BOB, None, "delete A", 0)).collect();
    for _ in 0..3 * MAX_SESSIONS {
        auth.begin(None, network(2), "register", 0);
    }
    assert!(auth.is_open(&of_alice, ALICE, "delete A", 1));
    assert!(auth.is_open(&stranger, None, "register", 1));
    let open = of_bob.iter().filter(|name| auth.is_open(name, BOB, "delete A", 1));
    assert_eq!(open.collect::<Vec<_>>(), of_bob.iter().skip(of_bob.len() - MAX_PER_USER).collect::<Vec<_>>());
    let pools = lock(&auth.pools);
    assert_eq!(
        pools.iter().map(|pool| pool.sessions.len()).collect::<Vec<_>>(),
        [1 + MAX_PER_NETWORK, 1 + MAX_PER_USER]
    );
    assert!(pools.iter().all(|pool| pool.order.len() <= 2 * MAX_SESSIONS));
}

#[test]
fn the_name_of_an_operation_is_not_kept() {
    let auth = auth();
    let long = "delete ".to_owned() + &"A".repeat(1 << 20);
    let session = auth.begin(ALICE, None, &long, 0);
    assert!(auth.is_open(&session, ALICE, &long, 1));
    assert!(!auth.is_open(&session, ALICE, &(long + "A"), 1));
    assert!(size_of::<Session>() < 256, "nothing in it grows with the request");
}

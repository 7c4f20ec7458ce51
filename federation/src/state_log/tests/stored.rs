//! The stored forms: rows and checkpoints that do not fit, hashes and codes.

use super::*;

#[test]
fn rows_that_do_not_fit_are_corruption() {
    let row = |key, pos, event: Option<i64>, prev: Option<i64>| LogRow {
        key: KeyNid(key),
        pos: Position(pos),
        event_nid: event.map(EventNid),
        membership: None,
        prev_event_nid: prev.map(EventNid),
    };
    let check = |rows: &[LogRow], expected: LoadError| {
        assert_eq!(StateLog::new(secret(), START).replay(rows.iter().copied()).err(), Some(expected), "{rows:?}");
    };
    let differs = |pos| LoadError::PrevEventDiffers { key: KeyNid(1), pos: Position(pos) };
    let out_of_order = |pos| LoadError::OutOfOrder { key: KeyNid(1), pos: Position(pos) };

    check(&[row(1, 11, Some(5), Some(4))], differs(11));
    check(&[row(1, 11, Some(5), None), row(1, 12, Some(6), None)], differs(12));
    check(&[row(1, 11, Some(5), None), row(1, 12, None, Some(4))], differs(12));
    check(&[row(1, 10, Some(5), None)], out_of_order(10));
    check(&[row(2, 12, Some(5), None), row(1, 11, Some(6), None)], out_of_order(11));
    check(&[row(1, 11, Some(5), None), row(1, 11, Some(6), Some(5))], out_of_order(11));
}

#[test]
fn a_checkpoint_that_does_not_fit_is_corruption() {
    let entry = |key, pos| (KeyNid(key), StateEntry { event_nid: EventNid(7), pos: Position(pos), membership: None });
    let check = |entries: Vec<(KeyNid, StateEntry)>, hash, expected| {
        let checkpoint = Checkpoint { pos: Position(20), hash, entries };
        assert_eq!(StateLog::from_checkpoint(secret(), checkpoint, []).err(), expected);
    };
    let good = vec![entry(1, 20), entry(2, 3)];
    let hash = StateHash::of(&secret(), &good);
    check(good.clone(), hash, None);
    check(good[..1].to_vec(), hash, Some(LoadError::HashDiffers));
    check(vec![], hash, Some(LoadError::HashDiffers));
    check(vec![entry(2, 3), entry(1, 20)], hash, Some(LoadError::BadEntry(KeyNid(1))));
    check(vec![entry(1, 20), entry(1, 20)], hash, Some(LoadError::BadEntry(KeyNid(1))));
    check(vec![entry(1, 21), entry(2, 3)], hash, Some(LoadError::BadEntry(KeyNid(1))));
}

#[test]
fn the_state_hash_survives_storage_and_does_not_change_under_it() {
    let hash = joins(3).log.hash();
    assert_eq!(StateHash::from_bytes(hash.to_bytes()), hash);
    assert_eq!(StateHash::EMPTY.to_bytes(), [0; 16]);
    let one = [(KeyNid(1), StateEntry { event_nid: EventNid(2), pos: START, membership: None })];
    // printf '\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2' | openssl sha256 -mac hmac -macopt hexkey:0707… (32 bytes)
    assert_eq!(
        format!("{:032x}", u128::from_be_bytes(StateHash::of(&secret(), &one).to_bytes())),
        "6b7a54cdb3dba774b6183bf02c4ab3f3"
    );
}

#[test]
fn the_hash_of_a_state_depends_on_the_secret_of_the_database() {
    let entries = joins(3).log.entries().to_vec();
    let other = StateHashKey::new(&[8; 32]);
    assert_ne!(StateHash::of(&secret(), &entries), StateHash::of(&other, &entries));
    assert!(!format!("{other:?}").contains('8'), "a secret is in no log");
}

#[test]
fn membership_codes_are_read_back_and_zero_is_none() {
    for code in 0..=u8::MAX {
        let known = Membership::from_code(code);
        assert_eq!(known.map(Membership::code), (1..=5).contains(&code).then_some(code));
    }
}

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{EventNid, KeyNid},
    state_log::{
        Membership,
        blob::tests::{EVERY_MEMBERSHIP, check_damage, check_flipped, check_sealed, sealed},
    },
};

fn held(event_nid: i64, membership: Option<Membership>) -> Held {
    Held { event_nid: EventNid(event_nid), membership }
}

/// A delta with each membership, and with absent keys between them.
fn small_delta() -> StateDelta {
    let present = EVERY_MEMBERSHIP
        .into_iter()
        .zip(1_i64..)
        .map(|(membership, key)| (KeyNid(key * key * 40), Some(held(1000 - key * 300, membership))));
    present.chain([3, 50, 2_000].map(|key| (KeyNid(key), None))).collect()
}

prop_compose! {
    /// Any delta: mostly numbers that lie close together, sometimes ones from the whole range.
    fn any_delta()(
        rows in prop::collection::btree_map(
            prop_oneof![0..500_i64, any::<i64>()],
            prop::option::weighted(0.7, (prop_oneof![0..5000_i64, any::<i64>()], 0..6_usize)),
            0..40,
        )
    ) -> StateDelta {
        rows.into_iter()
            .map(|(key, value)| (KeyNid(key), value.map(|(event, membership)| held(event, EVERY_MEMBERSHIP[membership]))))
            .collect()
    }
}

proptest! {
    #[test]
    fn a_decoded_delta_is_the_encoded_one(delta in any_delta()) {
        prop_assert_eq!(decode(&encode(&delta)), Ok(delta));
    }

    #[test]
    fn sealed_content_is_either_refused_or_the_only_blob_of_its_delta(
        delta in any_delta(),
        at in any::<usize>(),
        flip in 1..=u8::MAX,
    ) {
        check_flipped(&encode(&delta), (at, flip), decode, encode);
    }

    #[test]
    fn sealed_noise_is_either_refused_or_the_only_blob_of_its_delta(
        noise in prop::collection::vec(prop_oneof![0..8_u8, Just(ABSENT), any::<u8>()], 0..40),
    ) {
        check_sealed(&[&[VERSION], noise.as_slice()].concat(), decode, encode);
    }
}

#[test]
fn damaged_and_cut_blobs_are_errors() {
    check_damage(&encode(&small_delta()), decode);
}

#[test]
fn content_that_encode_never_writes_is_refused() {
    let check = |content: &[u8], expected| assert_eq!(decode(&sealed(content)), Err(expected), "{content:?}");
    let too_many = CodecError::Corrupt("it names more entries than it has room for");
    let too_short = CodecError::Corrupt("it ends too early");

    check(&[2, 0], CodecError::UnknownVersion(2));
    check(&[1], too_short);
    check(&[1, 1, 2], too_many);
    // Memory must not be allocated for 2⁶³ entries.
    check(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], too_many);
    // An entry whose event is missing, an unknown membership, and an absent key with an event.
    check(&[1, 1, 2, 1], too_short);
    check(&[1, 1, 2, 6, 2], CodecError::Corrupt("a membership is unknown"));
    check(&[1, 1, 2, 0xff, 2], CodecError::Corrupt("it has bytes after its last entry"));
    // A first key of i64::MAX has none after it.
    let last_key = [1, 2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0xff, 0, 0xff];
    check(&last_key, CodecError::Corrupt("a key is out of range"));
}

#[test]
fn the_format_does_not_change_under_stored_blobs() {
    let entries = [(3, Some(held(100, None))), (4, None), (6, Some(held(99, Some(Membership::Ban))))];
    let delta = entries.into_iter().map(|(key, held)| (KeyNid(key), held)).collect();
    let content = [1, 3, 6, 0, 0xc8, 1, 0, 0xff, 1, 4, 1];
    assert_eq!(encode(&delta), sealed(&content));
    assert_eq!(encode(&StateDelta::default()), sealed(&[1, 0]));
}

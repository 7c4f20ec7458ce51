use proptest::prelude::*;

use super::*;
use crate::{
    ids::EventNid,
    state_log::{
        Membership,
        blob::{
            CHECKSUM_BYTES,
            tests::{EVERY_MEMBERSHIP, check_damage, check_flipped, check_sealed, sealed},
        },
    },
    varint::checksum,
};

fn entry(key: i64, event_nid: i64, pos: i64, membership: Option<Membership>) -> (KeyNid, StateEntry) {
    (KeyNid(key), StateEntry { event_nid: EventNid(event_nid), pos: Position(pos), membership })
}

fn small_state() -> Vec<(KeyNid, StateEntry)> {
    EVERY_MEMBERSHIP
        .into_iter()
        .zip(1..)
        .map(|(membership, key)| entry(key * key * 40, 1000 + key, 5000 - key * 700, membership))
        .collect()
}

prop_compose! {
    /// Any state: mostly numbers that lie close together, sometimes ones from the whole range.
    fn any_state()(
        rows in prop::collection::btree_map(
            prop_oneof![0..500_i64, any::<i64>()],
            (prop_oneof![0..5000_i64, any::<i64>()], prop_oneof![0..5000_i64, any::<i64>()], 0..6_usize),
            0..60,
        )
    ) -> Vec<(KeyNid, StateEntry)> {
        rows.into_iter()
            .map(|(key, (event_nid, pos, membership))| entry(key, event_nid, pos, EVERY_MEMBERSHIP[membership]))
            .collect()
    }
}

proptest! {
    #[test]
    fn a_decoded_checkpoint_is_the_encoded_state(state in any_state()) {
        prop_assert_eq!(decode(&encode(&state)), Ok(state));
    }

    #[test]
    fn a_changed_byte_is_an_error(state in any_state(), at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
        let mut blob = encode(&state);
        let at = at.index(blob.len());
        blob[at] ^= flip;
        prop_assert!(decode(&blob).is_err());
    }

    #[test]
    fn sealed_content_is_either_refused_or_the_only_blob_of_its_state(
        state in any_state(),
        at in any::<usize>(),
        flip in 1..=u8::MAX,
    ) {
        check_flipped(&encode(&state), (at, flip), decode, |state| encode(state));
    }

    #[test]
    fn sealed_noise_is_either_refused_or_the_only_blob_of_its_state(
        noise in prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..40),
    ) {
        check_sealed(&[&[VERSION], noise.as_slice()].concat(), decode, |state| encode(state));
    }
}

#[test]
fn damaged_and_cut_blobs_are_errors() {
    check_damage(&encode(&small_state()), decode);
}

#[test]
fn content_that_encode_never_writes_is_refused() {
    let check = |content: &[u8], expected| assert_eq!(decode(&sealed(content)), Err(expected), "{content:?}");
    let too_many = CodecError::Corrupt("it names more entries than it has room for");
    let bad_number = CodecError::Corrupt("a number is not well formed");
    let too_short = CodecError::Corrupt("it ends too early");

    check(&[], CodecError::UnknownVersion(checksum::<CHECKSUM_BYTES>(&[])[0]));
    check(&[2, 0], CodecError::UnknownVersion(2));
    check(&[1], too_short);
    check(&[1, 1], too_many);
    check(&[1, 1, 0, 0, 0], too_many);
    // Memory must not be allocated for 2⁶³ entries.
    check(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], too_many);
    // 2⁶⁴, eleven bytes, and zero in two bytes.
    check(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], bad_number);
    check(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], bad_number);
    check(&[1, 0x80, 0], bad_number);
    check(&[1, 1, 0x82, 1, 1, 1], too_short);
    check(&[1, 1, 2, 2, 2, 6], CodecError::Corrupt("a membership is unknown"));
    check(&[1, 0, 0], CodecError::Corrupt("it has bytes after its last entry"));
    // A first key of i64::MAX has none after it.
    let last_key = [1, 2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 2, 0, 0, 2, 2, 0];
    check(&last_key, CodecError::Corrupt("a key is out of range"));
}

#[test]
#[should_panic(expected = "each key once, in order")]
fn a_state_out_of_order_is_not_encoded() {
    encode(&[entry(2, 1, 1, None), entry(1, 2, 2, None)]);
}

#[test]
fn the_format_does_not_change_under_stored_blobs() {
    let blob = encode(&[entry(3, 100, 7, None), entry(5, 101, 6, Some(Membership::Ban))]);
    let content = [1, 2, 6, 0xc8, 1, 14, 0, 1, 2, 1, 4];
    assert_eq!(blob, sealed(&content));
}

#[test]
fn fifty_thousand_members_take_few_bytes_each() {
    let state: Vec<_> =
        (0..50_000).map(|n| entry(1000 + n * 3, 70_000 + n * 40, 90_000 + n * 41, Some(Membership::Join))).collect();
    let blob = encode(&state);
    assert!(blob.len() < 50_000 * 6, "{} bytes", blob.len());
    assert_eq!(decode(&blob), Ok(state));
}

mod cursors;
mod pages;

use proptest::prelude::*;
use sabha_federation::varint::checksum;

use super::{
    decode::{HEAD_BYTES, Head, head},
    encode::{CHECKSUM_BYTES, PLAIN_FLAGS},
    *,
};
use crate::store::{DeviceNid, EventNid, KeyNid, RoomNid, ServerNid, UserNid};

/// The number of kinds that [`touch`] makes.
const KINDS: u8 = 27;

/// A touch of one kind, made of some numbers.
fn touch(kind: u8, numbers: [i64; 3], small: u32, code: u8, flag: bool) -> Touch {
    let [first, second, third] = numbers;
    let (room, event, user) = (RoomNid(first), EventNid(second), UserNid(third));
    let device = DeviceNid(second);
    match kind {
        0 => Touch::Word {
            kind: [WordKind::User, WordKind::EventType, WordKind::StateKey, WordKind::Server][small as usize % 4],
            nid: first,
        },
        1 => Touch::Event { room, event, sub: -i64::from(small), flags: third },
        2 => Touch::Event { room, event, sub: 0, flags: PLAIN_FLAGS },
        3 => Touch::State {
            room,
            key: KeyNid(third),
            event: small.is_multiple_of(2).then_some(event),
            before: flag.then_some(EventNid(first)),
            membership: small.is_multiple_of(3).then_some(code),
        },
        4 => Touch::Redacted { room, event, by: EventNid(third) },
        5 => Touch::Member { room, user, membership: code, forgotten: flag },
        6 => Touch::RemoteMember { room, user, joined: flag },
        7 => Touch::Txn { device, event: EventNid(third) },
        8 => Touch::Receipt { room, user, private: flag },
        9 => Touch::AccountData { user, room, kind: code },
        10 => Touch::DeviceList { user },
        11 => Touch::Device { user, device, gone: flag },
        12 => Touch::KeyCounts { user, device },
        13 => Touch::ToDevice { user, device, messages: small, bytes: code.into() },
        14 => Touch::ToDeviceGone { device, upto: Position(first), messages: small, bytes: code.into() },
        15 => Touch::Sessions { user, tokens: vec![[code; 32]; small as usize % 4] },
        16 => Touch::Account { user },
        17 => Touch::Profile { user },
        18 => Touch::Alias { room },
        19 => Touch::Directory { room },
        20 => {
            if flag {
                Touch::Job
            } else {
                Touch::Leftover
            }
        }
        21 => Touch::Graph { room },
        22 => Touch::Due { kind: code },
        23 => Touch::FedItem { server: ServerNid(first) },
        24 => Touch::RemoteDevices { user },
        25 => Touch::Jump { room },
        _ => Touch::Lease { epoch: first, incarnation: second },
    }
}

/// Mostly a number that lies close to others, sometimes one from the whole range.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..5000_i64, 1 => any::<i64>()]
}

prop_compose! {
    fn any_touch()(
        kind in 0..KINDS,
        numbers in [number(), number(), number()],
        small in prop_oneof![0..200_u32, any::<u32>()],
        code in any::<u8>(),
        flag in any::<bool>(),
    ) -> Touch {
        touch(kind, numbers, small, code, flag)
    }
}

prop_compose! {
    fn any_entry()(
        after in prop_oneof![0..1_000_000_i64, 0..i64::MAX / 2],
        at_ms in any::<i64>(),
        bytes_before in any::<u64>(),
        first in 1..20_u64,
        touches in prop::collection::vec((0..12_u64, any_touch()), 0..30),
        rest in 0..20_i64,
    ) -> LogEntry {
        let mut at = after.saturating_add_unsigned(first);
        let touches: Vec<_> = touches
            .into_iter()
            .map(|(step, touch)| {
                at = at.saturating_add_unsigned(step);
                (Position(at), touch)
            })
            .collect();
        LogEntry { after: Position(after), pos: Position(at + rest), at_ms, bytes_before, touches }
    }
}

/// A blob for this position whose checksum is right, whatever its content is.
fn sealed(pos: Position, content: &[u8]) -> Vec<u8> {
    [content, &checksum::<CHECKSUM_BYTES>(&[&pos.0.to_le_bytes(), content])].concat()
}

proptest! {
    #[test]
    fn a_decoded_blob_is_the_encoded_entry(entry in any_entry()) {
        prop_assert_eq!(decode(entry.pos, &encode(&entry)), Ok(entry));
    }

    #[test]
    fn the_first_bytes_of_a_blob_are_enough_for_its_head(entry in any_entry()) {
        let blob = encode(&entry);
        let first = &blob[..blob.len().min(HEAD_BYTES as usize)];
        let expected = Head { at_ms: entry.at_ms, bytes_before: entry.bytes_before };
        prop_assert_eq!(head(first), Ok(expected));
    }

    #[test]
    fn a_changed_byte_is_an_error(entry in any_entry(), at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
        let mut blob = encode(&entry);
        let at = at.index(blob.len());
        blob[at] ^= flip;
        prop_assert!(decode(entry.pos, &blob).is_err());
    }

    #[test]
    fn a_blob_under_another_key_is_an_error(entry in any_entry(), other in 1..1000_i64) {
        prop_assert!(decode(Position(entry.pos.0 + other), &encode(&entry)).is_err());
    }

    // The checksum keeps damage out. Behind it the reader must be safe by itself, and must not allocate more than the blob
    // has room for: a touch takes a byte at least.
    #[test]
    fn sealed_content_is_either_refused_or_the_only_blob_of_its_entry(
        entry in any_entry(),
        at in any::<prop::sample::Index>(),
        flip in 1..=u8::MAX,
    ) {
        let mut content = encode(&entry);
        content.truncate(content.len() - CHECKSUM_BYTES);
        let at = at.index(content.len());
        content[at] ^= flip;
        let blob = sealed(entry.pos, &content);
        if let Ok(decoded) = decode(entry.pos, &blob) {
            prop_assert!(decoded.touches.len() <= blob.len());
            prop_assert_eq!(encode(&decoded), blob);
        }
    }

    #[test]
    fn sealed_noise_is_either_refused_or_the_only_blob_of_its_entry(
        pos in 1..1000_i64,
        noise in prop::collection::vec(prop_oneof![0..40_u8, any::<u8>()], 0..60),
    ) {
        let blob = sealed(Position(pos), &[&[1], noise.as_slice()].concat());
        if let Ok(decoded) = decode(Position(pos), &blob) {
            prop_assert_eq!(encode(&decoded), blob);
        }
    }
}

/// The entry of one message: the event, and the transaction ID of its sender.
fn message() -> LogEntry {
    let event = EventNid(3_000_000);
    let pos = Position(5_000_000);
    LogEntry {
        after: Position(pos.0 - 1),
        pos,
        at_ms: 1_790_000_000_000,
        bytes_before: 200_000_000,
        touches: vec![
            (pos, Touch::Event { room: RoomNid(20_000), event, sub: 0, flags: PLAIN_FLAGS }),
            (pos, Touch::Txn { device: DeviceNid(5_000), event }),
        ],
    }
}

#[test]
fn a_message_takes_twenty_eight_bytes() {
    assert_eq!(encode(&message()).len(), 28);
}

#[test]
fn each_further_message_of_a_batch_takes_few_bytes() {
    let mut entry = message();
    for step in 1..=100 {
        let at = Position(5_000_000 + step);
        let event = EventNid(3_000_000 + step);
        entry.touches.push((at, Touch::Event { room: RoomNid(20_000 + step % 7), event, sub: 0, flags: PLAIN_FLAGS }));
        entry.touches.push((at, Touch::Txn { device: DeviceNid(5_000 + step % 5), event }));
        entry.pos = at;
    }
    let bytes = encode(&entry).len();
    assert!(bytes <= 28 + 100 * 6, "{bytes} bytes");
}

#[test]
fn the_format_does_not_change_under_stored_blobs() {
    let pos = Position(5);
    let event = Touch::Event { room: RoomNid(7), event: EventNid(9), sub: 0, flags: PLAIN_FLAGS };
    let touches = vec![(pos, event), (pos, Touch::Job)];
    let entry = LogEntry { after: Position(4), pos, at_ms: 3, bytes_before: 2, touches };
    assert_eq!(encode(&entry), sealed(pos, &[1, 6, 2, 1, 1 | 1 << 5, 14, 18, 20]));
}

#[test]
fn content_that_encode_never_writes_is_refused() {
    let pos = Position(50);
    let check = |content: &[u8], expected| assert_eq!(decode(pos, &sealed(pos, content)), Err(expected), "{content:?}");
    let head = |rest: &[u8]| [&[1, 0, 0, 1], rest].concat();
    let too_short = DecodeError::Corrupt("it ends too early");

    assert_eq!(decode(pos, &[]), Err(DecodeError::Corrupt("it is empty")));
    assert_eq!(decode(pos, &[1, 0, 0]), Err(DecodeError::Corrupt("it is shorter than its checksum")));
    check(&[2, 0], DecodeError::UnknownVersion(2));
    check(&[1, 0, 0], too_short);
    check(&[1, 0, 0, 0], DecodeError::Corrupt("it spans impossible positions"));
    let whole_range = [1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    check(&whole_range, DecodeError::Corrupt("it spans impossible positions"));
    let outside = DecodeError::Corrupt("a touch is outside the positions of its entry");
    check(&head(&[20]), outside);
    check(&head(&[20 | 2 << 5]), outside);
    check(&head(&[20 | 7 << 5]), too_short);
    check(&head(&[31 | 1 << 5]), DecodeError::Corrupt("a kind of touch is unknown"));
    check(&head(&[1 << 5, 4, 0]), DecodeError::Corrupt("a kind of word is unknown"));
    check(&head(&[2 | 1 << 5, 0, 0, 0, 0x90, 1]), DecodeError::Corrupt("a plain event is in the long form"));
    check(&head(&[6 | 1 << 5, 2, 0, 0]), DecodeError::Corrupt("a flag is neither set nor unset"));
    check(&head(&[5 | 1 << 5, 0x80, 4, 0, 0]), DecodeError::Corrupt("a membership is too large"));
    // Memory must not be allocated for a million tokens.
    let tokens = [15 | 1 << 5, 0, 0x80, 0x80, 0x40];
    check(&head(&tokens), DecodeError::Corrupt("it names more tokens than it has room for"));
}

#[test]
#[should_panic(expected = "in the order of their positions")]
fn touches_out_of_order_are_not_encoded() {
    let mut entry = message();
    entry.touches.push((Position(entry.pos.0 - 1), Touch::Job));
    encode(&entry);
}

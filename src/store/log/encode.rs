//! The stored form of an entry: the `touched` column of `commit_log`.
//!
//! ```text
//! blob  = version(1) at_ms bytes_before span touch* checksum(4)
//! touch = kind_and_step(1) [step] field*
//! ```
//! The numbers are LEB128 varints. `span` is the number of positions from `after` to the key of the row. A touch begins
//! with its kind in the low five bits, and in the high three its step from the position before it, which is `after` at
//! first; 7 means that the step follows as a varint. A short id is the zigzag difference from the last id of its kind in
//! the same blob, from 0 at first. The checksum is the first 4 bytes of the SHA-256 of the key and all that precedes.
//!
//! Reading is in [`mod@super::decode`].

use sabha_federation::{
    standing::Flags,
    varint::{checksum, put_varint, zigzag},
};

use super::{LogEntry, Touch, WordKind};
use crate::store::{DeviceNid, EventNid, Position, RoomNid, ServerNid, UserNid};

/// The version of the format, so that a later format can stand beside this one.
pub(super) const VERSION: u8 = 1;

/// The size of the checksum: short, because there is one for each commit, and only accidents must be found.
pub(super) const CHECKSUM_BYTES: usize = 4;

/// The number of bits for the kind of a touch; there are fewer than 32 kinds.
pub(super) const KIND_BITS: u32 = 5;

/// The step that says that the step follows.
pub(super) const LONG_STEP: u64 = 7;

/// The bytes of most entries, so that the usual blob is allocated once.
const USUAL_BYTES: usize = 64;

/// The flags of most events: those that a user of ours has sent, one after the other.
pub(super) const PLAIN_FLAGS: i64 = Flags::OURS.and(Flags::TIP).bits();

/// The kinds of touch as they are stored.
pub(super) mod kind {
    pub(in super::super) const WORD: u8 = 0;
    /// An event with sub-position 0 and [`PLAIN_FLAGS`](super::PLAIN_FLAGS), which is what most touches are.
    pub(in super::super) const PLAIN_EVENT: u8 = 1;
    pub(in super::super) const EVENT: u8 = 2;
    pub(in super::super) const STATE: u8 = 3;
    pub(in super::super) const REDACTED: u8 = 4;
    pub(in super::super) const MEMBER: u8 = 5;
    pub(in super::super) const REMOTE_MEMBER: u8 = 6;
    pub(in super::super) const TXN: u8 = 7;
    pub(in super::super) const RECEIPT: u8 = 8;
    pub(in super::super) const ACCOUNT_DATA: u8 = 9;
    pub(in super::super) const DEVICE_LIST: u8 = 10;
    pub(in super::super) const DEVICE: u8 = 11;
    pub(in super::super) const KEY_COUNTS: u8 = 12;
    pub(in super::super) const TO_DEVICE: u8 = 13;
    pub(in super::super) const TO_DEVICE_GONE: u8 = 14;
    pub(in super::super) const SESSIONS: u8 = 15;
    pub(in super::super) const ACCOUNT: u8 = 16;
    pub(in super::super) const PROFILE: u8 = 17;
    pub(in super::super) const ALIAS: u8 = 18;
    pub(in super::super) const DIRECTORY: u8 = 19;
    pub(in super::super) const JOB: u8 = 20;
    pub(in super::super) const LEFTOVER: u8 = 21;
    pub(in super::super) const LEASE: u8 = 22;
    pub(in super::super) const GRAPH: u8 = 23;
    pub(in super::super) const DUE: u8 = 24;
    pub(in super::super) const FED_ITEM: u8 = 25;
    pub(in super::super) const REMOTE_DEVICES: u8 = 26;
    pub(in super::super) const JUMP: u8 = 27;
}

/// The kinds of short id, each with its own last id.
#[derive(Clone, Copy)]
pub(super) enum IdKind {
    Room,
    Event,
    User,
    Device,
    Key,
    Word,
    Server,
}

/// The last short id of each kind.
pub(super) type LastIds = [i64; 7];

/// The blob for an entry.
///
/// # Panics
/// Panics if the positions of the entry are not in order: such a blob could not be read back.
pub fn encode(entry: &LogEntry) -> Vec<u8> {
    let LogEntry { after, pos, at_ms, bytes_before, touches } = entry;
    let mut writer = Writer { blob: Vec::with_capacity(USUAL_BYTES), last_ids: LastIds::default() };
    writer.blob.push(VERSION);
    writer.signed(*at_ms);
    writer.number(*bytes_before);
    assert!(after < pos, "an entry is after the one before it");
    writer.number(pos.0.abs_diff(after.0));

    let mut last = *after;
    for (index, (at, touch)) in touches.iter().enumerate() {
        let is_in_order = last < *at || (index > 0 && last == *at);
        assert!(is_in_order && at <= pos, "touches are in the order of their positions");
        writer.touch(touch, at.0.abs_diff(last.0), *at);
        last = *at;
    }
    let checksum: [u8; CHECKSUM_BYTES] = checksum(&[&pos.0.to_le_bytes(), &writer.blob]);
    writer.blob.extend_from_slice(&checksum);
    writer.blob
}

struct Writer {
    blob: Vec<u8>,
    last_ids: LastIds,
}

impl Writer {
    fn number(&mut self, value: impl Into<u64>) {
        put_varint(&mut self.blob, value.into());
    }

    fn signed(&mut self, value: i64) {
        put_varint(&mut self.blob, zigzag(value));
    }

    fn id(&mut self, kind: IdKind, id: i64) {
        let last = std::mem::replace(&mut self.last_ids[kind as usize], id);
        self.signed(id.wrapping_sub(last));
    }

    fn room(&mut self, room: RoomNid) {
        self.id(IdKind::Room, room.0);
    }

    fn event(&mut self, event: EventNid) {
        self.id(IdKind::Event, event.0);
    }

    fn user(&mut self, user: UserNid) {
        self.id(IdKind::User, user.0);
    }

    fn device(&mut self, device: DeviceNid) {
        self.id(IdKind::Device, device.0);
    }

    fn server(&mut self, server: ServerNid) {
        self.id(IdKind::Server, server.0);
    }

    fn touch(&mut self, touch: &Touch, step: u64, at: Position) {
        let short_step = step.min(LONG_STEP);
        self.blob.push(stored_kind(touch) | (short_step as u8) << KIND_BITS);
        if short_step == LONG_STEP {
            self.number(step - LONG_STEP);
        }
        match touch {
            Touch::Word { kind, nid } => {
                self.blob.push(word_code(*kind));
                self.id(IdKind::Word, *nid);
            }
            Touch::Event { room, event, sub, flags } => {
                self.room(*room);
                self.event(*event);
                if !is_plain(*sub, *flags) {
                    self.signed(*sub);
                    self.signed(*flags);
                }
            }
            Touch::State { room, key, event, before, membership } => {
                let code = membership.map_or(0, |code| u64::from(code) + 1);
                self.number(u64::from(event.is_some()) | u64::from(before.is_some()) << 1 | code << 2);
                self.room(*room);
                self.id(IdKind::Key, key.0);
                for event in [event, before].into_iter().flatten() {
                    self.event(*event);
                }
            }
            Touch::Redacted { room, event, by } => {
                self.room(*room);
                self.event(*event);
                self.event(*by);
            }
            Touch::Member { room, user, membership, forgotten } => {
                self.number(u64::from(*forgotten) | u64::from(*membership) << 1);
                self.room(*room);
                self.user(*user);
            }
            Touch::RemoteMember { room, user, joined } => {
                self.number(*joined);
                self.room(*room);
                self.user(*user);
            }
            Touch::Txn { device, event } => {
                self.device(*device);
                self.event(*event);
            }
            Touch::Receipt { room, user, private } => {
                self.number(*private);
                self.room(*room);
                self.user(*user);
            }
            Touch::AccountData { user, room, kind } => {
                self.blob.push(*kind);
                self.room(*room);
                self.user(*user);
            }
            Touch::Device { user, device, gone } => {
                self.number(*gone);
                self.user(*user);
                self.device(*device);
            }
            Touch::KeyCounts { user, device } => {
                self.user(*user);
                self.device(*device);
            }
            Touch::ToDevice { user, device, messages, bytes } => {
                self.user(*user);
                self.device(*device);
                self.number(*messages);
                self.number(*bytes);
            }
            Touch::ToDeviceGone { device, upto, messages, bytes } => {
                self.device(*device);
                self.signed(at.0.wrapping_sub(upto.0));
                self.number(*messages);
                self.number(*bytes);
            }
            Touch::Sessions { user, tokens } => {
                self.user(*user);
                self.number(tokens.len() as u64);
                tokens.iter().for_each(|token| self.blob.extend_from_slice(token));
            }
            Touch::DeviceList { user }
            | Touch::RemoteDevices { user }
            | Touch::Account { user }
            | Touch::Profile { user } => self.user(*user),
            Touch::Jump { room } | Touch::Graph { room } | Touch::Alias { room } | Touch::Directory { room } => {
                self.room(*room);
            }
            Touch::Due { kind } => self.blob.push(*kind),
            Touch::FedItem { server } => self.server(*server),
            Touch::Job | Touch::Leftover => {}
            Touch::Lease { epoch, incarnation } => {
                self.signed(*epoch);
                self.signed(*incarnation);
            }
        }
    }
}

/// Returns whether an event of this kind is stored in the short form.
pub(super) fn is_plain(sub: i64, flags: i64) -> bool {
    sub == 0 && flags == PLAIN_FLAGS
}

fn stored_kind(touch: &Touch) -> u8 {
    match touch {
        Touch::Word { .. } => kind::WORD,
        Touch::Event { sub, flags, .. } if is_plain(*sub, *flags) => kind::PLAIN_EVENT,
        Touch::Event { .. } => kind::EVENT,
        Touch::State { .. } => kind::STATE,
        Touch::Redacted { .. } => kind::REDACTED,
        Touch::Member { .. } => kind::MEMBER,
        Touch::RemoteMember { .. } => kind::REMOTE_MEMBER,
        Touch::Txn { .. } => kind::TXN,
        Touch::Receipt { .. } => kind::RECEIPT,
        Touch::AccountData { .. } => kind::ACCOUNT_DATA,
        Touch::DeviceList { .. } => kind::DEVICE_LIST,
        Touch::Device { .. } => kind::DEVICE,
        Touch::KeyCounts { .. } => kind::KEY_COUNTS,
        Touch::ToDevice { .. } => kind::TO_DEVICE,
        Touch::ToDeviceGone { .. } => kind::TO_DEVICE_GONE,
        Touch::Sessions { .. } => kind::SESSIONS,
        Touch::Account { .. } => kind::ACCOUNT,
        Touch::Profile { .. } => kind::PROFILE,
        Touch::Alias { .. } => kind::ALIAS,
        Touch::Directory { .. } => kind::DIRECTORY,
        Touch::Job => kind::JOB,
        Touch::Leftover => kind::LEFTOVER,
        Touch::Lease { .. } => kind::LEASE,
        Touch::Graph { .. } => kind::GRAPH,
        Touch::Due { .. } => kind::DUE,
        Touch::FedItem { .. } => kind::FED_ITEM,
        Touch::RemoteDevices { .. } => kind::REMOTE_DEVICES,
        Touch::Jump { .. } => kind::JUMP,
    }
}

fn word_code(kind: WordKind) -> u8 {
    match kind {
        WordKind::User => 0,
        WordKind::EventType => 1,
        WordKind::StateKey => 2,
        WordKind::Server => 3,
    }
}

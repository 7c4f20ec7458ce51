use crate::store::{DeviceNid, EventNid, KeyNid, Position, RoomNid, UserNid};
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordKind {
    User,
    EventType,
    StateKey,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    Word { kind: WordKind, nid: i64 },
    Event { room: RoomNid, event: EventNid, sub: i64, flags: i64 },
    State { room: RoomNid, key: KeyNid, event: Option<EventNid>, before: Option<EventNid>, membership: Option<u8> },
    Redacted { room: RoomNid, event: EventNid, by: EventNid },
    Member { room: RoomNid, user: UserNid, membership: u8, forgotten: bool },
    RemoteMember { room: RoomNid, user: UserNid, joined: bool },
    Txn { device: DeviceNid, event: EventNid },
    Receipt { room: RoomNid, user: UserNid, private: bool },
    AccountData { user: UserNid, room: RoomNid, kind: u8 },
    DeviceList { user: UserNid },
    Device { user: UserNid, device: DeviceNid, gone: bool },
    KeyCounts { user: UserNid, device: DeviceNid },
    ToDevice { user: UserNid, device: DeviceNid, messages: u32, bytes: u32 },
    ToDeviceGone { device: DeviceNid, upto: Position, messages: u32, bytes: u32 },
    Sessions { user: UserNid, tokens: Vec<[u8; 32]> },
    Account { user: UserNid },
    Profile { user: UserNid },
    Alias { room: RoomNid },
    Directory { room: RoomNid },
    Job,
    Leftover,
    Lease { epoch: i64, incarnation: i64 },
}

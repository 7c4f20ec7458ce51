//! The things that a commit can change and that somebody follows.

use crate::store::{DeviceNid, EventNid, KeyNid, Position, RoomNid, ServerNid, UserNid};

/// A kind of word: a text that is stored once and has a short id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordKind {
    User,
    Server,
    EventType,
    StateKey,
}

/// One thing that a commit has changed. Its position stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// A word that is stored from now on.
    Word {
        kind: WordKind,
        nid: i64,
    },
    /// An event that was added. `sub` is its place at the position: 0 on the line, negative in history.
    Event {
        room: RoomNid,
        event: EventNid,
        sub: i64,
        flags: i64,
    },
    /// A key of a room's state that went from the event `before` to `event`. `membership` is a code of the state log, for
    /// the keys of `m.room.member`.
    State {
        room: RoomNid,
        key: KeyNid,
        event: Option<EventNid>,
        before: Option<EventNid>,
        membership: Option<u8>,
    },
    /// A whole state of a room that has replaced the one before it, without a [`Touch::State`] for each key.
    Jump {
        room: RoomNid,
    },
    /// The graph or the timeline of a room, beside an event that was added: a side, a gap, an edge to a missing event, or a
    /// redaction of one.
    Graph {
        room: RoomNid,
    },
    /// An event that was redacted, and the event that says so.
    Redacted {
        room: RoomNid,
        event: EventNid,
        by: EventNid,
    },
    /// The membership of a local user, or that they have forgotten the room.
    Member {
        room: RoomNid,
        user: UserNid,
        membership: u8,
        forgotten: bool,
    },
    /// A user of another server who has joined a room, or is no longer in it.
    RemoteMember {
        room: RoomNid,
        user: UserNid,
        joined: bool,
    },
    /// A transaction ID that a device has used. Event 0 stands for a request that made no event.
    Txn {
        device: DeviceNid,
        event: EventNid,
    },
    Receipt {
        room: RoomNid,
        user: UserNid,
        private: bool,
    },
    /// Account data of a kind that its owner distinguishes. Room 0 is the account itself.
    AccountData {
        user: UserNid,
        room: RoomNid,
        kind: u8,
    },
    /// The device list of a user.
    DeviceList {
        user: UserNid,
    },
    /// The stored copy of the device list of a user of another server.
    RemoteDevices {
        user: UserNid,
    },
    Device {
        user: UserNid,
        device: DeviceNid,
        gone: bool,
    },
    /// The numbers of one-time keys and fallback keys that a device has left.
    KeyCounts {
        user: UserNid,
        device: DeviceNid,
    },
    /// Messages to a device that were added.
    ToDevice {
        user: UserNid,
        device: DeviceNid,
        messages: u32,
        bytes: u32,
    },
    /// Messages to a device that were deleted. None is left up to `upto`.
    ToDeviceGone {
        device: DeviceNid,
        upto: Position,
        messages: u32,
        bytes: u32,
    },
    /// Access tokens that have ended, by their hashes.
    Sessions {
        user: UserNid,
        tokens: Vec<[u8; 32]>,
    },
    Account {
        user: UserNid,
    },
    Profile {
        user: UserNid,
    },
    /// The aliases of a room.
    Alias {
        room: RoomNid,
    },
    /// The entry of a room in the room directory.
    Directory {
        room: RoomNid,
    },
    /// A job that waits for its runner.
    Job,
    /// A row of a table whose rows each wait for a time. `kind` says which table.
    Due {
        kind: u8,
    },
    /// An item that waits to be sent to another server.
    FedItem {
        server: ServerNid,
    },
    /// Leftover data that waits for its sweep.
    Leftover,
    /// The writer's slot, which another process has taken.
    Lease {
        epoch: i64,
        incarnation: i64,
    },
}

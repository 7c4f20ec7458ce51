//! `[limits]` and `[rate_limits]`: limits on how much we accept from clients, and how fast. Every limit that an
//! operator can change has its name here. Limits of the specification (65,536 bytes for an event) are constants where
//! they are checked.

use super::keys::section;
use super::values::{ByteSize, TimeSpan};

section! {
    /// Upper bounds on what clients may send, hold open and store.
    pub struct Limits {
        /// Size of a request's body, in bytes.
        pub request_bytes: ByteSize [ByteSize::kib(128) => ByteSize::mib(64)] = ByteSize::mib(1),
        /// Time by which a client may fall behind while it sends a body. Each 4 KiB that it sends give back a second.
        pub request_time: TimeSpan [TimeSpan::seconds(1) => TimeSpan::minutes(10)] = TimeSpan::seconds(30),
        /// Connections from one address, or one IPv6 network of 64 bits. Those of `trusted_proxies` do not count. All
        /// networks of one IPv6 /48 together have four times as many. Once 12,288 connections are open, an address or
        /// network has at most 64.
        pub connections_per_address: u32 [16 => 1_000_000] = 1024,
        /// Bytes of all answers that clients have not read yet. Once half of it is used, one user may have an eighth of
        /// it, or one answer. Over it, the slowest readers are disconnected, then users with more than an eighth. A
        /// sixteenth is reserved for answers of 16 KiB or less. An answer may take an hour at most.
        pub answer_bytes_in_flight: ByteSize [ByteSize::mib(16) => ByteSize::mib(65_536)] = ByteSize::mib(256),
        /// Longest wait of a `/sync`; a client's longer `timeout` counts as this.
        pub sync_timeout_max: TimeSpan [TimeSpan::seconds(1) => TimeSpan::minutes(10)] = TimeSpan::seconds(120),
        /// Events of one room in a `/sync`; a filter's higher `limit` counts as this.
        pub sync_timeline_events: u32 [1 => 1000] = 100,
        /// Events in one page of `/messages` and `/context`; a higher `limit` counts as this.
        pub page_events: u32 [10 => 10_000] = 1000,
        /// Size of the events in one page of `/messages`, `/context` and relations, in bytes. The page ends early with
        /// the event that reaches it.
        pub page_bytes: ByteSize [ByteSize::kib(64) => ByteSize::mib(64)] = ByteSize::mib(4),
        /// Size of a filter, in bytes. A filter also has at most 1000 types, senders and rooms, all its lists together.
        /// The filters of one user's waiting syncs take at most 2 MiB, or four times this if that is more.
        pub filter_bytes: ByteSize [ByteSize::kib(1) => ByteSize::mib(1)] = ByteSize::kib(64),
        /// Filters stored for a user; the oldest go first, and clients store them again.
        pub filters_per_user: u32 [1 => 10_000] = 200,
        /// Devices of a user. Over it, logins are refused until a device is signed out.
        pub devices_per_user: u32 [1 => 100_000] = 500,
        /// One-time keys stored for a device.
        pub one_time_keys_per_device: u32 [50 => 10_000] = 1000,
        /// Messages stored for a device that does not fetch them. Over it, old messages of the senders with the most
        /// waiting messages are deleted.
        pub to_device_per_device: u32 [100 => 1_000_000] = 10_000,
        /// Size of one type of account data, in bytes.
        pub account_data_bytes: ByteSize [ByteSize::kib(1) => ByteSize::mib(64)] = ByteSize::kib(512),
        /// Types of account data stored for a user, over all rooms.
        pub account_data_per_user: u32 [10 => 1_000_000] = 10_000,
        /// Size of all account data of a user, in bytes. A client that starts without local data gets all of it in one
        /// answer.
        pub account_data_bytes_per_user: ByteSize [ByteSize::kib(64) => ByteSize::mib(1024)] = ByteSize::mib(10),
        /// Users who may be invited in the request that creates a room.
        pub invites_per_new_room: u32 [1 => 10_000] = 200,
        /// Invitations of a user that wait for an answer, without those from users whom the user ignores. One inviter may
        /// have a quarter of them waiting, an application service's user half. Once there are so many, an inviter is
        /// refused who has sent a hundredth of them, at least one. Knocks of a user that wait for an answer have the same
        /// limit.
        pub pending_invites_per_user: u32 [1 => 5000] = 1000,
    }
}

section! {
    /// Rate limits of clients. A client over a limit gets `M_LIMIT_EXCEEDED` with the time to wait. Each limit is for a
    /// user. An address has `address_factor` times as much, because many people may share one.
    pub struct RateLimits {
        /// Whether the limits apply. Disable them only for measurements.
        pub enabled: bool = true,
        /// The limits of one address, as a multiple of those of one user.
        pub address_factor: f64 [1.0 => 1_000_000.0] = 10.0,
        /// Sending events, state, redactions, to-device messages, receipts and typing.
        pub send: Rate = Rate::new(20.0, 200),
        /// Wrong passwords for one account from one address, and `address_factor` times as many from all addresses.
        /// Right passwords count only for the address.
        pub login: Rate = Rate::new(0.2, 10),
        /// Creating accounts and asking whether a name is free.
        pub register: Rate = Rate::new(0.1, 10),
        /// Creating rooms and aliases.
        pub create_room: Rate = Rate::new(0.5, 20),
        /// Inviting; each invitation of a new room counts. A room with more invitations than `burst` uses up all of it.
        pub invite: Rate = Rate::new(1.0, 60),
        /// Joining and knocking.
        pub join: Rate = Rate::new(1.0, 60),
        /// Setting one's presence.
        pub presence: Rate = Rate::new(0.5, 10),
        /// `/sync`.
        pub sync: Rate = Rate::new(20.0, 200),
        /// Everything else.
        pub other: Rate = Rate::new(50.0, 500),
    }
}

section! {
    /// A rate limit: `burst` actions at once, refilled at `per_second`.
    pub struct Rate {
        /// Actions a second in the long run.
        pub per_second: f64 [0.001 => 1_000_000.0] = 10.0,
        /// Actions at once after a pause.
        pub burst: u32 [1 => 1_000_000] = 100,
    }
}

impl Rate {
    pub const fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst }
    }
}

//! The plan of a run: everything that a seed decides before the first request.
//!
//! It contains rooms, users, writers with their steps, and followers with their ways of syncing. A seed does not decide
//! what the scheduler and the database do in between; on a current-thread runtime that is little.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sabha::store::committer::CommitStep;

use crate::followers::Kind;

/// Number of users in a run. The first one creates the rooms and never leaves them, and so sees their whole history.
pub const USERS: usize = 5;

/// The user who sees everything.
pub const WITNESS: usize = 0;

/// Number of writers; some users write from two devices at once.
const WRITERS: usize = 7;

/// Number of steps of a writer. Few, so that a run is short: many short runs find more than a long one.
const STEPS: std::ops::Range<usize> = 8..15;

pub const VISIBILITIES: [&str; 4] = ["shared", "joined", "invited", "world_readable"];

const VERSIONS: [&str; 3] = ["10", "11", "12"];

/// Keys of state that many writers set at the same time.
pub const STATE: [(&str, &str); 5] = [
    ("m.room.topic", ""),
    ("m.room.name", ""),
    ("m.room.encryption", ""),
    ("org.sabha.model", ""),
    ("org.sabha.model", "other"),
];

/// The steps between which the holder of a lease stalls.
const STALLS: [CommitStep; 5] =
    [CommitStep::Taken, CommitStep::Stored, CommitStep::Remembered, CommitStep::Published, CommitStep::Answered];

/// Number of aliases that many writers create and delete.
pub const ALIASES: usize = 2;

#[derive(Debug, Clone)]
pub struct RoomPlan {
    pub version: &'static str,
    pub visibility: &'static str,
    pub public: bool,
    /// True for a private room where users may ask to be let in.
    pub knock: bool,
    /// Users who are in the room from the beginning, besides its creator.
    pub members: Vec<usize>,
}

/// One action of a client. Rooms and users are numbers in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Message {
        room: usize,
        mention: Option<usize>,
    },
    State {
        room: usize,
        key: usize,
    },
    PowerLevels {
        room: usize,
        level: i64,
    },
    Visibility {
        room: usize,
        to: usize,
    },
    Join {
        room: usize,
    },
    Knock {
        room: usize,
    },
    Leave {
        room: usize,
    },
    Forget {
        room: usize,
    },
    Kick {
        room: usize,
        who: usize,
    },
    Ban {
        room: usize,
        who: usize,
    },
    Unban {
        room: usize,
        who: usize,
    },
    Invite {
        room: usize,
        who: usize,
    },
    Redact {
        room: usize,
        pick: usize,
    },
    Receipt {
        room: usize,
        private: bool,
        pick: usize,
    },
    Typing {
        room: usize,
        on: bool,
    },
    RoomData {
        room: usize,
        key: usize,
    },
    AccountData {
        key: usize,
    },
    DisplayName,
    ToDevice {
        who: usize,
    },
    DeviceKeys,
    OneTimeKeys,
    Claim {
        who: usize,
    },
    RenameDevice,
    LogInAndOut,
    /// Creates one of the aliases of the run, for this room, or deletes it.
    Alias {
        room: usize,
        key: usize,
        create: bool,
    },
    Upgrade {
        room: usize,
    },
}

impl Op {
    pub fn room(&self) -> Option<usize> {
        match self {
            Self::Message { room, .. }
            | Self::State { room, .. }
            | Self::PowerLevels { room, .. }
            | Self::Visibility { room, .. }
            | Self::Join { room }
            | Self::Knock { room }
            | Self::Leave { room }
            | Self::Forget { room }
            | Self::Kick { room, .. }
            | Self::Ban { room, .. }
            | Self::Unban { room, .. }
            | Self::Invite { room, .. }
            | Self::Redact { room, .. }
            | Self::Receipt { room, .. }
            | Self::Typing { room, .. }
            | Self::RoomData { room, .. }
            | Self::Alias { room, .. }
            | Self::Upgrade { room } => Some(*room),
            _ => None,
        }
    }

    /// Tells whether all that the request writes is in one commit: it is done or not done.
    pub fn is_one_write(&self) -> bool {
        // A new name is also shown in the rooms where the user was lately.
        !matches!(self, Self::Upgrade { .. } | Self::DisplayName)
    }

    /// Tells whether the request has a transaction ID, so that it may be repeated.
    pub fn has_transaction(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Redact { .. } | Self::ToDevice { .. })
    }
}

/// A place where the client's connection breaks.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Yields of the client before it hangs up.
    pub after_yields: u32,
    /// The part of the request, in per cent, that is sent over a socket; all of it from 100 on.
    pub sent: u32,
}

impl Cut {
    pub fn random(rng: &mut StdRng) -> Self {
        Self { after_yields: rng.random_range(0..40), sent: rng.random_range(0..200) }
    }
}

#[derive(Debug, Clone)]
pub struct Step {
    pub op: Op,
    pub yields_before: u32,
    pub cut: Option<Cut>,
    /// Sends the request once more with the same transaction ID, although it was answered.
    pub again: bool,
}

#[derive(Debug, Clone)]
pub struct WriterPlan {
    pub user: usize,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub struct FollowerPlan {
    pub user: usize,
    pub kind: Kind,
    pub seed: u64,
}

/// A move of the lease from the process that leads to the other one.
#[derive(Debug, Clone)]
pub struct Move {
    /// The number of acts after the last move.
    pub after: u64,
    /// `None` if the process that leads gives the lease up.
    pub stall: Option<Stall>,
}

/// A pause of the process that leads, for longer than its lease lasts.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    /// The step of a commit after which it stands still.
    pub at: CommitStep,
    /// The turns that others have after the lease was taken and before it goes on.
    pub yields: u32,
}

impl Move {
    fn random(rng: &mut StdRng) -> Self {
        let stall = Stall { at: STALLS[rng.random_range(0..STALLS.len())], yields: rng.random_range(0..2_000) };
        Self { after: rng.random_range(1..20), stall: rng.random_ratio(2, 3).then_some(stall) }
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub rooms: Vec<RoomPlan>,
    pub writers: Vec<WriterPlan>,
    pub followers: Vec<FollowerPlan>,
    /// True if clients use sockets instead of the router.
    pub sockets: bool,
    /// A seed for the times at which rooms leave memory. `None` if they stay.
    pub sweeps: Option<u64>,
    /// A seed for the times at which the reader of the commit log stops and goes on.
    pub reads: u64,
    /// The number of acts after which the server restarts, if it does and is the only process.
    pub restart_after: Option<u64>,
    /// The moves of the lease, where there are two processes.
    pub moves: Vec<Move>,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rooms: Vec<RoomPlan> = (0..2).map(|_| room(&mut rng)).collect();
        // Every user writes, two of them also from a second device.
        let writers = (0..WRITERS).map(|index| writer(&mut rng, index % USERS, rooms.len())).collect();
        let mut followers: Vec<FollowerPlan> = Vec::new();
        for way in 0..5 {
            let user = if rng.random_ratio(1, 6) { WITNESS } else { rng.random_range(1..USERS) };
            let somebody = format!("@{}:sabha.test", user_name(seed, rng.random_range(0..USERS)));
            followers.push(FollowerPlan { user, kind: Kind::random(&mut rng, way, &somebody), seed: rng.random() });
        }
        let sweeps = rng.random_ratio(1, 3).then(|| rng.random());
        let reads = rng.random();
        let restart_after = rng.random_ratio(1, 4).then(|| rng.random_range(5..50));
        let moves = (0..rng.random_range(1..7)).map(|_| Move::random(&mut rng)).collect();
        Self { seed, rooms, writers, followers, sockets: seed % 8 == 7, sweeps, reads, restart_after, moves }
    }
}

/// Returns the local part of a user's ID, which is different for each seed.
pub fn user_name(seed: u64, user: usize) -> String {
    format!("m{seed}u{user}")
}

fn room(rng: &mut StdRng) -> RoomPlan {
    let public = rng.random_ratio(3, 4);
    RoomPlan {
        version: VERSIONS[rng.random_range(0..VERSIONS.len())],
        visibility: VISIBILITIES[rng.random_range(0..VISIBILITIES.len())],
        public,
        knock: !public && rng.random_ratio(2, 3),
        members: (1..USERS).filter(|_| rng.random_ratio(3, 5)).collect(),
    }
}

fn writer(rng: &mut StdRng, user: usize, rooms: usize) -> WriterPlan {
    let steps = rng.random_range(STEPS);
    let step = |rng: &mut StdRng| Step {
        op: op(rng, user, rooms),
        yields_before: if rng.random_ratio(1, 3) { rng.random_range(0..60) } else { 0 },
        cut: rng.random_ratio(1, 8).then(|| Cut::random(rng)),
        again: rng.random_ratio(1, 8),
    };
    WriterPlan { user, steps: (0..steps).map(|_| step(rng)).collect() }
}

fn op(rng: &mut StdRng, user: usize, rooms: usize) -> Op {
    let room = rng.random_range(0..rooms);
    let pick = rng.random_range(0..64);
    let other = rng.random_range(1..USERS);
    let is_witness = user == WITNESS;
    match rng.random_range(0..100) {
        0..22 => Op::Message { room, mention: rng.random_ratio(1, 4).then_some(rng.random_range(0..USERS)) },
        22..24 if !is_witness => Op::Knock { room },
        24..32 => Op::State { room, key: rng.random_range(0..STATE.len()) },
        32..34 => Op::Alias { room, key: rng.random_range(0..ALIASES), create: rng.random_ratio(2, 3) },
        34..45 if is_witness => Op::PowerLevels { room, level: rng.random_range(30..45) },
        45..49 if is_witness => Op::Visibility { room, to: rng.random_range(0..VISIBILITIES.len()) },
        49 if is_witness => Op::Upgrade { room },
        34..45 => Op::Join { room },
        45..51 if !is_witness => Op::Leave { room },
        51 if !is_witness => Op::Forget { room },
        52..56 => Op::Kick { room, who: other },
        56..58 => Op::Ban { room, who: other },
        58..60 => Op::Unban { room, who: other },
        60..66 => Op::Invite { room, who: other },
        66..70 => Op::DisplayName,
        70..74 => Op::Redact { room, pick },
        74..80 => Op::Receipt { room, private: rng.random_ratio(1, 3), pick },
        80..83 => Op::Typing { room, on: rng.random() },
        83..85 => Op::AccountData { key: rng.random_range(0..2) },
        85..87 => Op::RoomData { room, key: rng.random_range(0..2) },
        87..92 => Op::ToDevice { who: rng.random_range(0..USERS) },
        92..95 => Op::DeviceKeys,
        95..96 => Op::OneTimeKeys,
        96..97 => Op::Claim { who: rng.random_range(0..USERS) },
        97..98 => Op::RenameDevice,
        98..99 => Op::LogInAndOut,
        _ => Op::Message { room, mention: None },
    }
}

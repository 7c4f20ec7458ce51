//! Faults: what goes wrong in a simulation, and when. The seed decides.

use super::rand::Rand;

/// The time for which users act and things go wrong, in milliseconds. Then everything heals.
pub(super) const STORM_MS: i64 = 30_000;

/// The state of the network.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub lost_percent: u32,
    pub doubled_percent: u32,
    /// The shortest and the longest delay. Two messages whose delays cross come in the other order.
    pub delay_ms: (i64, i64),
    /// A server with a bad connection.
    pub slow: Option<usize>,
}

impl Weather {
    /// A network without faults.
    pub const FAIR: Self = Self { lost_percent: 0, doubled_percent: 0, delay_ms: (1, 20), slow: None };
}

/// The faults of one simulation.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub weather: Weather,
    /// Times at which a partition begins or ends, with the sides of the servers.
    pub partitions: Vec<(i64, Option<Vec<bool>>)>,
    /// How often a commit ends as [`Fate`] says, and not well.
    pub crash_percent: u32,
    pub failed_commit_percent: u32,
    /// How often a message is followed by a forged copy of one of its events.
    pub forged_percent: u32,
    /// The difference of each server's clock to the true time, in milliseconds.
    pub skews_ms: Vec<i64>,
}

/// The end of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Done,
    /// The database did not take it. The server drops what is not committed, and goes on.
    Failed,
    /// The server dies before the commit.
    DiesBefore,
    /// The server dies after the commit, before anybody hears of it.
    DiesAfter,
}

impl Faults {
    pub fn drawn(rand: &mut Rand, servers: usize) -> Self {
        let weather = Weather {
            lost_percent: *rand.pick(&[0, 0, 5, 20, 50]),
            doubled_percent: *rand.pick(&[0, 0, 10, 40]),
            delay_ms: *rand.pick(&[(1, 20), (1, 500), (100, 3_000)]),
            slow: rand.percent(20).then(|| rand.index(servers)),
        };
        let mut partitions = Vec::new();
        for _ in 0..*rand.pick(&[0, 1, 1, 3]) {
            let begin = rand.between(0..=STORM_MS);
            // One side more, for the rogue.
            let sides = (0..=servers).map(|_| rand.percent(50)).collect();
            partitions.push((begin, Some(sides)));
            partitions.push((begin + rand.between(1_000..=15_000), None));
        }
        Self {
            weather,
            partitions,
            crash_percent: *rand.pick(&[0, 0, 3, 15]),
            failed_commit_percent: *rand.pick(&[0, 0, 3, 15]),
            forged_percent: *rand.pick(&[0, 0, 10]),
            skews_ms: (0..servers).map(|_| *rand.pick(&[0, 0, 7, -40, 5_000, -5_000, 86_400_000])).collect(),
        }
    }

    pub fn fate(&self, rand: &mut Rand) -> Fate {
        if rand.percent(self.failed_commit_percent) {
            Fate::Failed
        } else if rand.percent(self.crash_percent) {
            *rand.pick(&[Fate::DiesBefore, Fate::DiesAfter])
        } else {
            Fate::Done
        }
    }

    /// No faults but the wrong clocks.
    pub fn healed(&self) -> Self {
        Self {
            weather: Weather::FAIR,
            partitions: Vec::new(),
            crash_percent: 0,
            failed_commit_percent: 0,
            forged_percent: 0,
            skews_ms: self.skews_ms.clone(),
        }
    }
}

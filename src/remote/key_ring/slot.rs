//! The keys and failures that are known of one server, and when it may be asked again.

use std::{sync::Mutex, time::Duration};

use ruma::ServerSigningKeyId;
use sabha_federation::{KnownKeys, PublicKey};

use crate::{account::millis, store::ids::lock};

/// Approximate memory of a server without keys, and of each key besides its name. Evicted keys are read from the database
/// again.
pub(super) const SERVER_BYTES: u64 = 300;
const KEY_BYTES: usize = 280;

/// After an answer without what was wanted, the server is not asked again for this time, for any key. The same after a
/// refusal, which will not change within seconds.
///
/// An answer that was of use needs no pause: only the server itself can make the next one of use, by a new key.
const PAUSE_AFTER_ANSWER: Duration = Duration::from_secs(30);

/// The pause after the first failure. It doubles with each further failure, up to the second value.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);
const MAX_PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(120);

/// The entry of one server.
#[derive(Default)]
pub(super) struct Slot {
    /// Locked for a few lines without `.await`.
    pub known: Mutex<Known>,
    /// Held while the server is asked, so that other requests wait for the same answer.
    pub asking: tokio::sync::Mutex<()>,
}

impl Slot {
    /// The key, if it is in memory and was valid then.
    pub fn at(&self, key_id: &ServerSigningKeyId, at_ms: Option<i64>) -> Option<PublicKey> {
        lock(&self.known).keys.at(key_id, at_ms)
    }
}

#[derive(Default)]
pub(super) struct Known {
    /// Whether the stored keys were loaded from the database.
    pub is_loaded: bool,
    pub keys: KnownKeys,
    /// The time before which the server is not asked.
    ask_again_at_ms: i64,
    /// Failures since the last answer.
    failures: u32,
}

impl Known {
    pub fn bytes(&self) -> u64 {
        let keys: usize = self.keys.ids().map(|key_id| KEY_BYTES + key_id.as_str().len()).sum();
        SERVER_BYTES + keys as u64
    }

    /// Returns whether the server may be asked now. Until the answer is recorded, this counts as a failure: a request that
    /// is dropped meanwhile must not let the next one ask at once.
    pub fn begin_asking(&mut self, now_ms: i64) -> bool {
        if now_ms < self.ask_again_at_ms {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.pause(now_ms, self.pause_after_failure());
        true
    }

    pub fn was_answered(&mut self, now_ms: i64, is_of_use: bool) {
        self.failures = 0;
        self.pause(now_ms, if is_of_use { Duration::ZERO } else { PAUSE_AFTER_ANSWER });
    }

    pub fn has_failed(&mut self, now_ms: i64, is_definite: bool) {
        let pause = self.pause_after_failure();
        self.pause(now_ms, if is_definite { pause.max(PAUSE_AFTER_ANSWER) } else { pause });
    }

    fn pause_after_failure(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        PAUSE_AFTER_FAILURE.saturating_mul(1 << doublings).min(MAX_PAUSE_AFTER_FAILURE)
    }

    fn pause(&mut self, now_ms: i64, pause: Duration) {
        self.ask_again_at_ms = now_ms.saturating_add(millis(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds after 0 for which a server is not asked.
    fn pause(known: &Known) -> i64 {
        known.ask_again_at_ms / 1000
    }

    #[test]
    fn each_failure_makes_the_pause_twice_as_long_up_to_a_limit() {
        let mut known = Known::default();
        for expected in [2, 4, 8, 16, 32, 64, 120, 120] {
            assert!(known.begin_asking(i64::from(u32::MAX)));
            known.has_failed(0, false);
            assert_eq!(pause(&known), expected);
            assert!(!known.begin_asking(expected * 1000 - 1));
        }
        known.was_answered(0, true);
        assert!(known.begin_asking(0));
        assert_eq!(pause(&known), 2, "an answer begins anew");
    }

    #[test]
    fn what_a_pause_follows_decides_about_its_length() {
        let check = |record: fn(&mut Known), expected: i64| {
            let mut known = Known::default();
            assert!(known.begin_asking(0));
            record(&mut known);
            assert_eq!(pause(&known), expected);
        };
        check(|known| known.was_answered(0, true), 0);
        check(|known| known.was_answered(0, false), 30);
        check(|known| known.has_failed(0, false), 2);
        check(|known| known.has_failed(0, true), 30);
        // Dropped before the answer came.
        check(|_| {}, 2);
    }
}

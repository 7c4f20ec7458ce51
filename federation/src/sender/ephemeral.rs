//! EDUs that are in memory alone: typing, receipts and presence. The newest of each subject is sent, or none.
//!
//! Typing is sent at once, receipts at most once a second, and presence at most once a minute. A destination that fails
//! gets none: they would be old when it is back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{input::EduKey, time::Moment, transaction::MAX_EDUS};

/// The interval of receipts: people read faster than anybody looks at receipts.
const RECEIPTS_EVERY: Duration = Duration::from_secs(1);

/// The interval of presence, which clients show by the minute.
const PRESENCE_EVERY: Duration = Duration::from_secs(60);

/// Maximum number of EDUs that wait for a destination: those of one transaction.
const MAX_WAITING: usize = MAX_EDUS;

/// The EDUs that wait for one destination.
#[derive(Default, Debug)]
pub(super) struct Ephemeral {
    waiting: BTreeMap<EduKey, Arc<str>>,
    bytes: usize,
    /// The moment from which receipts may be sent again.
    receipts_at: Option<Moment>,
    presence_at: Option<Moment>,
}

impl Ephemeral {
    /// Takes an EDU, if there is room for it: less than `most_bytes` of all then wait.
    pub fn put(&mut self, key: EduKey, json: Arc<str>, most_bytes: usize) {
        let replaced = self.waiting.get(&key).map(|json| json.len());
        let bytes = self.bytes - replaced.unwrap_or_default() + json.len();
        if bytes <= most_bytes && (replaced.is_some() || self.waiting.len() < MAX_WAITING) {
            self.waiting.insert(key, json);
            self.bytes = bytes;
        }
    }

    /// Takes out EDUs whose time has come, while `fits` says so.
    pub fn take(&mut self, now: Moment, mut fits: impl FnMut(&Arc<str>) -> bool) {
        let (receipts_at, presence_at) = (self.receipts_at, self.presence_at);
        self.waiting.retain(|key, json| {
            let at = match key {
                EduKey::Typing { .. } => None,
                EduKey::Receipt { .. } => receipts_at,
                EduKey::Presence { .. } => presence_at,
            };
            if at > Some(now) || !fits(json) {
                return true;
            }
            self.bytes -= json.len();
            match key {
                EduKey::Typing { .. } => {}
                EduKey::Receipt { .. } => self.receipts_at = Some(now.after(RECEIPTS_EVERY)),
                EduKey::Presence { .. } => self.presence_at = Some(now.after(PRESENCE_EVERY)),
            }
            false
        });
    }

    /// Drops all EDUs.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The moment from which an EDU may be sent. `None`: none waits.
    pub fn ready_at(&self) -> Option<Moment> {
        let at = |key: &EduKey| match key {
            EduKey::Typing { .. } => None,
            EduKey::Receipt { .. } => self.receipts_at,
            EduKey::Presence { .. } => self.presence_at,
        };
        // The keys are sorted by kind, so the first of each kind would do; but there are few.
        self.waiting.keys().map(|key| at(key).unwrap_or(Moment(i64::MIN))).min()
    }

    /// The moment from which nothing must be remembered. `None`: already now.
    pub fn forget_at(&self) -> Option<Moment> {
        self.receipts_at.max(self.presence_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RoomNid, UserNid};

    fn typing(user: i64) -> EduKey {
        EduKey::Typing { room: RoomNid(1), user: UserNid(user) }
    }

    fn receipt(user: i64, thread: Option<&str>) -> EduKey {
        EduKey::Receipt { room: RoomNid(1), user: UserNid(user), thread: thread.map(Into::into) }
    }

    fn presence(user: i64) -> EduKey {
        EduKey::Presence { user: UserNid(user) }
    }

    fn taken(ephemeral: &mut Ephemeral, now_ms: i64) -> Vec<String> {
        let mut taken = vec![];
        ephemeral.take(Moment(now_ms), |json| {
            taken.push(json.to_string());
            true
        });
        taken
    }

    #[test]
    fn each_kind_is_sent_as_often_as_it_may() {
        let mut ephemeral = Ephemeral::default();
        let put = |ephemeral: &mut Ephemeral, key, json: &str| ephemeral.put(key, json.into(), 1_000);
        put(&mut ephemeral, presence(1), "p1");
        put(&mut ephemeral, receipt(1, None), "r1");
        put(&mut ephemeral, typing(1), "t1");
        assert_eq!(taken(&mut ephemeral, 0), ["t1", "r1", "p1"]);
        assert_eq!((ephemeral.ready_at(), ephemeral.bytes()), (None, 0));

        put(&mut ephemeral, receipt(1, None), "r2");
        put(&mut ephemeral, receipt(1, Some("$thread")), "r2 in thread");
        put(&mut ephemeral, receipt(1, None), "r3");
        put(&mut ephemeral, presence(1), "p2");
        put(&mut ephemeral, typing(1), "t2");
        assert_eq!(taken(&mut ephemeral, 500), ["t2"]);
        assert_eq!(ephemeral.ready_at(), Some(Moment(1_000)));
        assert_eq!(taken(&mut ephemeral, 1_000), ["r3", "r2 in thread"]);
        assert_eq!(ephemeral.ready_at(), Some(Moment(60_000)));
        assert_eq!(ephemeral.forget_at(), Some(Moment(60_000)));
        assert_eq!(taken(&mut ephemeral, 60_000), ["p2"]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut ephemeral = Ephemeral::default();
        for user in 0..1_000 {
            ephemeral.put(typing(user), "0123456789".into(), 10_000);
        }
        assert_eq!((ephemeral.waiting.len(), ephemeral.bytes()), (MAX_WAITING, 10 * MAX_WAITING));
        // A newer one of the same subject has its place, a larger one than may be has none.
        ephemeral.put(typing(0), "012".into(), 10_000);
        ephemeral.put(typing(1), "0".repeat(10_000).into(), 10_000);
        assert_eq!(ephemeral.bytes(), 10 * MAX_WAITING - 7);
        // The rest that does not fit into a transaction waits for the next one.
        ephemeral.take(Moment(0), |json| json.len() > 3);
        assert_eq!((ephemeral.waiting.len(), ephemeral.bytes(), ephemeral.ready_at()), (1, 3, Some(Moment(i64::MIN))));
        ephemeral.clear();
        assert_eq!((ephemeral.ready_at(), ephemeral.bytes()), (None, 0));
    }
}

//! Keys of one other server, by time: what we know of them after all answers that we have had.
//!
//! Promise: a known key never changes and is never forgotten, so an event that was once verified can be verified again.
//! An answer adds keys, and moves the ends of those that are there.
//!
//! Server-server API, [Retrieving server
//! keys](https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys).

use std::collections::BTreeMap;

use ruma::{OwnedServerSigningKeyId, ServerSigningKeyId};

use crate::published_keys::{PublicKey, PublishedKeys};

/// Maximum number of keys that a server can have. They are kept for ever, so a server must not be able to add any number.
/// One that rotates its keys each month needs forty years for as many.
pub const MAX_KEYS: usize = 512;

/// Maximum number of keys up to which keys are taken that a server only calls old. They prove nothing about themselves, so
/// they leave room for those that do.
const MAX_UNPROVED_KEYS: usize = MAX_KEYS / 2;

/// A key of another server, with its times in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    pub key: PublicKey,
    /// The time until which the server has said that it signs with the key.
    pub valid_until_ms: i64,
    /// The end of the key, if the server has retired it.
    pub expired_ms: Option<i64>,
}

impl KnownKey {
    /// Returns whether the key was, or is, valid at this moment.
    pub fn is_valid_at(&self, at_ms: i64) -> bool {
        at_ms <= self.expired_ms.unwrap_or(self.valid_until_ms)
    }
}

/// The way in which an answer with a server's keys came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the server itself: this is how its keys are now.
    Server,
    /// From a notary, which may have had it for long.
    Notary,
}

/// The changes by an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The keys that are new or have another end.
    pub changed: Vec<OwnedServerSigningKeyId>,
    /// The IDs under which the answer had another key than the one that is known. That one stays.
    pub contradicted: Vec<OwnedServerSigningKeyId>,
}

/// The keys of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownKeys(BTreeMap<OwnedServerSigningKeyId, KnownKey>);

impl FromIterator<(OwnedServerSigningKeyId, KnownKey)> for KnownKeys {
    fn from_iter<I: IntoIterator<Item = (OwnedServerSigningKeyId, KnownKey)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl KnownKeys {
    pub fn get(&self, key_id: &ServerSigningKeyId) -> Option<&KnownKey> {
        self.0.get(key_id)
    }

    pub fn ids(&self) -> impl Iterator<Item = &ServerSigningKeyId> {
        self.0.keys().map(|key_id| &**key_id)
    }

    /// The key, if it was valid at this moment. `None` is any moment: room versions before 5 do not ask.
    pub fn at(&self, key_id: &ServerSigningKeyId, at_ms: Option<i64>) -> Option<PublicKey> {
        let key = self.0.get(key_id)?;
        at_ms.is_none_or(|at_ms| key.is_valid_at(at_ms)).then_some(key.key)
    }

    /// Takes in an answer, which has come at `now_ms`.
    ///
    /// Only the server itself retires a key, or takes that back. An answer that has ended, or that a notary has kept, is a
    /// witness for the past: it adds keys, and can only extend those in use.
    pub fn learn(&mut self, published: &PublishedKeys, source: Source, now_ms: i64) -> Learned {
        let is_present = source == Source::Server && published.valid_until_ms > now_ms;
        let mut learned = Learned::default();
        let valid_until_ms = published.valid_until_ms;
        for (key_id, key) in &published.current {
            let new = KnownKey { key: *key, valid_until_ms, expired_ms: None };
            self.take(key_id, new, MAX_KEYS, &mut learned, |known| {
                if is_present || known.expired_ms.is_none() {
                    known.valid_until_ms = known.valid_until_ms.max(valid_until_ms);
                    known.expired_ms = None;
                }
            });
        }
        for (key_id, (key, expired_ms)) in &published.old {
            let new = KnownKey { key: *key, valid_until_ms: *expired_ms, expired_ms: Some(*expired_ms) };
            self.take(key_id, new, MAX_UNPROVED_KEYS, &mut learned, |known| {
                if is_present {
                    known.expired_ms = Some(*expired_ms);
                }
            });
        }
        if is_present {
            let is_listed = |key_id: &OwnedServerSigningKeyId| {
                (published.current.contains_key(key_id) || published.old.contains_key(key_id))
                    && !learned.contradicted.contains(key_id)
            };
            let gone = self.0.iter_mut().filter(|(key_id, known)| known.expired_ms.is_none() && !is_listed(key_id));
            // It may have signed until a moment ago, and promised to be valid until its end.
            let gone = gone.map(|(key_id, known)| {
                known.expired_ms = Some(known.valid_until_ms.min(now_ms));
                key_id.clone()
            });
            let gone: Vec<_> = gone.collect();
            learned.changed.extend(gone);
        }
        learned
    }

    fn take(
        &mut self,
        key_id: &OwnedServerSigningKeyId,
        new: KnownKey,
        most: usize,
        learned: &mut Learned,
        change: impl FnOnce(&mut KnownKey),
    ) {
        let has_room = self.0.len() < most;
        match self.0.get_mut(key_id) {
            Some(known) if known.key == new.key => {
                let before = *known;
                change(known);
                if *known != before {
                    learned.changed.push(key_id.clone());
                }
            }
            Some(_) => learned.contradicted.push(key_id.clone()),
            None if has_room => {
                self.0.insert(key_id.clone(), new);
                learned.changed.push(key_id.clone());
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;

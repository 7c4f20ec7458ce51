//! The keys that a room's state has never had, so that asking for them again needs no database.
//!
//! A pair of type and state key that is not in memory may be evicted, or no room may ever have had it; only the database
//! tells. Most rooms have no main alias, and each sync asks for it. An answer "absent" is valid until the room's state
//! gets the key.

use std::{collections::VecDeque, sync::Mutex};

use super::{Room, Rooms};
use crate::store::{Error, KeyNid, ids::lock};

/// The number of absent keys that a room remembers. About ten are asked for again and again: the name, the alias, the
/// power levels. The others are members' who were never in the room.
const REMEMBERED: usize = 24;

/// Keys that a room's state has never had.
#[derive(Debug, Default)]
pub(super) struct AbsentKeys(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The number of new keys so far, so that an answer that was read before one is not remembered after it.
    appeared: u64,
    /// Type and state key, oldest first.
    keys: VecDeque<(Box<str>, Box<str>)>,
}

impl Inner {
    fn contains(&self, event_type: &str, state_key: &str) -> bool {
        self.keys.iter().any(|(kind, key)| **kind == *event_type && **key == *state_key)
    }
}

impl AbsentKeys {
    pub(super) fn contains(&self, event_type: &str, state_key: &str) -> bool {
        lock(&self.0).contains(event_type, state_key)
    }

    fn appeared(&self) -> u64 {
        lock(&self.0).appeared
    }

    /// Remembers a key that was looked up after `appeared` new ones.
    fn add(&self, appeared: u64, event_type: &str, state_key: &str) {
        let mut inner = lock(&self.0);
        // Others may have looked up the same key meanwhile.
        if inner.appeared != appeared || inner.contains(event_type, state_key) {
            return;
        }
        if inner.keys.len() == REMEMBERED {
            inner.keys.pop_front();
        }
        inner.keys.push_back((event_type.into(), state_key.into()));
    }

    /// Notes that the room's state may have any key from now on.
    pub(super) fn clear(&self) {
        let mut inner = lock(&self.0);
        inner.appeared += 1;
        inner.keys.clear();
    }

    /// Notes that the room's state has the key, or will have it if the present write succeeds.
    pub(super) fn remove(&self, event_type: &str, state_key: &str) {
        let mut inner = lock(&self.0);
        inner.appeared += 1;
        inner.keys.retain(|(kind, key)| **kind != *event_type || **key != *state_key);
    }
}

impl Rooms {
    /// The short id of a key of the room's state; `None` if the state has never had it. Holders of a database reader
    /// must not ask: somebody else may be reading the same key, and wait for a reader.
    ///
    /// # Errors
    /// Fails if the key is not in memory and cannot be read.
    pub(crate) async fn find_key(
        &self,
        room: &Room,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<KeyNid>, Error> {
        if let Some(key) = self.db.state_key_in_memory(event_type, state_key) {
            return Ok(Some(key.nid));
        }
        if room.absent.contains(event_type, state_key) {
            return Ok(None);
        }
        let appeared = room.absent.appeared();
        let found = self.db.find_state_key(event_type, state_key).await?;
        if found.is_none() {
            room.absent.add(appeared, event_type, state_key);
        }
        Ok(found.map(|key| key.nid))
    }

    /// Lets these rooms remember a key as absent, with one question for all of them, if no room has ever had it.
    ///
    /// # Errors
    /// As [`Self::find_key`].
    pub(super) async fn prepare_key(&self, rooms: &[&Room], event_type: &str, state_key: &str) -> Result<(), Error> {
        if self.db.state_key_in_memory(event_type, state_key).is_some() {
            return Ok(());
        }
        let asking = rooms.iter().filter(|room| !room.absent.contains(event_type, state_key));
        let asking: Vec<(&Room, u64)> = asking.map(|room| (*room, room.absent.appeared())).collect();
        if !asking.is_empty() && self.db.find_state_key(event_type, state_key).await?.is_none() {
            asking.into_iter().for_each(|(room, appeared)| room.absent.add(appeared, event_type, state_key));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_absent_until_it_appears() {
        let absent = AbsentKeys::default();
        absent.add(absent.appeared(), "m.room.name", "");
        assert!(absent.contains("m.room.name", "") && !absent.contains("m.room.name", "x"));
        let before = absent.appeared();
        absent.remove("m.room.name", "");
        assert!(!absent.contains("m.room.name", ""));
        absent.add(before, "m.room.name", "");
        assert!(!absent.contains("m.room.name", ""), "it appeared while it was looked up");
    }

    #[test]
    fn few_absent_keys_are_remembered() {
        let absent = AbsentKeys::default();
        for number in 0..100 {
            // Two members may look it up at once.
            absent.add(0, "m.room.member", &number.to_string());
            absent.add(0, "m.room.member", &number.to_string());
            assert_eq!(lock(&absent.0).keys.len(), REMEMBERED.min(number + 1), "none is remembered twice");
            assert!(absent.contains("m.room.member", &number.to_string()));
        }
    }
}

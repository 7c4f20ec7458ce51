//! The presence of each user, as plain data: how it changes, and when it expires.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use ruma::{OwnedUserId, UserId, presence::PresenceState};

use crate::store::UserNid;

/// The time without activity after which an online user is unavailable.
const IDLE_AFTER_MS: i64 = 5 * 60 * 1000;

/// The time without a sync after which a user is offline.
const OFFLINE_AFTER_MS: i64 = 30 * 1000;

/// A user who was active within this time counts as currently active.
const CURRENTLY_ACTIVE_MS: i64 = 60 * 1000;

/// The interval of checks for users who went away, while any user is online or unavailable.
const CHECK_EVERY_MS: i64 = 5_000;

/// The availability of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    Online,
    Unavailable,
    Offline,
}

impl Availability {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Unavailable => "unavailable",
            Self::Offline => "offline",
        }
    }

    /// `None` for a state that the specification does not have.
    pub fn new(state: &PresenceState) -> Option<Self> {
        match state {
            PresenceState::Online => Some(Self::Online),
            PresenceState::Unavailable => Some(Self::Unavailable),
            PresenceState::Offline => Some(Self::Offline),
            _ => None,
        }
    }
}

impl From<Availability> for PresenceState {
    fn from(availability: Availability) -> Self {
        match availability {
            Availability::Online => Self::Online,
            Availability::Unavailable => Self::Unavailable,
            Availability::Offline => Self::Offline,
        }
    }
}

/// Changes of one user that others see at once. Each wakes everyone in the same rooms.
const CHANGES_AT_ONCE: i64 = 8;

/// The time after which one of these is allowed again. Faster changes are announced together, at that time.
const CHANGE_EVERY_MS: i64 = 5_000;

/// The presence of a user as others see it.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    pub availability: Availability,
    pub status_msg: Option<String>,
    pub last_active_ago: Option<Duration>,
    pub currently_active: bool,
}

/// The states of users who were seen lately, and of those with a status message.
#[derive(Default)]
pub(super) struct States {
    users: HashMap<UserNid, State>,
    /// The last change of each user, by number.
    changes: BTreeMap<u64, UserNid>,
    /// Users with changes that are not announced yet, because they came too fast.
    untold: HashSet<UserNid>,
    /// Users who are not offline.
    present: usize,
    next_check_at: i64,
}

struct State {
    user_id: OwnedUserId,
    availability: Availability,
    status_msg: Option<String>,
    active_at: i64,
    synced_at: i64,
    /// Number of running syncs.
    syncs: usize,
    /// The `set_presence` of the last sync.
    asked: Availability,
    changed: u64,
    /// The time when all of [`CHANGES_AT_ONCE`] are allowed again.
    whole_at: i64,
}

impl State {
    /// Returns whether a change may be announced now.
    fn may_be_told(&self, now: i64) -> bool {
        self.whole_at - now <= (CHANGES_AT_ONCE - 1) * CHANGE_EVERY_MS
    }
}

impl States {
    fn state(&mut self, (user, user_id): (UserNid, &UserId), now: i64) -> &mut State {
        self.users.entry(user).or_insert_with(|| State {
            user_id: user_id.to_owned(),
            availability: Availability::Offline,
            status_msg: None,
            active_at: now,
            synced_at: now,
            syncs: 0,
            asked: Availability::Offline,
            changed: 0,
            whole_at: now,
        })
    }

    /// Sets the user's availability, and records the change if it may be announced now. Takes the number under the
    /// lock, so that a reader who reads a number before the states sees every change up to it.
    fn change(
        &mut self,
        user: UserNid,
        availability: Availability,
        now: i64,
        number: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let state = self.users.get_mut(&user)?;
        if self.untold.is_empty() && self.present == 0 {
            self.next_check_at = now + CHECK_EVERY_MS;
        }
        self.present -= usize::from(state.availability != Availability::Offline);
        self.present += usize::from(availability != Availability::Offline);
        state.availability = availability;
        if !state.may_be_told(now) {
            self.untold.insert(user);
            return None;
        }
        state.whole_at = state.whole_at.max(now) + CHANGE_EVERY_MS;
        let number = number();
        self.untold.remove(&user);
        self.changes.remove(&state.changed);
        state.changed = number;
        self.changes.insert(number, user);
        Some(number)
    }

    pub(super) fn sync_began(
        &mut self,
        user: (UserNid, &UserId),
        asked: Availability,
        now: i64,
        number: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let state = self.state(user, now);
        let before = std::mem::replace(&mut state.asked, asked);
        let next = match (state.availability, asked) {
            (Availability::Offline, asked) => asked,
            // While other syncs run, another device may be in use.
            (Availability::Online, Availability::Unavailable) if state.syncs == 0 => Availability::Unavailable,
            // The user is back, unless they chose to be unavailable.
            (Availability::Unavailable, Availability::Online) if before == Availability::Unavailable => asked,
            (availability, _) => availability,
        };
        state.syncs += 1;
        state.synced_at = now;
        if next == state.availability {
            return None;
        }
        if next == Availability::Online {
            state.active_at = now;
        }
        self.change(user.0, next, now, number)
    }

    pub(super) fn sync_ended(&mut self, user: UserNid, now: i64) {
        if let Some(state) = self.users.get_mut(&user) {
            state.syncs = state.syncs.saturating_sub(1);
            state.synced_at = now;
        }
    }

    pub(super) fn active(&mut self, user: (UserNid, &UserId), now: i64, number: impl FnOnce() -> u64) -> Option<u64> {
        let state = self.state(user, now);
        state.active_at = now;
        state.synced_at = now;
        // A user who does not sync, or not visibly, stays offline. Others see the activity and nothing more.
        if state.availability != Availability::Unavailable {
            return None;
        }
        self.change(user.0, Availability::Online, now, number)
    }

    pub(super) fn set(
        &mut self,
        user: (UserNid, &UserId),
        availability: Availability,
        status_msg: Option<String>,
        now: i64,
        number: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let state = self.state(user, now);
        state.synced_at = now;
        // The next sync with the same `set_presence` as before must not undo the user's choice.
        state.asked = Availability::Online;
        if availability == Availability::Online {
            state.active_at = now;
        }
        if state.availability == availability && state.status_msg == status_msg {
            return None;
        }
        state.status_msg = status_msg;
        self.change(user.0, availability, now, number)
    }

    /// Removes users who have been offline since `before`, except those with a status message. They look as if they had
    /// not been seen since the start of the server.
    pub(super) fn forget_offline(&mut self, before: i64) {
        let changes = &mut self.changes;
        self.users.retain(|_, state| {
            let keep = state.availability != Availability::Offline
                || state.syncs > 0
                || state.status_msg.is_some()
                || state.synced_at >= before;
            if !keep {
                changes.remove(&state.changed);
            }
            keep
        });
        let users = &self.users;
        self.untold.retain(|user| users.contains_key(user));
    }

    /// Returns whether there are changes to announce later.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<i64> {
        (self.present > 0 || !self.untold.is_empty()).then_some(self.next_check_at)
    }

    pub(super) fn expire(&mut self, now: i64, mut number: impl FnMut() -> u64) -> Vec<(UserNid, u64)> {
        if self.next_due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.next_check_at = now + CHECK_EVERY_MS;
        let due = |state: &State| match state.availability {
            Availability::Offline => None,
            _ if state.syncs == 0 && now - state.synced_at >= OFFLINE_AFTER_MS => Some(Availability::Offline),
            Availability::Online if now - state.active_at >= IDLE_AFTER_MS => Some(Availability::Unavailable),
            Availability::Online | Availability::Unavailable => None,
        };
        let ended = self.users.iter().filter_map(|(user, state)| Some((*user, due(state)?)));
        let mut due_now: Vec<_> = ended.collect();
        // Users whose state changes now are announced with that change.
        let untold = self.untold.iter().filter_map(|user| Some((*user, self.users.get(user)?)));
        let told_now = untold.filter(|(_, state)| due(state).is_none() && state.may_be_told(now));
        due_now.extend(told_now.map(|(user, state)| (user, state.availability)));
        let told = due_now
            .into_iter()
            .filter_map(|(user, availability)| Some((user, self.change(user, availability, now, &mut number)?)));
        told.collect()
    }

    pub(super) fn status(&self, user: UserNid, now: i64) -> Status {
        let Some(state) = self.users.get(&user) else {
            return Status {
                availability: Availability::Offline,
                status_msg: None,
                last_active_ago: None,
                currently_active: false,
            };
        };
        let ago_ms = (now - state.active_at).max(0);
        Status {
            availability: state.availability,
            status_msg: state.status_msg.clone(),
            last_active_ago: Some(Duration::from_millis(ago_ms.unsigned_abs())),
            currently_active: state.availability == Availability::Online && ago_ms < CURRENTLY_ACTIVE_MS,
        }
    }

    /// Users who changed after `since`, the latest first. If `since` is 0, offline users are omitted.
    pub(super) fn changed_since(&self, since: u64, limit: usize) -> Vec<(UserNid, OwnedUserId)> {
        self.changes
            .range(since + 1..)
            .rev()
            .filter_map(|(_, user)| Some((*user, self.users.get(user)?)))
            .filter(|(_, state)| since > 0 || state.availability != Availability::Offline)
            .take(limit)
            .map(|(user, state)| (user, state.user_id.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;

//! Presence: which users are online ([spec]). In memory only: after a restart everyone is offline until they sync, and
//! clients that were told otherwise get the change with their first sync.
//!
//! A sync makes a user online. Five minutes without activity make them unavailable, and half a minute without a sync
//! makes them offline. Users see the presence of those they share a room with. Each change has a number, so a sync
//! without changes compares two numbers. With `presence.enabled = false` nothing is stored: changes are accepted and
//! discarded, and everyone is offline.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#presence

mod states;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex},
};

use ruma::{UserId, presence::PresenceState};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use tokio::sync::OnceCell;

use self::states::States;
pub use self::states::{Availability, Status};
use super::Ephemeral;
use crate::{
    bus::Bus,
    clock::Clock,
    report::Report,
    room::Rooms,
    store::{self, UserNid, devices, ids::lock, vocabulary::User},
};

/// Maximum length of a status message.
pub const MAX_STATUS_MSG_BYTES: usize = 1024;

/// Maximum number of users in one sync answer: those whose presence changed last.
const MAX_SHOWN: usize = 1_000;

/// Maximum number of users reported as offline after a restart: those who were seen last. Each costs one look at their
/// rooms.
const MAX_SEEN_BEFORE: usize = 2_000;

/// Maximum number of changes that a sync in memory searches: those of a second on a busy server. Each takes a walk over the
/// rooms of the viewer.
const MAX_STRANGERS: usize = 16;

/// Maximum number of changes that one sync searches for users in the same rooms.
const MAX_LOOKED_AT: usize = 10_000;

/// The presence of everyone on this server.
pub(super) struct Presence {
    enabled: bool,
    clock: Clock,
    states: Mutex<States>,
    /// The times when users were last seen before this start of the server, in milliseconds since 1970, latest first.
    /// Read when the first client comes back.
    seen_before: OnceCell<Vec<(UserNid, i64)>>,
}

/// A viewer's knowledge of the presence of others.
pub struct PresenceSince<'a> {
    /// The number of the last change that the viewer was told of; 0 is before everything.
    pub number: u64,
    /// The start of the server that sent it, if it was an earlier one.
    pub earlier_start: Option<i64>,
    /// Users whom the viewer has just met in a room.
    pub met: &'a BTreeSet<String>,
}

/// A running sync. While there is one, its user does not go offline.
pub struct Syncing {
    presence: Arc<Presence>,
    user: UserNid,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        lock(&self.presence.states).sync_ended(self.user, self.presence.clock.now_ms());
    }
}

impl Presence {
    pub(super) fn new(enabled: bool, clock: Clock) -> Self {
        Self { enabled, clock, states: Mutex::default(), seen_before: OnceCell::new() }
    }

    /// The time to look again for users who went away.
    pub(super) fn next_due(&self) -> Option<i64> {
        lock(&self.states).next_due()
    }

    /// Ends expired presence. Returns the users who became unavailable or offline, with the numbers of these changes.
    pub(super) fn expire(&self, number: impl FnMut() -> u64) -> Vec<(UserNid, u64)> {
        lock(&self.states).expire(self.clock.now_ms(), number)
    }
}

impl Ephemeral {
    /// Starts a sync of the user, with its `set_presence`. The caller must keep the result until the sync is answered, and
    /// [`announce`](Self::announce) the change with the returned number, if there is one.
    pub fn touch(&self, user: &User, set_presence: &PresenceState) -> (Option<Syncing>, Option<u64>) {
        let asked = match set_presence {
            PresenceState::Offline => return (None, None),
            PresenceState::Unavailable => Availability::Unavailable,
            _ => Availability::Online,
        };
        if !self.presence.enabled {
            return (None, None);
        }
        let now = self.clock.now_ms();
        let changed =
            self.presence_changes(|states, number| states.sync_began((user.nid, &user.user_id), asked, now, number));
        (Some(Syncing { presence: Arc::clone(&self.presence), user: user.nid }), changed)
    }

    /// Records activity of the user, such as sending a message. An offline user stays offline.
    pub async fn active(&self, rooms: &Rooms, user: &User) -> Result<(), store::Error> {
        if !self.presence.enabled {
            return Ok(());
        }
        let now = self.clock.now_ms();
        let changed = self.presence_changes(|states, number| states.active((user.nid, &user.user_id), now, number));
        if let Some(number) = changed {
            self.announce(rooms, user.nid, number).await;
        }
        Ok(())
    }

    /// Sets the presence that the user chose. The status message has at most [`MAX_STATUS_MSG_BYTES`].
    pub async fn set_presence(
        &self,
        rooms: &Rooms,
        user: &User,
        availability: Availability,
        status_msg: Option<String>,
    ) -> Result<(), store::Error> {
        if !self.presence.enabled {
            return Ok(());
        }
        let now = self.clock.now_ms();
        let changed = self.presence_changes(|states, number| {
            states.set((user.nid, &user.user_id), availability, status_msg, now, number)
        });
        if let Some(number) = changed {
            self.announce(rooms, user.nid, number).await;
        }
        Ok(())
    }

    /// Makes a change. Returns its number if it may be announced now.
    fn presence_changes(&self, change: impl FnOnce(&mut States, &dyn Fn() -> u64) -> Option<u64>) -> Option<u64> {
        let mut states = lock(&self.presence.states);
        let changed = change(&mut states, &|| self.bus.next_ephemeral());
        if changed.is_some() || states.has_untold() {
            self.sooner.notify_one();
        }
        changed
    }

    /// The user's presence. The caller must check that it may be shown.
    pub fn presence(&self, user: UserNid) -> Status {
        lock(&self.presence.states).status(user, self.clock.now_ms())
    }

    /// Returns whether [`Self::presence_since`] certainly finds nothing after the number, for a viewer whom this start of the
    /// server answered last and who has met nobody since: nobody's presence changed, or only that of a few users who share
    /// no room with the viewer.
    pub fn has_no_presence_since(&self, rooms: &Rooms, viewer: UserNid, number: u64) -> bool {
        let changed = lock(&self.presence.states).changed_since(self.known(number), MAX_STRANGERS + 1);
        let is_stranger = |user: UserNid| user != viewer && rooms.are_strangers(viewer, user);
        changed.len() <= MAX_STRANGERS && changed.iter().all(|(user, _)| is_stranger(*user))
    }

    /// The `m.presence` events for `viewer`, at most [`MAX_SHOWN`], of `wanted` users only:
    ///
    /// - users who share a room with the viewer and whose presence changed since
    /// - users whom the viewer has just met in a room and who are not offline, also without a change
    /// - after a restart, users who share a room with the viewer and went offline.
    pub async fn presence_since(
        &self,
        rooms: &Rooms,
        viewer: UserNid,
        since: PresenceSince<'_>,
        wanted: impl Fn(&UserId) -> bool,
    ) -> Result<Vec<Box<RawValue>>, store::Error> {
        let changed = lock(&self.presence.states).changed_since(self.known(since.number), MAX_LOOKED_AT);
        let mut events = Vec::new();
        let mut shown = HashSet::new();
        for (user, user_id) in changed {
            if events.len() >= MAX_SHOWN {
                break;
            }
            if wanted(&user_id) && (user == viewer || rooms.share_a_room(viewer, user).await?) {
                events.push(render(&user_id, &self.presence(user)));
                shown.insert(user);
            }
        }
        let met = if self.presence.enabled { since.met.iter() } else { Default::default() };
        for user_id in met.filter_map(|user_id| UserId::parse(user_id).ok()).filter(|user_id| wanted(user_id)) {
            if events.len() >= MAX_SHOWN {
                break;
            }
            let Some(user) = self.db.find_user(&user_id).await?.filter(|user| !shown.contains(&user.nid)) else {
                continue;
            };
            let status = self.presence(user.nid);
            if status.availability != Availability::Offline {
                events.push(render(&user_id, &status));
            }
        }
        for user in self.gone_since(since.earlier_start).await? {
            if events.len() >= MAX_SHOWN {
                break;
            }
            let status = self.presence(user);
            if user == viewer
                || status.availability != Availability::Offline
                || !rooms.share_a_room(viewer, user).await?
            {
                continue;
            }
            let user = self.db.user_by_nid(user).await?;
            if wanted(&user.user_id) {
                events.push(render(&user.user_id, &status));
            }
        }
        Ok(events)
    }

    /// Users who may have been online when another start said so: all users who were seen since that start, which may be too
    /// many. The starts of processes that share the database have no time in it, so for these it is everyone.
    async fn gone_since(&self, earlier_start: Option<i64>) -> Result<Vec<UserNid>, store::Error> {
        let Some(start) = earlier_start.filter(|_| self.presence.enabled) else { return Ok(Vec::new()) };
        let read = async || {
            let mut reader = self.db.read().await?;
            devices::last_seen_users(&mut reader.conn(), MAX_SEEN_BEFORE).await
        };
        let seen = self.presence.seen_before.get_or_try_init(read).await?;
        let mut reader = self.db.read().await?;
        let started_at = match devices::started_at(&mut reader.conn(), start).await? {
            Some(started_at) => started_at,
            None if self.db.committer().is_shared() => i64::MIN,
            None => return Ok(Vec::new()),
        };
        Ok(seen.iter().take_while(|(_, seen_at)| *seen_at >= started_at).map(|(user, _)| *user).collect())
    }

    /// Removes users who have been offline since `before_ms`. Called regularly, so that memory stays bounded. A client
    /// that was away all that time is not told that they went offline.
    pub fn forget_offline(&self, before_ms: i64) {
        lock(&self.presence.states).forget_offline(before_ms);
    }

    /// Wakes the user and everyone who shares a room with them.
    ///
    /// # Cancellation
    /// Safe. If dropped, it wakes everyone.
    pub async fn announce(&self, rooms: &Rooms, user: UserNid, number: u64) {
        let mut untold = Untold { bus: Some(&self.bus), number };
        self.bus.wake_user_ephemeral(user, number);
        match rooms.joined_rooms(user).await {
            Ok(rooms) => rooms.into_iter().for_each(|room| self.bus.wake_room_ephemeral(room, number)),
            Err(error) => {
                // An unnecessary look costs little, but a missing one hides the change.
                tracing::warn!(error = %Report(&error), "presence announced to everyone");
                self.bus.wake_everyone_ephemeral(number);
            }
        }
        untold.bus = None;
    }
}

/// A change that has its number but is not announced yet. If the client hangs up, its request is dropped, and no other
/// task would announce the change. So dropping this wakes everyone.
struct Untold<'a> {
    /// `None` once it is announced.
    bus: Option<&'a Bus>,
    number: u64,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if let Some(bus) = self.bus {
            bus.wake_everyone_ephemeral(self.number);
        }
    }
}

fn render(user_id: &UserId, status: &Status) -> Box<RawValue> {
    let mut content = json!({ "presence": status.availability.as_str(), "currently_active": status.currently_active });
    if let Some(ago) = status.last_active_ago {
        content["last_active_ago"] = json!(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
    }
    if let Some(status_msg) = &status.status_msg {
        content["status_msg"] = json!(status_msg);
    }
    let event = json!({ "type": "m.presence", "sender": user_id, "content": content });
    to_raw_value(&event).expect("an object of strings and numbers can be written")
}

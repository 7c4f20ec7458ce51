//! History visibility: the events of a room that a user may see ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility

mod many;

use std::sync::Arc;

use sabha_federation::{
    standing::Flags,
    state_log::{LogRow, Membership},
};
use serde::Deserialize;

use crate::{
    memory::cache::HasBytes,
    room::{Room, Rooms, event::StoredEvent},
    store::{Error, KeyNid, Position, TimelinePlace, vocabulary::User},
};

/// The `history_visibility` of a room: the users who may read events from before they joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryVisibility {
    WorldReadable,
    Shared,
    Invited,
    Joined,
}

/// The parts of one room that one user may see: the history of their membership and of the room's visibility in the state
/// log.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// The user's membership as a key of the state. `None`: the state has never had it.
    member_key: Option<KeyNid>,
    visibility_key: Option<KeyNid>,
    memberships: Vec<(Position, Membership)>,
    visibilities: Vec<(Position, HistoryVisibility)>,
}

/// The part of a state that decides what a user may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    membership: Option<Membership>,
    visibility: HistoryVisibility,
}

impl Sight {
    /// The user's membership right after `pos`.
    pub fn membership_at(&self, pos: Position) -> Option<Membership> {
        at(&self.memberships, pos)
    }

    /// The user's membership right after the event, in the state that the event itself stands in. `None` also if the
    /// event is not part of the timeline.
    pub fn membership_after(&self, event: &StoredEvent) -> Option<Membership> {
        event.place().and_then(|place| self.moment_after(event, place).membership)
    }

    /// The last change of the user's membership up to `upto`.
    pub fn latest(&self, upto: Position) -> Option<(Position, Membership)> {
        self.memberships[..self.memberships.partition_point(|(at, _)| *at <= upto)].last().copied()
    }

    fn visibility_at(&self, pos: Position) -> HistoryVisibility {
        at(&self.visibilities, pos).unwrap_or(HistoryVisibility::Shared)
    }

    fn moment_at(&self, pos: Position) -> Moment {
        Moment { membership: self.membership_at(pos), visibility: self.visibility_at(pos) }
    }

    /// The state after an event at this place.
    fn moment_after(&self, event: &StoredEvent, place: TimelinePlace) -> Moment {
        if event.standing.flags.contains(Flags::TIP) {
            return self.moment_at(place.pos);
        }
        let before = self.moment_at(event.standing.before.pos);
        match event.key {
            Some(key) if Some(key) == self.member_key => Moment { membership: event.membership(), ..before },
            Some(key) if Some(key) == self.visibility_key => Moment { visibility: visibility_in(event), ..before },
            _ => before,
        }
    }

    /// Returns whether the user may see the event. It is judged by the states right before and right after it, wherever
    /// it stands in the room's graph, and the more open of the values counts. Events without a place are not seen.
    pub fn sees(&self, event: &StoredEvent) -> bool {
        let Some(place) = event.place() else { return false };
        let moments = [self.moment_at(event.standing.before.pos), self.moment_after(event, place)];
        self.allows(moments, |joined_at| TimelinePlace::on_line(joined_at) > place)
    }

    /// Returns whether the user may see an event of the line at `pos` that follows on all events before it.
    fn sees_line_at(&self, pos: Position) -> bool {
        let moments = [self.moment_at(Position(pos.0 - 1)), self.moment_at(pos)];
        self.allows(moments, |joined_at| joined_at > pos)
    }

    /// Decides by the moments before and after an event. `is_later` says of the position of a change whether it comes
    /// after the event.
    fn allows(&self, moments: [Moment; 2], is_later: impl Fn(Position) -> bool) -> bool {
        // From the end: for a user who is in the room, the first entry decides.
        let mut later = self.memberships.iter().rev().take_while(|(at, _)| is_later(*at));
        let joins_later = later.any(|(_, membership)| *membership == Membership::Join);
        let allows = |visibility: HistoryVisibility, membership: Option<Membership>| match visibility {
            HistoryVisibility::WorldReadable => true,
            HistoryVisibility::Shared => membership == Some(Membership::Join) || joins_later,
            HistoryVisibility::Invited => matches!(membership, Some(Membership::Join | Membership::Invite)),
            HistoryVisibility::Joined => membership == Some(Membership::Join),
        };
        let mut visibilities = moments.iter().map(|moment| moment.visibility);
        visibilities.any(|visibility| moments.iter().any(|moment| allows(visibility, moment.membership)))
    }

    /// Returns whether the user may see any event of the line up to `pos`, if there is one.
    pub fn sees_any_up_to(&self, pos: Position) -> bool {
        let memberships = self.memberships.iter().map(|(at, _)| at.0);
        let changes = memberships.chain(self.visibilities.iter().map(|(at, _)| at.0));
        // All positions between two changes are alike, so one position of each stretch is enough.
        let mut stretches = changes.flat_map(|at| [at - 1, at, at + 1]).chain([pos.0]);
        stretches.any(|at| 0 < at && at <= pos.0 && self.sees_line_at(Position(at)))
    }

    /// Returns whether the user has ever been in the room.
    pub fn ever_joined(&self) -> bool {
        self.first_joined().is_some()
    }

    /// The position of the user's first join.
    pub fn first_joined(&self) -> Option<Position> {
        self.memberships.iter().find(|(_, membership)| *membership == Membership::Join).map(|(pos, _)| *pos)
    }

    /// The position since which the user has been in the room without a break, as of `upto`. `None`: they are not in
    /// it.
    pub fn joined_since(&self, upto: Position) -> Option<Position> {
        let by_then = &self.memberships[..self.memberships.partition_point(|(at, _)| *at <= upto)];
        let stay = by_then.iter().rev().take_while(|(_, membership)| *membership == Membership::Join);
        stay.last().map(|(joined_at, _)| *joined_at)
    }

    /// The position up to which the user was in the room, as of `upto`: `upto` itself if they are in it, their
    /// departure if they have left. `None`: never in the room by then.
    pub fn joined_until(&self, upto: Position) -> Option<Position> {
        let by_then = &self.memberships[..self.memberships.partition_point(|(at, _)| *at <= upto)];
        let last = by_then.iter().rposition(|(_, membership)| *membership == Membership::Join)?;
        Some(by_then.get(last + 1).map_or(upto, |(left_at, _)| *left_at))
    }

    /// Returns whether the user may see anything that comes after `pos`, as things stand: they are joined, or the room
    /// is world readable.
    pub fn sees_now(&self, pos: Position) -> bool {
        self.membership_at(pos) == Some(Membership::Join) || self.visibility_at(pos) == HistoryVisibility::WorldReadable
    }
}

fn at<T: Copy>(changes: &[(Position, T)], pos: Position) -> Option<T> {
    let after = changes.partition_point(|(at, _)| *at <= pos);
    changes.get(after.checked_sub(1)?).map(|(_, value)| *value)
}

/// A cached [`Sight`] with the positions of the latest changes it knows.
#[derive(Debug, Clone)]
pub(crate) struct CachedSight {
    versions: (Option<Position>, Option<Position>),
    sight: Arc<Sight>,
}

/// Approximate memory of a [`CachedSight`] without changes, and of each change.
const SIGHT_BYTES: usize = 200;
const CHANGE_BYTES: usize = 16;

impl HasBytes for CachedSight {
    fn bytes(&self) -> u64 {
        let changes = self.sight.memberships.len() + self.sight.visibilities.len();
        (SIGHT_BYTES + CHANGE_BYTES * changes) as u64
    }
}

/// The keys of a room's state that decide what a user sees, and the positions of their latest changes.
struct SightKeys {
    member: Option<KeyNid>,
    visibility: Option<KeyNid>,
    versions: (Option<Position>, Option<Position>),
}

impl Rooms {
    /// The user's [`Sight`] of the room.
    pub async fn sight(&self, room: &Room, user: &User) -> Result<Arc<Sight>, Error> {
        let keys = self.sight_keys(room, user).await?;
        if let Some(sight) = self.cached_sight(room, user, &keys) {
            return Ok(sight);
        }
        let memberships = match keys.member {
            Some(key) => self.key_history(room, key).await?,
            None => Vec::new(),
        };
        let visibilities = match keys.visibility {
            Some(key) => self.key_history(room, key).await?,
            None => Vec::new(),
        };
        self.sight_from(room, user, &keys, (&memberships, &visibilities)).await
    }

    async fn sight_keys(&self, room: &Room, user: &User) -> Result<SightKeys, Error> {
        let member = self.find_key(room, "m.room.member", user.user_id.as_str()).await?;
        let visibility = self.find_key(room, "m.room.history_visibility", "").await?;
        let view = room.view();
        let pos_of = |key: Option<KeyNid>| key.and_then(|key| view.state.get(key)).map(|entry| entry.pos);
        Ok(SightKeys { member, visibility, versions: (pos_of(member), pos_of(visibility)) })
    }

    fn cached_sight(&self, room: &Room, user: &User, keys: &SightKeys) -> Option<Arc<Sight>> {
        let cached = self.sights.get(&(user.nid, room.nid))?;
        let same_keys = (cached.sight.member_key, cached.sight.visibility_key) == (keys.member, keys.visibility);
        (same_keys && cached.versions == keys.versions).then_some(cached.sight)
    }

    /// The sight that follows from every change of the two keys. Keeps it in the cache.
    async fn sight_from(
        &self,
        room: &Room,
        user: &User,
        keys: &SightKeys,
        (memberships, visibilities): (&[LogRow], &[LogRow]),
    ) -> Result<Arc<Sight>, Error> {
        // A state without the key is one without the user.
        let gone = |row: &LogRow| row.event_nid.is_none().then_some(Membership::Leave);
        let of_user = memberships.iter().filter_map(|row| Some((row.pos, row.membership.or_else(|| gone(row))?)));
        let mut sight = Sight {
            member_key: keys.member,
            visibility_key: keys.visibility,
            memberships: of_user.collect(),
            visibilities: Vec::with_capacity(visibilities.len()),
        };
        for LogRow { pos, event_nid, .. } in visibilities {
            let visibility = match event_nid {
                Some(event_nid) => visibility_in(&*self.events.get(room, *event_nid).await?),
                None => HistoryVisibility::Shared,
            };
            sight.visibilities.push((*pos, visibility));
        }
        let known = (sight.memberships.last().map(|(pos, _)| *pos), sight.visibilities.last().map(|(pos, _)| *pos));
        let sight = Arc::new(sight);
        // The rows lack a change that is not committed yet. The result is right for now then, but must not be cached.
        if known == keys.versions {
            let cached = CachedSight { versions: keys.versions, sight: Arc::clone(&sight) };
            self.sights.insert((user.nid, room.nid), cached);
        }
        Ok(sight)
    }
}

fn visibility_in(event: &StoredEvent) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: String,
    }
    match event.content::<Content>().as_ref().map(|content| content.history_visibility.as_str()) {
        Some("world_readable") => HistoryVisibility::WorldReadable,
        Some("invited") => HistoryVisibility::Invited,
        Some("joined") => HistoryVisibility::Joined,
        _ => HistoryVisibility::Shared,
    }
}

#[cfg(test)]
mod tests;

//! History visibility: the events of a room that a user may see ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility

mod many;

use std::sync::Arc;

use serde::Deserialize;

use super::{
    Room, Rooms,
    event::StoredEvent,
    state_log::{LogRow, Membership},
};
use crate::store::{Error, KeyNid, Position, vocabulary::User};

/// The `history_visibility` of a room: the users who may read events from before they joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryVisibility {
    WorldReadable,
    Shared,
    Invited,
    Joined,
}

/// The parts of one room that one user may see: the history of their membership and of the room's visibility.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    memberships: Vec<(Position, Membership)>,
    visibilities: Vec<(Position, HistoryVisibility)>,
}

impl Sight {
    /// The user's membership right after `pos`.
    pub fn membership_at(&self, pos: Position) -> Option<Membership> {
        at(&self.memberships, pos)
    }

    /// The last change of the user's membership up to `upto`.
    pub fn latest(&self, upto: Position) -> Option<(Position, Membership)> {
        self.memberships[..self.memberships.partition_point(|(at, _)| *at <= upto)].last().copied()
    }

    fn visibility_at(&self, pos: Position) -> HistoryVisibility {
        at(&self.visibilities, pos).unwrap_or(HistoryVisibility::Shared)
    }

    /// Returns whether the user may see the event at `pos`. A change of membership or of visibility is judged by the
    /// values before and after it, and the more open one counts.
    pub fn can_see(&self, pos: Position) -> bool {
        let before = Position(pos.0 - 1);
        // From the end: for a user who is in the room, the first entry decides.
        let mut later = self.memberships.iter().rev().take_while(|(at, _)| *at > pos);
        let joins_later = later.any(|(_, membership)| *membership == Membership::Join);
        let allows = |visibility: HistoryVisibility, membership: Option<Membership>| match visibility {
            HistoryVisibility::WorldReadable => true,
            HistoryVisibility::Shared => membership == Some(Membership::Join) || joins_later,
            HistoryVisibility::Invited => matches!(membership, Some(Membership::Join | Membership::Invite)),
            HistoryVisibility::Joined => membership == Some(Membership::Join),
        };
        let (membership_before, membership_after) = (self.membership_at(before), self.membership_at(pos));
        let (visibility_before, visibility_after) = (self.visibility_at(before), self.visibility_at(pos));
        [visibility_before, visibility_after]
            .into_iter()
            .any(|visibility| allows(visibility, membership_before) || allows(visibility, membership_after))
    }

    /// Returns whether the user may see any event up to `pos`, if there is one.
    pub fn sees_any_up_to(&self, pos: Position) -> bool {
        let memberships = self.memberships.iter().map(|(at, _)| at.0);
        let changes = memberships.chain(self.visibilities.iter().map(|(at, _)| at.0));
        // All positions between two changes are alike, so one position of each stretch is enough.
        let mut stretches = changes.flat_map(|at| [at - 1, at, at + 1]).chain([pos.0]);
        stretches.any(|at| 0 < at && at <= pos.0 && self.can_see(Position(at)))
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
        (cached.versions == keys.versions).then_some(cached.sight)
    }

    /// The sight that follows from every change of the two keys. Keeps it in the cache.
    async fn sight_from(
        &self,
        room: &Room,
        user: &User,
        keys: &SightKeys,
        (memberships, visibilities): (&[LogRow], &[LogRow]),
    ) -> Result<Arc<Sight>, Error> {
        let of_user = memberships.iter().filter_map(|row| row.membership.map(|membership| (row.pos, membership)));
        let mut sight = Sight { memberships: of_user.collect(), visibilities: Vec::with_capacity(visibilities.len()) };
        for LogRow { pos, event_nid, .. } in visibilities {
            let Some(event_nid) = event_nid else { continue };
            let event = self.events.get(room, *event_nid).await?;
            sight.visibilities.push((*pos, visibility_in(&event)));
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
mod tests {
    use super::*;
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use Membership::{Ban, Invite, Join, Leave};

    fn check(visibility: HistoryVisibility, memberships: &[(i64, Membership)], pos: i64, expected: bool) {
        let sight = Sight {
            memberships: memberships.iter().map(|(pos, membership)| (Position(*pos), *membership)).collect(),
            visibilities: vec![(Position(1), visibility)],
        };
        assert_eq!(sight.can_see(Position(pos)), expected, "{visibility:?}, {memberships:?}, at {pos}");
    }

    #[test]
    fn what_a_user_sees_follows_the_table_of_the_spec() {
        let came_late = [(10, Invite), (20, Join)];
        let left = [(10, Join), (20, Leave)];
        let came_back = [(10, Join), (20, Leave), (30, Join)];
        check(WorldReadable, &[], 5, true);
        check(WorldReadable, &left, 25, true);
        check(Shared, &[], 5, false);
        check(Shared, &came_late, 5, true);
        check(Shared, &left, 15, true);
        check(Shared, &left, 25, false);
        check(Shared, &came_back, 25, true);
        check(Shared, &[(10, Invite)], 15, false);
        check(Shared, &[(10, Ban)], 15, false);
        check(Invited, &came_late, 5, false);
        check(Invited, &came_late, 15, true);
        check(Invited, &came_late, 10, true);
        check(Invited, &left, 25, false);
        check(Joined, &came_late, 15, false);
        check(Joined, &came_late, 20, true);
        check(Joined, &came_late, 25, true);
        check(Joined, &left, 20, true);
        check(Joined, &left, 21, false);
    }

    #[test]
    fn something_before_a_position_is_seen_or_nothing() {
        let check = |visibilities: &[(i64, HistoryVisibility)], memberships: &[(i64, Membership)], upto, expected| {
            let sight = Sight {
                memberships: memberships.iter().map(|(pos, membership)| (Position(*pos), *membership)).collect(),
                visibilities: visibilities.iter().map(|(pos, visibility)| (Position(*pos), *visibility)).collect(),
            };
            assert_eq!(sight.sees_any_up_to(Position(upto)), expected, "{visibilities:?}, {memberships:?}, to {upto}");
        };
        check(&[(1, Joined)], &[(20, Join)], 19, true); // Before its first visibility, the room is shared.
        check(&[(1, Joined)], &[(20, Join)], 0, false);
        check(&[(1, WorldReadable), (5, Joined)], &[(20, Join)], 19, true);
        check(&[(0, Joined)], &[(20, Join)], 19, false);
        check(&[(0, Joined)], &[(20, Join)], 20, true);
        check(&[(0, Joined)], &[(5, Join), (8, Leave), (20, Join)], 19, true);
        check(&[(0, Joined)], &[(5, Join), (8, Leave), (20, Join)], 4, false);
        check(&[(0, Invited)], &[(10, Invite), (20, Join)], 19, true);
        check(&[(0, Invited)], &[(10, Invite), (20, Join)], 9, false);
        check(&[(0, Joined), (10, Shared), (12, Joined)], &[(20, Join)], 15, true);
        check(&[(0, Joined), (10, Shared), (12, Joined)], &[(20, Join)], 9, false);
    }

    #[test]
    fn who_left_saw_the_room_until_they_left_whatever_came_later() {
        let check = |memberships: &[(i64, Membership)], expected: Option<i64>| {
            let memberships = memberships.iter().map(|(pos, membership)| (Position(*pos), *membership)).collect();
            let sight = Sight { memberships, visibilities: vec![] };
            assert_eq!(sight.joined_until(Position(50)), expected.map(Position));
        };
        check(&[], None);
        check(&[(10, Invite), (20, Leave)], None);
        check(&[(10, Join)], Some(50));
        check(&[(10, Join), (20, Leave)], Some(20));
        check(&[(10, Join), (20, Leave), (30, Invite), (40, Leave)], Some(20));
        check(&[(10, Join), (20, Leave), (30, Ban)], Some(20));
        check(&[(10, Join), (20, Leave), (30, Join), (40, Ban)], Some(40));
        check(&[(10, Join), (60, Leave)], Some(50));
    }

    #[test]
    fn a_stay_begins_with_the_last_join_and_not_with_a_new_name() {
        let check = |memberships: &[(i64, Membership)], expected: Option<i64>| {
            let memberships = memberships.iter().map(|(pos, membership)| (Position(*pos), *membership)).collect();
            let sight = Sight { memberships, visibilities: vec![] };
            assert_eq!(sight.joined_since(Position(50)), expected.map(Position));
        };
        check(&[], None);
        check(&[(10, Invite)], None);
        check(&[(10, Invite), (20, Join)], Some(20));
        check(&[(20, Join), (30, Join), (40, Join)], Some(20));
        check(&[(20, Join), (30, Leave), (35, Join), (40, Join)], Some(35));
        check(&[(20, Join), (30, Leave)], None);
        check(&[(20, Join), (60, Leave)], Some(20));
        check(&[(60, Join)], None);
    }

    #[test]
    fn a_change_of_visibility_is_seen_by_those_who_could_see_before_it() {
        let sight =
            Sight { memberships: vec![], visibilities: vec![(Position(1), WorldReadable), (Position(5), Joined)] };
        assert!(sight.can_see(Position(5)));
        assert!(!sight.can_see(Position(6)));
    }
}

//! Resolutions that an operator should look at: many members or all administrators are gone.
//!
//! They may be right, and they are obeyed in any case: a server that does not has another state than the others. But they
//! are also the sign of a room under attack, or of a fault.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{
    OwnedUserId,
    events::{
        StateEventType,
        room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource},
    },
    room_version_rules::AuthorizationRules,
    state_res::events::RoomCreateEvent,
};

use super::Conflict;
use crate::{
    held::{Held, StateDelta},
    ids::KeyNid,
    model::RoomReader,
    pdu::Pdu,
    state_log::Membership,
};

/// The number of members that a resolution may take from a room before it is worth a look. Branches of an ordinary
/// outage bring a few.
const MOST_REMOVED: usize = 10;

/// The unusual effect of a resolution on a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The number of users who were joined before, and are not any more.
    pub removed: usize,
    /// Whether a user who may change the power levels was joined before, and none is any more.
    pub no_admin_left: bool,
}

/// Compares the state before a resolution, mostly the room's current state, with the resolved one. Both are differences to
/// the log at the position of `conflict`.
///
/// # Errors
/// When reading fails.
pub async fn alarm<R: RoomReader>(
    reader: &R,
    conflict: &Conflict<'_>,
    before: &StateDelta,
    after: &StateDelta,
) -> Result<Option<Alarm>, R::Error> {
    let states = [before, after].map(|delta| View { reader, conflict, delta });
    let keys: BTreeSet<KeyNid> = before.keys().chain(after.keys()).collect();
    let mut removed = 0;
    for key in keys {
        let mut is_joined = [false; 2];
        for (state, joined) in states.iter().zip(&mut is_joined) {
            *joined = state.value(key).await?.is_some_and(|held| held.membership == Some(Membership::Join));
        }
        removed += usize::from(is_joined == [true, false]);
    }
    // Each administrator who is gone is also one of the members who are gone, or has lost the power levels.
    let no_admin_left = states[0].has_admin().await? && !states[1].has_admin().await?;
    let alarm = Alarm { removed, no_admin_left };
    Ok((removed > MOST_REMOVED || no_admin_left).then_some(alarm))
}

/// One of the two states.
struct View<'a, R> {
    reader: &'a R,
    conflict: &'a Conflict<'a>,
    delta: &'a StateDelta,
}

impl<R: RoomReader> View<'_, R> {
    async fn value(&self, key: KeyNid) -> Result<Option<Held>, R::Error> {
        match self.delta.get(key) {
            Some(held) => Ok(held),
            None => self.reader.value(key, self.conflict.base).await,
        }
    }

    async fn named(&self, event_type: &str, state_key: &str) -> Result<Option<Held>, R::Error> {
        match self.reader.key(event_type, state_key).await? {
            Some(key) => self.value(key).await,
            None => Ok(None),
        }
    }

    /// Returns whether a joined user may change the power levels.
    async fn has_admin(&self) -> Result<bool, R::Error> {
        let levels = self.named("m.room.power_levels", "").await?;
        let nids: Vec<_> = levels.iter().map(|held| held.event_nid).chain([self.conflict.create]).collect();
        let mut pdus = self.reader.pdus(&nids).await?;
        let create = pdus.pop();
        let Admins::These(users) = admins(&self.conflict.rules.authorization, create, pdus.pop()) else {
            return Ok(true);
        };
        for user in users {
            let held = self.named("m.room.member", user.as_str()).await?;
            if held.is_some_and(|held| held.membership == Some(Membership::Join)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The users who may change the power levels.
enum Admins {
    Everybody,
    These(BTreeSet<OwnedUserId>),
}

fn admins(rules: &AuthorizationRules, create: Option<Arc<Pdu>>, levels: Option<Arc<Pdu>>) -> Admins {
    let creators: BTreeSet<OwnedUserId> =
        create.and_then(|create| RoomCreateEvent::new(create).creators(rules).ok()).into_iter().flatten().collect();
    let source = levels
        .and_then(|levels| serde_json::from_str::<RoomPowerLevelsEventContent>(levels.content.get()).ok())
        .map_or(RoomPowerLevelsSource::None, RoomPowerLevelsSource::Original);
    let levels = RoomPowerLevels::new(source, rules, creators.iter().cloned());
    if levels.users_default >= levels.for_state(StateEventType::RoomPowerLevels) {
        return Admins::Everybody;
    }
    let named = creators.into_iter().chain(levels.users.keys().cloned());
    Admins::These(named.filter(|user| levels.user_can_send_state(user, StateEventType::RoomPowerLevels)).collect())
}

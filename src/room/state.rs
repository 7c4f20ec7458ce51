//! Reading a room's state, as it is or as it was.
//!
//! There is no check here of what a user may see: [`super::read::viewer`] gives the position up to which they see the state.

use std::{collections::HashSet, sync::Arc};

use ruma::UserId;
use sabha_federation::state_log::Membership;

use super::{Room, Rooms, event::StoredEvent};
use crate::store::{self, Position};

impl Rooms {
    /// The whole state as of `upto`.
    pub async fn state_events(&self, room: &Room, upto: Position) -> Result<Vec<Arc<StoredEvent>>, store::Error> {
        let nids: Vec<_> = self.state_at(room, upto).await?.into_iter().map(|(_, entry)| entry.event_nid).collect();
        self.events.list(room, &nids).await
    }

    /// The state as of `upto`, with the member events of these users only.
    pub async fn state_events_with_members(
        &self,
        room: &Room,
        upto: Position,
        users: &HashSet<&UserId>,
    ) -> Result<Vec<Arc<StoredEvent>>, store::Error> {
        let users = users.iter().map(|user| user.as_str());
        let members: HashSet<_> = self.db.find_state_keys("m.room.member", users).await?.into_iter().collect();
        let state = self.state_at(room, upto).await?;
        let nids: Vec<_> = state
            .into_iter()
            .filter(|(key, entry)| entry.membership.is_none() || members.contains(key))
            .map(|(_, entry)| entry.event_nid)
            .collect();
        self.events.list(room, &nids).await
    }

    /// The member events as of `upto`, of those whose membership `wanted` accepts.
    pub async fn member_events(
        &self,
        room: &Room,
        upto: Position,
        wanted: impl Fn(Membership) -> bool,
    ) -> Result<Vec<Arc<StoredEvent>>, store::Error> {
        let state = self.state_at(room, upto).await?;
        let nids: Vec<_> = state
            .into_iter()
            .filter(|(_, entry)| entry.membership.is_some_and(&wanted))
            .map(|(_, entry)| entry.event_nid)
            .collect();
        self.events.list(room, &nids).await
    }

    /// The numbers of joined and of invited users as of `upto`.
    pub async fn member_counts(&self, room: &Room, upto: Position) -> Result<(usize, usize), store::Error> {
        {
            let view = room.view();
            if view.state.latest() <= upto {
                return Ok((view.state.joined(), view.state.invited()));
            }
        }
        let state = self.state_at(room, upto).await?;
        let count = |wanted| state.iter().filter(|(_, entry)| entry.membership == Some(wanted)).count();
        Ok((count(Membership::Join), count(Membership::Invite)))
    }
}

//! The sights of one user in many rooms, read with few statements.

use std::{collections::HashMap, sync::Arc};

use sabha_federation::state_log::LogRow;

use super::SightKeys;
use crate::{
    room::{Room, Rooms, changed::leave_damage, load::log_row},
    store::{
        Error, KeyNid, RoomNid,
        changed_rooms::{self as rows, AT_ONCE},
        vocabulary::User,
    },
};

impl Rooms {
    /// Caches the user's [`Sight`](super::Sight) of these rooms, so that a look at them reads nothing more.
    ///
    /// # Errors
    /// When the database fails. A damaged room is left out.
    pub async fn prepare_sights(&self, rooms: &[Arc<Room>], user: &User) -> Result<(), Error> {
        let mut missing = Vec::new();
        for room in rooms {
            let keys = self.sight_keys(room, user).await?;
            if self.cached_sight(room, user, &keys).is_none() {
                missing.push((&**room, keys));
            }
        }
        for chunk in missing.chunks(AT_ONCE) {
            leave_damage(self.prepare_chunk(chunk, user).await)?;
        }
        Ok(())
    }

    async fn prepare_chunk(&self, chunk: &[(&Room, SightKeys)], user: &User) -> Result<(), Error> {
        let nids: Vec<RoomNid> = chunk.iter().map(|(room, _)| room.nid).collect();
        // The short ids of keys are the same in all rooms; a room without a key has no change of it.
        let key_of = |key: fn(&SightKeys) -> Option<KeyNid>| chunk.iter().find_map(|(_, keys)| key(keys));
        let (member, visibility) = (key_of(|keys| keys.member), key_of(|keys| keys.visibility));
        let found = rows::key_histories(&mut self.db.read().await?.conn(), &nids, [member, visibility]).await?;
        let mut histories: HashMap<(RoomNid, KeyNid), Vec<LogRow>> = HashMap::new();
        for change in found {
            let row = log_row(change.row)?;
            histories.entry((change.room, row.key)).or_default().push(row);
        }
        let mut readable = Vec::with_capacity(chunk.len());
        for (room, keys) in chunk {
            let mut stored = |key: Option<KeyNid>| key.and_then(|key| histories.remove(&(room.nid, key)));
            let stored = [member, visibility].map(|key| stored(key).unwrap_or_default());
            match self.with_jumps(room, [member, visibility], stored).await {
                Ok(histories) => readable.push((*room, keys, histories)),
                Err(error) => leave_damage(Err(error))?,
            }
        }
        let events = readable.iter().flat_map(|(room, _, [_, visibilities])| {
            visibilities.iter().filter_map(|row| Some((*room, row.event_nid?)))
        });
        _ = self.events.prefetch(&events.collect::<Vec<_>>()).await?;
        for (room, keys, [memberships, visibilities]) in readable {
            leave_damage(self.sight_from(room, user, keys, (&memberships, &visibilities)).await.map(drop))?;
        }
        Ok(())
    }
}

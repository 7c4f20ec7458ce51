//! The rooms that a look visits: those with news, and no others.
//!
//! Promise: a room with news after the client's token, up to the end of the look, is among them. A look at a room that
//! has no news is harmless, so everything here may name too many rooms, and must never miss one.
//!
//! The marks of the live user name the rooms (`bus`). A client that was away, or any client after a restart, has a token
//! from before these marks: then one statement names the rooms, and only these are loaded, many at once. Each part of
//! the rooms' news needs one of these:
//!
//! | news | found by |
//! |---|---|
//! | events, receipts, the own membership, read markers | marks with the room, or [`Rooms::changed_since`](crate::room::Rooms::changed_since) |
//! | typing | marks with the room, or the rooms in memory in which somebody typed |
//! | the end of typing before a restart, rooms that were left out | the hints of the token |
//! | account data of a room | the account data that changed, which a look reads anyway |
//! | rooms whose membership cannot be read | a list in memory, usually empty |

use std::{collections::BTreeSet, sync::Arc};

use super::token::{Hints, SyncToken};
use crate::{
    app::App,
    bus::LiveUser,
    room::{Room, changed::WithEvents, memberships::MemberEntry},
    store::{Error, Position, RoomNid, UserNid, vocabulary::User},
};

/// The rooms to visit.
#[derive(Debug)]
pub enum ToVisit {
    /// Every room that the user is or was in.
    All,
    These(BTreeSet<RoomNid>),
}

impl ToVisit {
    /// The rooms with news for a look from a client's token on. The caller must have read the position and the number up
    /// to which it looks: the marks of everything up to these are there then.
    pub(super) async fn since(
        app: &App,
        (user, live): (&User, &LiveUser),
        (since, hints): (&SyncToken, &Hints),
        is_wanted: impl Fn(&Room) -> bool,
    ) -> Result<Self, Error> {
        let dirty = live.dirty_since(since.position, since.ephemeral);
        let hints = hints.left_out.iter().chain(&hints.typing).copied();
        let mut rooms: BTreeSet<RoomNid> = dirty.rooms.into_iter().chain(hints).collect();
        if !dirty.reaches_back {
            let changed = app.rooms.changed_since(user.nid, since.position, WithEvents::Latest).await?;
            prepare(app, user, &changed, is_wanted).await?;
            rooms.extend(changed);
        }
        if !dirty.ephemeral_reaches_back {
            rooms.extend(app.ephemeral.typing_rooms_since(since.ephemeral));
        }
        Ok(Self::These(rooms))
    }

    /// All rooms, for a client that knows nothing or asks for everything.
    pub(super) async fn all(app: &App, user: &User, is_wanted: impl Fn(&Room) -> bool) -> Result<Self, Error> {
        let joined = app.rooms.load_joined(user.nid).await?;
        prepare(app, user, &joined, is_wanted).await?;
        Ok(Self::All)
    }

    /// The rooms of a user with stored news after `since`, whether the user is live or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn changed_since(app: &App, user: UserNid, since: Position) -> Result<Self, Error> {
        Ok(Self::These(app.rooms.changed_since(user, since, WithEvents::None).await?.into_iter().collect()))
    }

    /// Adds rooms.
    pub fn add(&mut self, others: impl Iterator<Item = RoomNid>) {
        match self {
            Self::All => {}
            Self::These(rooms) => rooms.extend(others),
        }
    }

    /// The user's memberships in the rooms, sorted by room.
    pub(super) async fn memberships(&self, app: &App, user: UserNid) -> Result<Vec<MemberEntry>, Error> {
        match self {
            Self::All => app.rooms.memberships(user).await,
            Self::These(rooms) => app.rooms.memberships_in(user, rooms).await,
        }
    }
}

/// Reads what a look needs of each of the wanted rooms, for many of them at once.
async fn prepare(app: &App, user: &User, rooms: &[RoomNid], is_wanted: impl Fn(&Room) -> bool) -> Result<(), Error> {
    let in_memory = rooms.iter().filter_map(|room| app.rooms.in_memory(*room));
    let wanted: Vec<Arc<Room>> = in_memory.filter(|room| is_wanted(room)).collect();
    app.rooms.prepare_sights(&wanted, user).await?;
    app.ephemeral.prepare_receipts(&wanted.iter().map(|room| room.nid).collect::<Vec<_>>()).await
}

//! Power levels: the rights of users in a room, read through ruma.

use ruma::{
    OwnedUserId,
    events::room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource},
    room_version_rules::RoomVersionRules,
};
use sabha_federation::Pdu;
use serde::Deserialize;

use super::{Room, Rooms, write::RoomWriter};
use crate::store::{Error, EventNid, Position};

impl RoomWriter<'_> {
    /// The power levels that apply to the next event.
    pub async fn power_levels(&self) -> Result<RoomPowerLevels, Error> {
        let create = self.state("m.room.create", "").await?;
        let levels = self.state("m.room.power_levels", "").await?;
        Ok(power_levels(&self.room.rules, create.as_deref(), levels.as_deref()))
    }
}

impl Rooms {
    /// The power levels as of `upto`.
    pub async fn power_levels(&self, room: &Room, upto: Position) -> Result<RoomPowerLevels, Error> {
        let create = self.state_event(room, "m.room.create", "", upto).await?;
        let levels = self.state_event(room, "m.room.power_levels", "", upto).await?;
        let pdu = |event: &std::sync::Arc<super::event::StoredEvent>| std::sync::Arc::clone(&event.pdu);
        Ok(power_levels(&room.rules, create.as_ref().map(pdu).as_deref(), levels.as_ref().map(pdu).as_deref()))
    }
}

impl Rooms {
    /// The power levels that one event of the room's state sets, or those of a room without such an event.
    pub(crate) async fn power_levels_in(
        &self,
        room: &Room,
        levels: Option<EventNid>,
        upto: Position,
    ) -> Result<RoomPowerLevels, Error> {
        let create = self.state_event(room, "m.room.create", "", upto).await?;
        let levels = match levels {
            Some(nid) => Some(self.events.get(room, nid).await?),
            None => None,
        };
        let pdu = |event: &std::sync::Arc<super::event::StoredEvent>| std::sync::Arc::clone(&event.pdu);
        Ok(power_levels(&room.rules, create.as_ref().map(pdu).as_deref(), levels.as_ref().map(pdu).as_deref()))
    }
}

fn power_levels(rules: &RoomVersionRules, create: Option<&Pdu>, levels: Option<&Pdu>) -> RoomPowerLevels {
    let source = levels
        .and_then(|levels| serde_json::from_str::<RoomPowerLevelsEventContent>(levels.content.get()).ok())
        .map_or(RoomPowerLevelsSource::None, RoomPowerLevelsSource::Original);
    RoomPowerLevels::new(source, &rules.authorization, create.map(creators).unwrap_or_default())
}

/// The creators of the room: the sender of the create event, and the users that it names besides.
fn creators(create: &Pdu) -> Vec<OwnedUserId> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        additional_creators: Vec<OwnedUserId>,
    }
    let more = serde_json::from_str::<Content>(create.content.get()).map(|content| content.additional_creators);
    std::iter::once(create.sender.clone()).chain(more.unwrap_or_default()).collect()
}

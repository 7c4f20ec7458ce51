//! How a user is called in a room: their profile, as their member events show it.

use ruma::{OwnedMxcUri, events::room::member::MembershipState};
use sabha_federation::EventDraft;
use serde_json::{Value, json, value::to_raw_value};

use super::{Rooms, send::SendError, state_log::Membership};
use crate::account::LocalDevice;

/// The part of a profile that member events carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberProfile {
    pub displayname: Option<String>,
    pub avatar_url: Option<OwnedMxcUri>,
}

/// The draft of a member event.
pub(super) fn member_draft(
    user_id: &ruma::UserId,
    membership: MembershipState,
    profile: &MemberProfile,
    more: &[(&str, Option<Value>)],
) -> EventDraft {
    let mut content = json!({ "membership": membership });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            content[name] = value;
        }
    };
    set("displayname", profile.displayname.clone().map(Value::from));
    set("avatar_url", profile.avatar_url.as_ref().map(|url| Value::from(url.as_str())));
    for (name, value) in more {
        set(name, value.clone());
    }
    EventDraft {
        event_type: "m.room.member".to_owned(),
        state_key: Some(user_id.as_str().to_owned()),
        content: to_raw_value(&content).expect("a JSON value serializes"),
        redacts: None,
    }
}

impl Rooms {
    /// Shows a changed profile in all rooms that the user is joined to. A room that refuses is left as it is.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn profile_changed(&self, caller: &LocalDevice, profile: &MemberProfile) -> Result<(), SendError> {
        for nid in self.joined_rooms(caller.user.nid).await? {
            let room = self.by_nid(nid).await?;
            let mut writer = self.enter(&room).await?;
            if self.membership(caller.user.nid, nid).await? != Some(Membership::Join) {
                continue;
            }
            let draft = member_draft(caller.user_id(), MembershipState::Join, profile, &[]);
            match writer.append(&caller.user, draft).await {
                Ok(_) => self.finish(writer, None).await?,
                Err(super::writer::AppendError::Storage(error)) => return Err(error.into()),
                Err(error) => tracing::debug!(room_id = %room.room_id, %error, "the room refuses the new profile"),
            }
        }
        Ok(())
    }
}

//! Creating a room ([spec]): all its first events, its alias and its directory entry in one commit.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom

mod first_events;

use std::sync::{
    Arc, RwLock,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, room_version_rules::RoomVersionRules};
use sabha_federation::{EventDraft, EventPosition, Pdu, build_and_sign, graph::Extremities, state_log::StateLog};
use serde_json::{Map, Value, json, value::to_raw_value};

use self::first_events::{check_initial_state, first_events};
use super::{AppendError, RoomWriter, alias::AliasError, invitee::Invitee, queued::Queued};
use crate::{
    account::LocalDevice,
    room::{Head, Room, RoomView, Rooms, absent_keys::AbsentKeys, listing::heroes::Heroes, ring::Ring},
    store::{self, Lineage, Position, aliases, log::Touch, room_heads as rows},
};

/// The initial rules of a room; see the spec's table of presets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    Private,
    /// Gives everyone who is invited the power of the creator.
    TrustedPrivate,
    Public,
}

/// A state event that the client asks for.
#[derive(Debug, Clone)]
pub struct InitialState {
    pub event_type: String,
    pub state_key: String,
    pub content: Value,
}

/// A client's request for a new room.
#[derive(Debug, Clone)]
pub struct NewRoom {
    pub version: RoomVersionId,
    pub preset: Preset,
    pub creation_content: Map<String, Value>,
    pub initial_state: Vec<InitialState>,
    pub power_level_override: Map<String, Value>,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub alias: Option<OwnedRoomAliasId>,
    pub invite: Vec<Invitee>,
    /// The users who are banned from the start, with the content of their member events.
    pub bans: Vec<(OwnedUserId, Value)>,
    pub is_direct: bool,
    pub publish: bool,
}

/// Errors of creating a room. Nothing of the room exists then.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("room version {version} is not supported")]
    UnsupportedVersion { version: RoomVersionId },
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// A new room has only its creator and the invited users as members.
    #[error("initial_state holds no m.room.member event but the creator's own join")]
    InitialMember,
    /// A new room has no alias but the one that is created with it.
    #[error("the alias {alias} does not point to this room")]
    BadAlias { alias: String },
    /// See [`SendError::NoAliases`](super::send::SendError::NoAliases).
    #[error("an m.room.canonical_alias event names no aliases")]
    NoAliases(#[source] serde_json::Error),
    /// One of the events breaks the rules that the earlier ones made.
    #[error("the room would not allow its own {event_type} event")]
    Event {
        event_type: String,
        #[source]
        source: AppendError,
    },
    /// See [`SendError::SignedOut`](super::send::SendError::SignedOut).
    #[error("the creator was signed out meanwhile")]
    SignedOut,
    #[error("the room could not be stored")]
    Storage(#[from] store::Error),
}

impl NewRoom {
    /// The rules of the room's version.
    ///
    /// # Errors
    /// [`CreateError::UnsupportedVersion`].
    pub(in crate::room) fn rules(&self) -> Result<RoomVersionRules, CreateError> {
        sabha_federation::rules(&self.version)
            .ok_or_else(|| CreateError::UnsupportedVersion { version: self.version.clone() })
    }
}

impl Rooms {
    /// Creates a room with everything in it, or nothing.
    ///
    /// # Errors
    /// Every [`CreateError`].
    pub async fn create(&self, caller: &LocalDevice, new: NewRoom) -> Result<OwnedRoomId, CreateError> {
        self.create_as(caller, new, None).await
    }

    /// Creates a room with an ID that was chosen before. In versions where the create event gives the room its ID,
    /// `chosen` is ignored.
    ///
    /// # Errors
    /// Every [`CreateError`].
    pub(in crate::room) async fn create_as(
        &self,
        caller: &LocalDevice,
        new: NewRoom,
        chosen: Option<OwnedRoomId>,
    ) -> Result<OwnedRoomId, CreateError> {
        let rules = new.rules()?;
        check_initial_state(caller, &new)?;
        let reserved = match &new.alias {
            Some(alias) => Some(self.reserve(alias).await?),
            None => None,
        };
        let create = self.create_event(caller, &new, &rules, chosen)?;
        let nid = self.db.committer().ids().room()?;
        let room_id = create.room_id.clone();
        let room = Arc::new(Room {
            nid,
            room_id: room_id.clone(),
            version: new.version.clone(),
            rules,
            head: Arc::new(tokio::sync::Mutex::new(Head {
                forward_extremities: Extremities::default(),
                without_state: Vec::new(),
                depth: 0,
                last_pos: Position::BEFORE_ALL,
                state_pos: Position::BEFORE_ALL,
                reject_epoch: 0,
                our_pos: Position::BEFORE_ALL,
                bump_pos: Position::BEFORE_ALL,
                changes: 0,
                saved_changes: 0,
                joined_by_server: None,
            })),
            lineage: Lineage::default(),
            queued: Queued::default(),
            view: RwLock::new(RoomView {
                state: StateLog::new(self.state_hash_key.clone(), Position::BEFORE_ALL),
                jumps: Vec::new(),
                heroes: Heroes::default(),
                ring: Ring::new(Position::BEFORE_ALL, Arc::clone(&self.rings)),
            }),
            last_pos: AtomicI64::new(0),
            used: AtomicBool::new(true),
            absent: AbsentKeys::default(),
        });
        let mut writer = self.enter_new(&room).await;
        let now_ms = writer.now_ms();
        let row = rows::RoomColumns {
            room_nid: nid,
            room_id: room_id.as_str().into(),
            version: new.version.as_str().into(),
            created_at: now_ms,
        }
        .row();
        writer.add_row(row, None);
        if let Some(reserved) = &reserved {
            let row = aliases::AliasColumns {
                alias: reserved.alias.as_str().into(),
                room_nid: nid,
                creator_nid: caller.user.nid,
                created_at: now_ms,
            }
            .row();
            writer.add_row(row, Some(Touch::Alias { room: nid }));
        }
        if new.publish {
            let row = aliases::PublishedColumns { room_nid: nid, published_at: now_ms }.row();
            writer.add_row(row, Some(Touch::Directory { room: nid }));
        }
        writer
            .push_create(&caller.user, create)
            .await
            .map_err(|source| CreateError::Event { event_type: "m.room.create".to_owned(), source })?;
        // As in a join: a later change of the profile finds the room here, and waits for its first commit.
        let arrival = self.arrivals.register(caller.user.nid, &room);
        if caller.revoked.is_cancelled() {
            return Err(CreateError::SignedOut);
        }
        let profile = self.profile_of(caller.user.nid).await?;
        for draft in first_events(caller, &profile, &new, &room.rules) {
            append(&mut writer, caller, draft).await?;
        }
        self.finish(writer, None).await?;
        drop((arrival, reserved));
        Ok(room_id)
    }

    /// The time for a create event, never the same twice. From room version 12 on the event's hash is the room's ID,
    /// and a user may create two equal rooms in one millisecond.
    fn creation_time(&self) -> i64 {
        let now = self.clock.now_ms();
        let next = |last: i64| now.max(last + 1);
        let last = self.last_creation_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        next(last.unwrap_or_default())
    }

    /// A new room ID; `None` if the create event gives the room its ID.
    pub(in crate::room) fn new_room_id(&self, rules: &RoomVersionRules) -> Option<OwnedRoomId> {
        (!rules.authorization.room_create_event_id_as_room_id).then(|| RoomId::new_v1(self.signer.server_name()))
    }

    fn create_event(
        &self,
        caller: &LocalDevice,
        new: &NewRoom,
        rules: &RoomVersionRules,
        chosen: Option<OwnedRoomId>,
    ) -> Result<Pdu, CreateError> {
        let mut content = new.creation_content.clone();
        content.insert("room_version".to_owned(), new.version.as_str().into());
        if rules.authorization.use_room_create_sender {
            content.remove("creator");
        } else {
            content.insert("creator".to_owned(), caller.user_id().as_str().into());
        }
        if rules.authorization.additional_room_creators
            && new.preset == Preset::TrustedPrivate
            && !new.invite.is_empty()
        {
            let creators = content.entry("additional_creators").or_insert_with(|| json!([]));
            if let Value::Array(creators) = creators {
                for invitee in &new.invite {
                    let user_id = Value::from(invitee.user_id.as_str());
                    if !creators.contains(&user_id) {
                        creators.push(user_id);
                    }
                }
            }
        }
        let room_id = self.new_room_id(rules).map(|new| chosen.unwrap_or(new));
        let draft = EventDraft {
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            content: to_raw_value(&content).expect("a JSON value serializes"),
            redacts: None,
        };
        let position = EventPosition {
            room_id: room_id.as_deref(),
            sender: caller.user_id(),
            prev_events: &[],
            auth_events: &[],
            depth: 1,
            origin_server_ts: self.creation_time(),
        };
        build_and_sign(rules, &self.signer, draft, position).map_err(|error| CreateError::Event {
            event_type: "m.room.create".to_owned(),
            source: AppendError::Invalid(error),
        })
    }
}

async fn append(writer: &mut RoomWriter<'_>, caller: &LocalDevice, draft: EventDraft) -> Result<(), CreateError> {
    let event_type = draft.event_type.clone();
    writer.append(&caller.user, draft).await.map_err(|source| CreateError::Event { event_type, source })?;
    Ok(())
}

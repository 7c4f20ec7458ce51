//! `POST /_matrix/client/v3/createRoom` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom

use std::collections::HashSet;

use axum::extract::State;
use ruma::{
    OwnedUserId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, Response, RoomPreset},
    },
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    account::LocalDevice,
    app::App,
    client_api::{
        alias::{check_exclusive, local_alias},
        membership::{check_is_local, no_third_party_invites},
    },
    endpoint::Authed,
    http::{ApiError, Reply},
    limits::rate_limits::Action,
    room::write::{
        create::{InitialState, NewRoom, Preset},
        invitee::Invitee,
    },
    use_cases::joining,
};

use super::version::{RoomVersion, Versioned};

/// The maximum number of initial state events of a new room: each is signed and checked while the client waits.
const MAX_INITIAL_STATE: usize = 200;

/// Creates a room with everything that the client asks for, or no room at all.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, address, .. }: Authed<Versioned<RoomVersion, Request>>,
) -> Result<Reply<Response>, ApiError> {
    let request = request.known()?;
    if !request.invite_3pid.is_empty() {
        return Err(no_third_party_invites());
    }
    let publish = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(ApiError::invalid_param("visibility is public or private.")),
    };
    let preset = match request.preset {
        Some(RoomPreset::PrivateChat) => Preset::Private,
        Some(RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivate,
        Some(RoomPreset::PublicChat) => Preset::Public,
        None if publish => Preset::Public,
        None => Preset::Private,
        Some(_) => {
            return Err(ApiError::invalid_param("preset is private_chat, public_chat or trusted_private_chat."));
        }
    };
    if request.initial_state.len() > MAX_INITIAL_STATE {
        return Err(ApiError::invalid_param(format!("initial_state has at most {MAX_INITIAL_STATE} events.")));
    }
    // Each invitation counts as one action.
    app.rate_limits.check_done(Action::Invite, request.invite.len(), &caller, address)?;
    let alias = request.room_alias_name.map(|name| local_alias(&app, &name)).transpose()?;
    if let Some(alias) = &alias {
        check_exclusive(&app, &caller, alias)?;
    }
    let new = NewRoom {
        version: request.room_version.unwrap_or_else(|| app.config.rooms.default_version.clone()),
        preset,
        creation_content: object("creation_content", request.creation_content.as_ref())?,
        initial_state: request.initial_state.iter().map(initial_state).collect::<Result<_, _>>()?,
        power_level_override: object("power_level_content_override", request.power_level_content_override.as_ref())?,
        name: request.name,
        topic: request.topic,
        alias,
        invite: invitees(&app, &caller, request.invite).await?,
        bans: Vec::new(),
        is_direct: request.is_direct,
        publish,
    };
    Ok(Reply(Response::new(joining::create(&app, &caller, new).await?)))
}

async fn invitees(app: &App, caller: &LocalDevice, user_ids: Vec<OwnedUserId>) -> Result<Vec<Invitee>, ApiError> {
    let limit = app.config.limits.invites_per_new_room as usize;
    if user_ids.len() > limit {
        return Err(ApiError::invalid_param(format!("A room is created with at most {limit} invitations.")));
    }
    let mut seen = HashSet::with_capacity(user_ids.len());
    let mut invited = Vec::with_capacity(user_ids.len());
    for user_id in user_ids {
        check_is_local(app, &user_id)?;
        if seen.insert(user_id.clone()) {
            invited.push(user_id);
        }
    }
    Ok(app.rooms.invitees(caller, invited).await?)
}

fn object<T>(name: &str, raw: Option<&Raw<T>>) -> Result<Map<String, Value>, ApiError> {
    let Some(raw) = raw else { return Ok(Map::new()) };
    serde_json::from_str(raw.json().get()).map_err(|error| ApiError::bad_json(format!("{name} is no object: {error}.")))
}

fn initial_state<T>(raw: &Raw<T>) -> Result<InitialState, ApiError> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "type")]
        event_type: String,
        #[serde(default)]
        state_key: String,
        content: Value,
    }
    let wire: Wire = serde_json::from_str(raw.json().get())
        .map_err(|error| ApiError::bad_json(format!("An event of initial_state is no state event: {error}.")))?;
    Ok(InitialState { event_type: wire.event_type, state_key: wire.state_key, content: wire.content })
}

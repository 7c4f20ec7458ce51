//! `GET /_matrix/client/v3/rooms/{roomId}/joined_members` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members

use std::collections::BTreeMap;

use axum::extract::State;
use ruma::{
    OwnedMxcUri, OwnedUserId, UserId,
    api::client::membership::joined_members::v3::{Request, Response, RoomMember},
};
use sabha_federation::state_log::Membership;
use serde::Deserialize;

use crate::{
    app::App,
    client_api::large_state::StateTurn,
    endpoint::Authed,
    http::{ApiError, Reply},
    room::event::StoredEvent,
};

/// The joined members of the room with their names and avatars there. For members only.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let not_in_room = || ApiError::forbidden("You are not in this room.");
    let room = app.rooms.find(&request.room_id).await?.ok_or_else(not_in_room)?;
    let is_joined = app.rooms.is_joined(caller.user.nid, &room).await?;
    if !is_joined && caller.appservice.is_none() {
        return Err(not_in_room());
    }
    let mut turn = StateTurn::of(&app, &caller, &room).await?;
    let now = app.db.committer().published();
    let is_join = |membership| membership == Membership::Join;
    let members = turn.read(|| app.rooms.member_events(&room, now, is_join)).await?;
    let joined: BTreeMap<_, _> = members
        .iter()
        .filter_map(|event| Some((UserId::parse(event.pdu.state_key.as_deref()?).ok()?, member(event))))
        .collect();
    // For an application service it is enough that one of its users is in the room.
    let covers = |user_id: &OwnedUserId| {
        caller.appservice.as_ref().is_some_and(|appservice| {
            user_id.server_name() == app.config.server_name && appservice.covers_user(user_id)
        })
    };
    if !is_joined && !joined.keys().any(covers) {
        return Err(not_in_room());
    }
    Ok(Reply(Response::new(joined)))
}

fn member(event: &StoredEvent) -> RoomMember {
    #[derive(Deserialize)]
    struct Content {
        displayname: Option<String>,
        avatar_url: Option<OwnedMxcUri>,
    }
    let mut member = RoomMember::new();
    if let Some(content) = event.content::<Content>() {
        member.display_name = content.displayname;
        member.avatar_url = content.avatar_url;
    }
    member
}

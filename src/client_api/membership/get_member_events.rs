//! `GET /_matrix/client/v3/rooms/{roomId}/members` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers

use axum::extract::State;
use bytes::Bytes;
use ruma::{api::client::membership::get_member_events::v3::Request, events::room::member::MembershipState};
use sabha_federation::state_log::Membership;

use crate::{
    app::App,
    client_api::{events::Events, large_state::StateTurn},
    endpoint::Authed,
    http::{ApiError, RawJson},
    sync::{json::Object, token::PageToken},
};

/// The member events of a room: now, at the time when the caller left, or at an earlier point.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    let viewer = app.rooms.viewer(&app.account_data, &caller, &request.room_id).await?;
    let horizon = app.rooms.state_horizon(&viewer.sight);
    let upto = match &request.at {
        Some(at) => PageToken::parse(at)?.0.line_upto().min(horizon),
        None => horizon,
    };
    let (only, without) = (named(request.membership.as_ref())?, named(request.not_membership.as_ref())?);
    // If both are given, the specification joins them with "or".
    let wanted = |membership: Membership| match (only, without) {
        (None, None) => true,
        (only, without) => {
            only.is_some_and(|only| only == membership) || without.is_some_and(|without| without != membership)
        }
    };
    let mut turn = StateTurn::of(&app, &caller, &viewer.room).await?;
    let members = turn.read(|| app.rooms.member_events(&viewer.room, upto, wanted)).await?;
    let mut out = Vec::new();
    let mut object = Object::begin(&mut out);
    Events::new(&app, &viewer).write_state(object.key("chunk"), &members);
    object.end();
    Ok(RawJson(Bytes::from(out)))
}

fn named(membership: Option<&MembershipState>) -> Result<Option<Membership>, ApiError> {
    let Some(membership) = membership else { return Ok(None) };
    let known = Membership::named(membership.as_str());
    known.map(Some).ok_or_else(|| ApiError::invalid_param(format!("{membership} is not a membership.")))
}

//! `GET /_matrix/client/v3/keys/changes` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges

use std::collections::BTreeSet;

use axum::extract::State;
use ruma::{
    OwnedUserId, UserId,
    api::client::keys::get_key_changes::v3::{Request, Response},
};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    store::{self, Position},
    sync::{
        device_lists::{ChangedRooms, DeviceLists},
        token::{Hints, SyncToken},
        visit::ToVisit,
    },
};

/// The users whose device lists changed between two syncs.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let from = request.from.parse::<SyncToken>()?;
    let to = request.to.parse::<SyncToken>()?;
    let known = async |token: SyncToken| {
        Ok::<_, store::Error>(app.db.knows(token.term, token.position).await?.then_some(token))
    };
    // As in `/sync`, a client with a token of another database starts over: everyone counts as changed, up to now.
    let from = known(from).await?.map_or(Position::BEFORE_ALL, |token| token.position);
    let to = known(to).await?.map_or_else(|| app.db.committer().published(), |token| token.position);
    let left_out = Hints::of(&request.from)?.left_out;
    let mut visit = ToVisit::changed_since(&app, caller.user.nid, from).await?;
    visit.add(left_out.iter().copied());
    let changed = ChangedRooms::find(&app, &caller.user, (from, to), &left_out, &visit).await?;
    let _turn = if changed.may_be_large() { Some(app.large_answers.turn(caller.user.nid).await?) } else { None };
    let lists = DeviceLists::of(&app, &caller.user, changed).await?;
    Ok(Reply(Response::new(user_ids(&lists.changed), user_ids(&lists.left))))
}

/// Parses the IDs. Room members have valid IDs: the auth rules admit no others.
fn user_ids(ids: &BTreeSet<String>) -> Vec<OwnedUserId> {
    ids.iter().filter_map(|id| UserId::parse(id).ok()).collect()
}

//! `GET /_matrix/client/v3/user/{userId}/account_data/{type}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype

use axum::extract::State;
use ruma::{
    api::client::config::get_global_account_data::v3::{Request, Response},
    serde::Raw,
};

use super::check_own;
use crate::{
    account_data::ACCOUNT,
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// One type of account data. Push rules exist even for an account that never changed them.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    let event_type = request.event_type.to_string();
    let content = if event_type == "m.push_rules" {
        Some(app.push.content(&caller.user).await?)
    } else {
        app.account_data.find(caller.user.nid, ACCOUNT, &event_type).await?
    };
    let content = content.ok_or_else(|| ApiError::not_found("There is no such account data."))?;
    Ok(Reply(Response::new(Raw::from_json(content))))
}

//! `PUT /_matrix/client/v3/user/{userId}/account_data/{type}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype

use axum::extract::State;
use ruma::api::client::config::set_global_account_data::v3::{Request, Response};

use super::{check_own, check_settable};
use crate::{
    account_data::ACCOUNT,
    app::App,
    client_api::with::{NeededBody, With},
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Stores one type of account data.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: With { request, .. }, .. }: Authed<With<NeededBody, Request>>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    let (event_type, content) = (request.event_type.to_string(), request.data.into_json());
    check_settable(&event_type, &content)?;
    app.account_data.put(caller.user.nid, ACCOUNT, &event_type, content).await?;
    Ok(Reply(Response::new()))
}

//! `POST /_matrix/client/v3/keys/signatures/upload` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload

use axum::extract::State;
use ruma::api::client::keys::upload_signatures::v3::{Request, Response};
use serde_json::json;

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::signatures::{SignatureFailure, SignedKey},
};

/// Stores the caller's signatures on their own devices and on other users' keys.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let mut signed = Vec::new();
    for (user_id, keys) in &request.signed_keys {
        if let Some(owner) = app.db.find_user(user_id).await?.filter(|owner| owner.is_local()) {
            app.rooms.load_memberships(owner.nid).await?;
        }
        for (key_id, json) in keys {
            let (key_id, json) = (key_id.to_owned(), json.get().to_owned());
            signed.push(SignedKey { user_id: user_id.clone(), key_id, json });
        }
    }
    let failures = app.keys.upload_signatures(&caller, signed).await?;
    let mut response = Response::new();
    for (user_id, keys) in failures {
        let of_user = response.failures.entry(user_id).or_default();
        for (key_id, failure) in keys {
            // Ruma's type can only be deserialized, not constructed.
            let failure = serde_json::from_value(json!({ "errcode": errcode(failure), "error": failure.to_string() }))
                .map_err(ApiError::internal)?;
            of_user.insert(key_id, failure);
        }
    }
    Ok(Reply(response))
}

fn errcode(failure: SignatureFailure) -> &'static str {
    match failure {
        SignatureFailure::NotFound => "M_NOT_FOUND",
        SignatureFailure::OtherKey => "M_INVALID_PARAM",
        SignatureFailure::InvalidSignature => "M_INVALID_SIGNATURE",
        SignatureFailure::Malformed => "M_BAD_JSON",
    }
}

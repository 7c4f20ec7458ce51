//! Profiles: [`ruma::api::client::profile`].

mod delete_profile_field;
mod get_profile;
mod get_profile_field;
mod set_profile_field;

use ruma::UserId;
use serde_json::Value as JsonValue;

use crate::{
    account::LocalDevice, app::App, endpoint::Routes, http::ApiError, limits::rate_limits::Action, remote::Federation,
    use_cases::profile,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_profile::handle)
        .serve(Action::Other, get_profile_field::handle)
        .serve(Action::Send, set_profile_field::handle)
        .serve(Action::Send, delete_profile_field::handle)
}

fn unknown_profile() -> ApiError {
    ApiError::not_found("There is no such user here, or their profile does not say that.")
}

/// The federation client to ask about a user of another server. `None` if the user is ours, or if this server does not
/// federate.
fn elsewhere<'a>(app: &'a App, user_id: &UserId) -> Option<&'a Federation> {
    app.federation.as_ref().filter(|_| user_id.server_name() != app.signer.server_name())
}

/// Sets or removes a field of the caller's own profile.
async fn change(
    app: &App,
    caller: &LocalDevice,
    user_id: &UserId,
    field: &str,
    value: Option<JsonValue>,
) -> Result<(), ApiError> {
    if user_id != caller.user_id() {
        return Err(ApiError::forbidden("This is not your profile."));
    }
    Ok(profile::change(app, &caller.user, field, value).await?)
}

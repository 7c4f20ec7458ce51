//! Changing a user's profile.

use std::sync::Arc;

use serde_json::Value as JsonValue;

use crate::{account::profiles::ProfileError, app::App, report::Report, store::vocabulary::User};

/// Sets or removes a field of the user's profile. A new name or avatar is also shown in their rooms.
///
/// # Errors
/// As [`Accounts::set_profile_field`](crate::account::Accounts::set_profile_field).
pub async fn change(app: &App, user: &Arc<User>, field: &str, value: Option<JsonValue>) -> Result<(), ProfileError> {
    if app.accounts.set_profile_field(user.nid, field, value).await? {
        // The job of the commit updates all rooms. The rooms that the client looks at next are updated before the answer.
        if let Err(error) = app.rooms.show_profile_soon(user).await {
            tracing::warn!(user_id = %user.user_id, error = %Report(&error), "profile not shown in the first rooms yet");
        }
    }
    Ok(())
}

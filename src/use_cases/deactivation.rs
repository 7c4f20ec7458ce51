//! Deactivating an account.

use ruma::UserId;

use crate::{app::App, store};

/// Leaves the user's rooms, and deactivates the account permanently. Returns `Ok(false)` if there is no such active
/// account.
///
/// # Errors
/// Database errors. The user may have left rooms then; calling again does the rest.
pub async fn deactivate(app: &App, user_id: &UserId) -> Result<bool, store::Error> {
    // First, while the user can still send.
    if let Some(user) = app.db.find_user(user_id).await? {
        app.rooms.leave_all(&user).await?;
    }
    app.accounts.deactivate(user_id).await
}

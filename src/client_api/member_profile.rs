//! The conversion of account profiles to the profile in member events. Joining or creating a room does not need this:
//! the room reads the user's profile itself.

use ruma::UserId;

use crate::{account::LocalDevice, app::App, room::profile::MemberProfile, store};

/// The caller's profile.
pub(super) async fn of_caller(app: &App, caller: &LocalDevice) -> Result<MemberProfile, store::Error> {
    app.rooms.profile_of(caller.user.nid).await
}

/// Another user's profile, empty for a user that this server does not know.
pub(super) async fn of_user(app: &App, user_id: &UserId) -> Result<MemberProfile, store::Error> {
    match app.db.find_user(user_id).await? {
        Some(user) => app.rooms.profile_of(user.nid).await,
        None => Ok(MemberProfile::default()),
    }
}

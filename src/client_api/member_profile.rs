//! From an account's profile to what member events say of it.

use ruma::{OwnedMxcUri, UserId};

use crate::{account::LocalDevice, app::App, room::profile::MemberProfile, store};

/// The caller's profile.
pub(super) async fn of_caller(app: &App, caller: &LocalDevice) -> Result<MemberProfile, store::Error> {
    of_nid(app, caller.user.nid).await
}

/// Another user's profile: empty for one that this server does not know.
pub(super) async fn of_user(app: &App, user_id: &UserId) -> Result<MemberProfile, store::Error> {
    match app.db.find_user(user_id).await? {
        Some(user) => of_nid(app, user.nid).await,
        None => Ok(MemberProfile::default()),
    }
}

async fn of_nid(app: &App, user: store::UserNid) -> Result<MemberProfile, store::Error> {
    let profile = app.accounts.profile(user).await?;
    Ok(MemberProfile { displayname: profile.displayname, avatar_url: profile.avatar_url.map(OwnedMxcUri::from) })
}

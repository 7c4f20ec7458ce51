//! `POST /_matrix/client/v3/login` of an application service ([spec]): in place of a password it shows its `as_token`.
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions

use ruma::api::client::{session::login::v3::ApplicationService, uiaa::UserIdentifier};

use crate::{
    account::{NewSession, Session},
    app::App,
    endpoint::ServiceToken,
    http::ApiError,
};

/// Logs in a user of the application service.
pub(super) async fn login(
    app: &App,
    token: ServiceToken,
    login: ApplicationService,
    wanted: NewSession,
) -> Result<Session, ApiError> {
    let appservice = token.require()?;
    #[expect(deprecated, reason = "bridges from before r0.4.0 send `user` where others send `identifier`")]
    let user = match (login.identifier, login.user) {
        (Some(UserIdentifier::Matrix(identifier)), _) => identifier.user,
        (None, Some(user)) => user,
        _ => return Err(ApiError::missing_param("The login names no user.")),
    };
    Ok(app.accounts.login_for(&appservice, &user, wanted).await?)
}

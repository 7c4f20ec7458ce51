//! `POST /_matrix/client/v3/register` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::IntoResponse as _};
use ruma::{
    OwnedUserId,
    api::{
        client::account::register::{
            LoginType, RegistrationKind,
            v3::{Request, Response},
        },
        error::ErrorKind,
    },
};
use serde_json::json;
use zeroize::Zeroizing;

use super::registration_closed;
use crate::{
    account::{
        NewSession, Session,
        interactive_auth::{Flow, Stage},
        password::check_strength,
        register::{Permit, Registration},
    },
    app::App,
    appservice::Appservice,
    client_api::uiaa,
    config::RegistrationMode,
    endpoint::Authed,
    http::{ApiError, RawJson, Reply},
};

/// The name of this operation for interactive authentication.
const OPERATION: &str = "POST register";

/// Makes an account and, unless the client wants none, its first session.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, address, .. }: Authed<Request>,
) -> Result<axum::response::Response, ApiError> {
    match request.kind {
        RegistrationKind::User => {}
        RegistrationKind::Guest => {
            let message = "This server has no guests.";
            return Err(ApiError::new(StatusCode::FORBIDDEN, ErrorKind::GuestAccessForbidden, message));
        }
        _ => return Err(ApiError::invalid_param("This is no kind of account.")),
    }
    if matches!(request.login_type, Some(LoginType::ApplicationService)) {
        return register_for(&app, caller.require()?, request).await;
    }
    let flows: &[Flow] = match app.accounts.registration_mode() {
        RegistrationMode::Closed => return Err(registration_closed()),
        RegistrationMode::Token => &[&[Stage::RegistrationToken]],
        RegistrationMode::Open => &[&[Stage::Dummy]],
    };
    // Reports an unavailable name or a weak password before the client completes any stage.
    if let Some(username) = &request.username {
        app.accounts.check_available(username).await?;
    }
    if let Some(password) = &request.password {
        check_strength(password)?;
    }
    let passed = uiaa::require(&app, None, OPERATION, flows, request.auth.as_ref(), address).await?;
    let Some(password) = request.password else {
        return Err(ApiError::missing_param("An account needs a password."));
    };

    let registration = Registration {
        username: request.username,
        password: Some(Zeroizing::new(password)),
        admin: false,
        displayname: None,
        session: (!request.inhibit_login).then_some(NewSession {
            device_id: request.device_id,
            display_name: request.initial_device_display_name,
            refreshable: request.refresh_token,
        }),
        permit: passed.registration_token.map_or(Permit::Free, Permit::RegistrationToken),
    };
    let (user_id, session) = app.accounts.register(registration).await?;
    Ok(registered(user_id, session))
}

/// Makes an account for an application service, which needs neither password nor permission.
async fn register_for(
    app: &App,
    appservice: Arc<Appservice>,
    request: Request,
) -> Result<axum::response::Response, ApiError> {
    let missing = || ApiError::missing_param("An application service chooses the user name.");
    let registration = Registration {
        username: Some(request.username.ok_or_else(missing)?),
        password: None,
        admin: false,
        displayname: None,
        session: (!request.inhibit_login).then_some(NewSession {
            device_id: request.device_id,
            display_name: request.initial_device_display_name,
            refreshable: request.refresh_token,
        }),
        permit: Permit::Appservice(appservice),
    };
    let (user_id, session) = app.accounts.register(registration).await?;
    Ok(registered(user_id, session))
}

fn registered(user_id: OwnedUserId, session: Option<Session>) -> axum::response::Response {
    let Some(session) = session else {
        // Ruma writes a missing device as `null`, which the specification does not allow.
        return RawJson(json!({ "user_id": user_id }).to_string().into()).into_response();
    };
    let mut response = Response::new(user_id);
    response.device_id = Some(session.device_id);
    response.access_token = Some(session.secrets.access_token);
    response.refresh_token = session.secrets.refresh_token;
    response.expires_in = session.secrets.expires_in;
    Reply(response).into_response()
}

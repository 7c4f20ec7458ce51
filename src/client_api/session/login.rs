//! `POST /_matrix/client/v3/login` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login

use axum::{extract::State, http::StatusCode};
use ruma::api::{
    IncomingRequest,
    client::{
        session::login::v3::{LoginInfo, Request, Response},
        uiaa::UserIdentifier,
    },
    error::{DeserializationError, ErrorKind},
};
use serde::de::Error as _;
use zeroize::Zeroizing;

use super::appservice_login;
use crate::{
    account::{
        NewSession, Session,
        session::login::{Credentials, LoginError},
    },
    app::App,
    client_api::with::same_endpoint,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Logs a user in.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Typed(request), address, .. }: Authed<Typed>,
) -> Result<Reply<Response>, ApiError> {
    if let LoginInfo::ApplicationService(login) = request.login_info {
        let wanted = NewSession {
            device_id: request.device_id,
            display_name: request.initial_device_display_name,
            refreshable: request.refresh_token,
        };
        return Ok(logged_in(appservice_login::login(&app, caller, login, wanted).await?));
    }
    let credentials = credentials(request.login_info)?;
    let account = match &credentials {
        Credentials::Password { user, .. } => Some(app.accounts.canonical_name(user)),
        Credentials::Token(_) => None,
    };
    let guess = account.as_deref().map(|account| app.rate_limits.guess(account, address)).transpose()?;
    let wanted = NewSession {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refreshable: request.refresh_token,
    };
    let login = app.accounts.login(credentials, wanted).await;
    if let Some(guess) = guess
        && !matches!(login, Err(LoginError::Forbidden))
    {
        guess.give_back();
    }
    Ok(logged_in(login?))
}

fn logged_in(session: Session) -> Reply<Response> {
    let mut response = Response::new(session.user_id, session.secrets.access_token, session.device_id);
    response.refresh_token = session.secrets.refresh_token;
    response.expires_in = session.secrets.expires_in;
    Reply(response)
}

fn credentials(info: LoginInfo) -> Result<Credentials, ApiError> {
    let unknown = |message| Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::Unknown, message));
    match info {
        LoginInfo::Password(login) => {
            #[expect(deprecated, reason = "clients from before r0.4.0 send `user` where others send `identifier`")]
            let user = match (login.identifier, login.user) {
                (Some(UserIdentifier::Matrix(identifier)), _) => identifier.user,
                (None, Some(user)) => user,
                (Some(_), _) => return unknown("This server knows no e-mail addresses and telephone numbers."),
                (None, None) => return Err(ApiError::missing_param("The login names no user.")),
            };
            Ok(Credentials::Password { user, password: Zeroizing::new(login.password) })
        }
        LoginInfo::Token(login) => Ok(Credentials::Token(Zeroizing::new(login.token))),
        _ => unknown("This server does not know that type of login."),
    }
}

/// Ruma's request, parsed only if it has a `type`: without one, ruma's parser panics.
pub(super) struct Typed(Request);

same_endpoint!(Typed as Request);

impl IncomingRequest for Typed {
    type EndpointError = <Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        #[derive(serde::Deserialize)]
        struct OnlyType {
            #[serde(rename = "type")]
            login_type: Option<serde_json::Value>,
        }
        let only: OnlyType = serde_json::from_slice(request.body())?;
        if !only.login_type.is_some_and(|login_type| login_type.is_string()) {
            return Err(serde_json::Error::missing_field("type").into());
        }
        Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_without_a_type_is_refused() {
        let check = |body: &str, expected: bool| {
            let request = http::Request::post("/_matrix/client/v3/login").body(body.as_bytes()).expect("a request");
            assert_eq!(Typed::try_from_http_request_inner(request, &[]).is_ok(), expected, "{body}");
        };
        check("{}", false);
        check("[]", false);
        check(r#"{"type": null}"#, false);
        check(r#"{"type": 7}"#, false);
        check(r#"{"type": "m.login.password"}"#, false);
        check(r#"{"type": "m.login.password", "user": "alice", "password": "secret"}"#, true);
        check(r#"{"type": "m.login.token", "token": "abc"}"#, true);
        check(r#"{"type": "org.example.other"}"#, true);
    }
}

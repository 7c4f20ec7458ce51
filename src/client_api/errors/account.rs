//! The conversion of service errors to client errors, for accounts, their stored data, and read receipts.

use axum::http::StatusCode;
use ruma::api::error::ErrorKind;

use crate::{
    account::{
        appservice::{AppserviceLoginError, IdentityError},
        deactivate::SetPasswordError,
        interactive_auth::InteractiveAuthError,
        password::{BUSY_RETRY, HashingBusy, WeakPassword},
        profiles::ProfileError,
        register::RegisterError,
        session::{login::LoginError, new_session::SessionRefusal},
    },
    account_data::PutError,
    appservice::Exclusive,
    ephemeral::receipts::MarkError,
    filter,
    http::ApiError,
    push::{ChangeError, RuleError},
};

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Name(error) => {
                Self::new(StatusCode::BAD_REQUEST, ErrorKind::InvalidUsername, sentence(&error))
            }
            RegisterError::Exclusive(error) => error.into(),
            RegisterError::InUse => Self::new(StatusCode::BAD_REQUEST, ErrorKind::UserInUse, sentence(&error)),
            RegisterError::WeakPassword(error) => error.into(),
            RegisterError::Busy(error) => error.into(),
            RegisterError::TokenUsedUp | RegisterError::SetupSecret => Self::forbidden(sentence(&error)),
            RegisterError::Session(error) => error.into(),
            RegisterError::Storage(error) => error.into(),
        }
    }
}

impl From<Exclusive> for ApiError {
    fn from(error: Exclusive) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::Exclusive, sentence(&error))
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::NotCovered | IdentityError::NotRegistered => Self::forbidden(sentence(&error)),
            IdentityError::Deactivated => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::UserDeactivated, sentence(&error))
            }
            IdentityError::UnknownDevice => {
                Self::new(StatusCode::BAD_REQUEST, ErrorKind::UnknownDevice, sentence(&error))
            }
            IdentityError::Storage(error) => error.into(),
        }
    }
}

impl From<AppserviceLoginError> for ApiError {
    fn from(error: AppserviceLoginError) -> Self {
        match error {
            AppserviceLoginError::Exclusive(error) => error.into(),
            AppserviceLoginError::Login(LoginError::Forbidden) => IdentityError::NotRegistered.into(),
            AppserviceLoginError::Login(error) => error.into(),
        }
    }
}

impl From<SessionRefusal> for ApiError {
    fn from(error: SessionRefusal) -> Self {
        match error {
            SessionRefusal::DeviceId | SessionRefusal::DeviceName => Self::invalid_param(sentence(&error)),
            SessionRefusal::TooManyDevices => Self::forbidden(sentence(&error)),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Forbidden => Self::forbidden("Wrong user name or password."),
            LoginError::Token => Self::forbidden("The login token is unknown, has expired or was used."),
            LoginError::Deactivated => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::UserDeactivated, "This account was deactivated.")
            }
            LoginError::Busy(error) => error.into(),
            LoginError::Session(error) => error.into(),
            LoginError::Storage(error) => error.into(),
        }
    }
}

impl From<WeakPassword> for ApiError {
    fn from(error: WeakPassword) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::WeakPassword, sentence(&error))
    }
}

impl From<HashingBusy> for ApiError {
    fn from(_: HashingBusy) -> Self {
        Self::limit_exceeded(BUSY_RETRY)
    }
}

impl From<SetPasswordError> for ApiError {
    fn from(error: SetPasswordError) -> Self {
        match error {
            SetPasswordError::WeakPassword(error) => error.into(),
            SetPasswordError::Busy(error) => error.into(),
            SetPasswordError::NoAccount => Self::not_found("There is no active account with this name."),
            SetPasswordError::Storage(error) => error.into(),
        }
    }
}

impl From<InteractiveAuthError> for ApiError {
    fn from(error: InteractiveAuthError) -> Self {
        match error {
            InteractiveAuthError::Incomplete(info) => Self::interactive_auth(*info),
            InteractiveAuthError::OtherUser => Self::forbidden(sentence(&error)),
            InteractiveAuthError::Busy(error) => error.into(),
            InteractiveAuthError::Storage(error) => error.into(),
        }
    }
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        let refuse = |kind| Self::new(StatusCode::BAD_REQUEST, kind, sentence(&error));
        match error {
            ProfileError::NameTooLong => refuse(ErrorKind::KeyTooLarge),
            ProfileError::Name | ProfileError::Value | ProfileError::Avatar => refuse(ErrorKind::InvalidParam),
            ProfileError::ProfileTooLarge => refuse(ErrorKind::ProfileTooLarge),
            ProfileError::Storage(error) => error.into(),
        }
    }
}

impl From<PutError> for ApiError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::BadType => Self::invalid_param(error.to_string()),
            PutError::TooLarge(_) | PutError::Full(_) => Self::too_large(error.to_string()),
            PutError::TooMany(_) => Self::new(StatusCode::BAD_REQUEST, ErrorKind::Unknown, error.to_string()),
            PutError::TooManyWaiting(error) => error.into(),
            PutError::Storage(error) => error.into(),
        }
    }
}

impl From<filter::stored::CreateError> for ApiError {
    fn from(error: filter::stored::CreateError) -> Self {
        match error {
            filter::stored::CreateError::TooLarge(_) => Self::too_large(error.to_string()),
            filter::stored::CreateError::TooManyWaiting(error) => error.into(),
            filter::stored::CreateError::Storage(error) => error.into(),
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::Data(error) => error.into(),
        }
    }
}

impl From<RuleError> for ApiError {
    fn from(error: RuleError) -> Self {
        let message = error.to_string();
        match error {
            RuleError::NotFound => Self::not_found(message),
            RuleError::ServerDefault | RuleError::NoPlace | RuleError::Invalid(_) => Self::invalid_param(message),
            // The spec's example of this answer has M_UNKNOWN.
            RuleError::NeighbourNotFound(_) | RuleError::TooMany | RuleError::TooLong => {
                Self::new(StatusCode::BAD_REQUEST, ErrorKind::Unknown, message)
            }
        }
    }
}

impl From<MarkError> for ApiError {
    fn from(error: MarkError) -> Self {
        match error {
            MarkError::UnknownEvent(_) => Self::not_found(error.to_string()),
            MarkError::Data(error) => error.into(),
            MarkError::Storage(error) => error.into(),
        }
    }
}

/// The error's text as a sentence.
fn sentence(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}

//! The conversion of service errors to status codes and Matrix error codes, for rooms; [`account`] has those for
//! accounts. Keys, key backup and to-device messages have theirs beside their endpoints.

mod account;

use axum::http::StatusCode;
use ruma::{RoomAliasId, api::error::ErrorKind};
use sabha_federation::BuildError;

use super::room::version::unsupported;
use crate::{
    account::AuthenticateError,
    filter::{FilterError, FindFilterError, GivenFilterError},
    http::ApiError,
    report::Report,
    room::{
        read::viewer::ReadError,
        write::{AppendError, alias::AliasError, create::CreateError, send::SendError, upgrade::UpgradeError},
    },
    shares::large_answers::NoTurn,
    sync::token::InvalidToken,
};

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        // No `_` arm: a new way to fail must choose here what the client sees.
        match error {
            // The answer is the same for an unknown room and for one that the caller is not in.
            SendError::UnknownRoom { .. } | SendError::NotJoined { .. } => Self::forbidden("You are not in this room."),
            SendError::NotInRoom { user_id } => Self::forbidden(format!("{user_id} is not in the room.")),
            SendError::UnknownEvent { .. } => Self::not_found("There is no such event in this room."),
            SendError::MayNotRedact { .. } => Self::forbidden("You may not redact this event."),
            SendError::BadAlias { alias } if RoomAliasId::parse(&alias).is_err() => {
                Self::invalid_param(format!("{alias} is not a room alias."))
            }
            SendError::BadAlias { alias } => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorKind::BadAlias,
                format!("The alias {alias} does not point to this room."),
            ),
            SendError::NoAliases(cause) => Self::invalid_param(format!("The content names no aliases: {cause}.")),
            SendError::DuplicateAnnotation => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorKind::DuplicateAnnotation,
                "You have annotated this event with this key before.",
            ),
            SendError::NotBanned { user_id } => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::BadState, format!("{user_id} is not banned."))
            }
            SendError::SignedOut => AuthenticateError::Unknown.into(),
            SendError::Append(error) => error.into(),
            SendError::Storage(error) => error.into(),
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotAuthorized(reason) => Self::forbidden(format!("The room does not allow that: {reason}.")),
            AppendError::HoldsNul => Self::invalid_param("A type or a state key holds no NUL."),
            // One answer for both, so that an inviter learns nothing about the account.
            AppendError::Deactivated { .. } | AppendError::TooManyInvitations { .. } => {
                tracing::debug!(error = %Report(&error), "a user was not invited");
                Self::forbidden("This user cannot be invited.")
            }
            AppendError::TooManyKnocks => Self::forbidden("Too many of your knocks wait for an answer."),
            AppendError::Invalid(error) => build_error(error),
            AppendError::Storage(error) => error.into(),
        }
    }
}

fn build_error(error: BuildError) -> ApiError {
    match error {
        BuildError::NotCanonical(cause) => ApiError::bad_json(format!(
            "The content is not canonical JSON, an object with neither floats nor integers beyond 2^53 - 1: {cause}."
        )),
        BuildError::TooDeep => ApiError::bad_json(format!("The event cannot be taken: {error}.")),
        BuildError::TooLarge { .. } => ApiError::too_large(format!("The event is too large: {error}.")),
        // These are caused by the room or by this server, not by the client's request.
        BuildError::TooMany { .. }
        | BuildError::TimeOutOfRange { .. }
        | BuildError::ForeignSender { .. }
        | BuildError::MissingRoomId
        | BuildError::UnexpectedRoomId => ApiError::internal(error),
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::UnsupportedVersion { version } => unsupported(version.as_str()),
            CreateError::Alias(AliasError::Taken { alias }) => {
                Self::new(StatusCode::BAD_REQUEST, ErrorKind::RoomInUse, format!("{alias} is taken."))
            }
            CreateError::Alias(error) => error.into(),
            CreateError::InitialMember => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorKind::InvalidRoomState,
                "initial_state holds no m.room.member event but your own join; use invite for others.",
            ),
            CreateError::BadAlias { alias } => SendError::BadAlias { alias }.into(),
            CreateError::NoAliases(cause) => SendError::NoAliases(cause).into(),
            CreateError::Event { event_type, source: AppendError::NotAuthorized(reason) } => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorKind::InvalidRoomState,
                format!("The room would not allow its own {event_type} event: {reason}."),
            ),
            CreateError::Event { source, .. } => source.into(),
            CreateError::SignedOut => AuthenticateError::Unknown.into(),
            CreateError::Storage(error) => error.into(),
        }
    }
}

impl From<UpgradeError> for ApiError {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::NotAllowed => Self::forbidden("You may not upgrade this room."),
            UpgradeError::New(error) => error.into(),
            UpgradeError::Old(error) => error.into(),
        }
    }
}

impl From<AliasError> for ApiError {
    fn from(error: AliasError) -> Self {
        match error {
            AliasError::Foreign { alias } => Self::invalid_param(format!("{alias} is not an alias of this server.")),
            AliasError::Taken { alias } => {
                Self::new(StatusCode::CONFLICT, ErrorKind::Unknown, format!("{alias} already exists."))
            }
            AliasError::Unknown { alias } => Self::not_found(format!("{alias} does not exist.")),
            AliasError::NotAllowed => Self::forbidden("You may not do that with this room."),
            AliasError::UnknownRoom => Self::not_found("There is no such room here."),
            AliasError::Storage(error) => error.into(),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotInRoom { .. } => Self::forbidden("You are not in this room."),
            ReadError::UnknownEvent => Self::not_found("There is no such event in this room, or you may not see it."),
            ReadError::Storage(error) => error.into(),
        }
    }
}

impl From<NoTurn> for ApiError {
    fn from(error: NoTurn) -> Self {
        Self::unavailable(match error {
            NoTurn::TooMany => "The server makes too many large answers at this moment. Please try again.",
            NoTurn::Stopping => "The server is stopping. Please try again.",
        })
    }
}

impl From<InvalidToken> for ApiError {
    fn from(error: InvalidToken) -> Self {
        Self::invalid_param(format!("{error}."))
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::invalid_param(format!("filter: {error}."))
    }
}

impl From<GivenFilterError> for ApiError {
    fn from(error: GivenFilterError) -> Self {
        match error {
            GivenFilterError::Refused(error) => error.into(),
            GivenFilterError::Write(_) => Self::internal(error),
        }
    }
}

impl From<FindFilterError> for ApiError {
    fn from(error: FindFilterError) -> Self {
        match error {
            FindFilterError::Refused(error) => Self::invalid_param(format!(
                "The stored filter with this ID cannot be used any more: {error}. Store one within this limit."
            )),
            FindFilterError::Storage(error) => error.into(),
        }
    }
}

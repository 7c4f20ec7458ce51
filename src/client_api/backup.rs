//! Key backup: [`ruma::api::client::backup`].

mod add_backup_keys;
mod add_backup_keys_for_room;
mod add_backup_keys_for_session;
mod create_backup_version;
mod delete_backup_keys;
mod delete_backup_keys_for_room;
mod delete_backup_keys_for_session;
mod delete_backup_version;
mod get_backup_info;
mod get_backup_keys;
mod get_backup_keys_for_room;
mod get_backup_keys_for_session;
mod get_latest_backup_info;
mod pages;
mod update_backup_version;

use axum::http::StatusCode;
use ruma::{
    UInt,
    api::{
        client::backup::KeyBackupData,
        error::{ErrorKind, WrongRoomKeysVersionErrorData},
    },
    serde::Raw,
};

use crate::{
    endpoint::Routes,
    http::ApiError,
    keys::backup::{BackupError, Stored},
    limits::rate_limits::Action,
    store::Error,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, add_backup_keys::handle)
        .serve(Action::Other, add_backup_keys_for_room::handle)
        .serve(Action::Other, add_backup_keys_for_session::handle)
        .serve(Action::Other, create_backup_version::handle)
        .serve(Action::Other, delete_backup_keys::handle)
        .serve(Action::Other, delete_backup_keys_for_room::handle)
        .serve(Action::Other, delete_backup_keys_for_session::handle)
        .serve(Action::Other, delete_backup_version::handle)
        .serve(Action::Other, get_backup_info::handle)
        .serve(Action::Other, get_backup_keys::handle)
        .serve(Action::Other, get_backup_keys_for_room::handle)
        .serve(Action::Other, get_backup_keys_for_session::handle)
        .serve(Action::Other, get_latest_backup_info::handle)
        .serve(Action::Other, update_backup_version::handle)
}

/// The `etag` and `count` with which every change of a backup is answered.
fn answer(stored: Stored) -> (String, UInt) {
    (stored.etag.to_string(), count(stored.count))
}

fn count(count: i64) -> UInt {
    UInt::new_saturating(count.unsigned_abs())
}

fn stored_key(json: String) -> Result<Raw<KeyBackupData>, Error> {
    Raw::from_json_string(json).map_err(|error| Error::damaged("room key of a backup", error))
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::NoSuchVersion | BackupError::NoSuchKey => Self::not_found(error.to_string()),
            BackupError::WrongVersion { current } => {
                let data = WrongRoomKeysVersionErrorData::new(current.to_string());
                Self::new(StatusCode::FORBIDDEN, ErrorKind::WrongRoomKeysVersion(data), error.to_string())
            }
            BackupError::OtherAlgorithm | BackupError::OtherVersion | BackupError::TooMany { .. } => {
                Self::invalid_param(error.to_string())
            }
            BackupError::Malformed(_) => Self::bad_json(error.to_string()),
            BackupError::TooLarge { .. } | BackupError::Full => Self::too_large(error.to_string()),
            BackupError::TooManyWaiting(error) => error.into(),
            BackupError::Storage(error) => error.into(),
        }
    }
}

//! The conversion of errors of [`crate::use_cases`] to status codes and Matrix error codes, for all APIs.

use crate::{
    http::ApiError,
    use_cases::directory::{DirectoryError, MAX_SEARCH_TERM_BYTES},
};

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::LongSearchTerm => {
                Self::invalid_param(format!("A search term has at most {MAX_SEARCH_TERM_BYTES} bytes."))
            }
            DirectoryError::UnknownToken => Self::invalid_param("since is a token of this server."),
            DirectoryError::NotFederating => {
                Self::forbidden("This server does not federate, so it has only its own directory.")
            }
            DirectoryError::Federation(error) => error.into(),
            DirectoryError::Storage(error) => error.into(),
        }
    }
}

//! Why a server did not start, or ended by itself: each reason is one line that says what to do.

use std::{error::Error, fmt, io, path::PathBuf};

use super::{metrics::MetricsError, signing_key::SigningKeyError};
use crate::{
    account::register::RegisterError,
    appservice::LoadError,
    http::listen::ListenError,
    outbound::SetupError,
    store::{self, OpenError, committer::Ended},
};

/// Why a server did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data directory {} cannot be used", path.display())]
    DataDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("registration.shared_secret_file cannot be read")]
    SharedSecret(#[source] io::Error),
    #[error(transparent)]
    Appservice(#[from] LoadError),
    #[error("the user of an application service cannot be made")]
    Sender(#[source] RegisterError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    #[error(transparent)]
    Outbound(#[from] SetupError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    /// It had started, and served for a while.
    #[error("stopped: {0}")]
    Ended(Ended),
    #[error("the database failed while starting")]
    Storage(#[from] store::Error),
}

/// An error and its causes, in one line.
pub struct OneLine<'a>(pub &'a dyn Error);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some libraries repeat their cause in their own message.
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        f.write_str(&text.replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_in_one_line_and_none_twice() {
        let source = io::Error::other("no\nspace");
        let error = StartError::DataDir { path: "./data".into(), source };
        assert_eq!(OneLine(&error).to_string(), "the data directory ./data cannot be used: no space");
        let repeated = StartError::Open(OpenError::InUse("x.db".to_owned()));
        assert_eq!(OneLine(&repeated).to_string(), "another process is using this database (x.db): stop it first");
    }
}

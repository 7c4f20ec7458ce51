//! The reasons why a server did not start, or ended by itself. Each is one line that says what to do.

use std::{io, path::PathBuf};

use super::metrics::MetricsError;
use crate::{
    account::register::RegisterError,
    appservice::LoadError,
    http::listen::ListenError,
    outbound::SetupError,
    remote::signing_key::SigningKeyError,
    report::Report,
    store::{self, OpenError, committer::Ended},
};

/// The reason why a server did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data directory {} (data_dir in the configuration) cannot be used", path.display())]
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
    #[error("{}; {}", Report(&**error), remedy(*key, error))]
    Listen { key: ListenKey, error: Box<ListenError> },
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("signals cannot be caught")]
    Signals(#[source] io::Error),
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    /// The server had started, and served for a while.
    #[error("stopped: {0}")]
    Ended(Ended),
    #[error("the database failed while starting")]
    Storage(#[from] store::Error),
}

/// The configuration key that asks for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenKey {
    /// The section of `[[listeners]]` with this number, from 0.
    Listener(usize),
    Metrics,
}

/// The advice for a socket that cannot be bound.
fn remedy(key: ListenKey, error: &ListenError) -> String {
    let change = match key {
        ListenKey::Listener(0) => {
            "choose another place: `address` in [[listeners]], or for one run `sabha serve --listen 127.0.0.1:8018`"
                .to_owned()
        }
        ListenKey::Listener(number) => format!("choose another place: listeners[{number}] in the configuration"),
        ListenKey::Metrics => {
            "set metrics.address to another place, or metrics.enabled = false to have no measurements".to_owned()
        }
    };
    let kind = match error {
        ListenError::Bind { source, .. } => source.kind(),
        ListenError::InUse { .. } => io::ErrorKind::AddrInUse,
        ListenError::NotASocket { .. } | ListenError::Tls(_) => io::ErrorKind::Other,
    };
    match kind {
        io::ErrorKind::AddrInUse => format!("stop the process that listens there (another Sabha?), or {change}"),
        io::ErrorKind::AddrNotAvailable => format!("this machine has no such address: {change}"),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a privilege that this process lacks: {change}")
        }
        _ => match key {
            ListenKey::Listener(number) => format!("it is listeners[{number}] in the configuration"),
            ListenKey::Metrics => "it is metrics.address in the configuration".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_cannot_be_bound_names_the_key_to_change() {
        let check = |key: ListenKey, kind: io::ErrorKind, expected: &str| {
            let address = crate::http::listen::Address::Tcp(([127, 0, 0, 1], 8009).into());
            let error = Box::new(ListenError::Bind { address, source: kind.into() });
            let line = Report(&StartError::Listen { key, error }).to_string();
            assert!(line.starts_with("could not listen on 127.0.0.1:8009: ") && line.contains(expected), "{line}");
        };
        check(ListenKey::Metrics, io::ErrorKind::AddrInUse, "set metrics.address to another place");
        check(ListenKey::Listener(0), io::ErrorKind::AddrInUse, "sabha serve --listen");
        check(ListenKey::Listener(1), io::ErrorKind::AddrInUse, "listeners[1]");
        check(ListenKey::Listener(0), io::ErrorKind::PermissionDenied, "ports below 1024");
        check(ListenKey::Metrics, io::ErrorKind::AddrNotAvailable, "no such address: set metrics.address");
        check(ListenKey::Listener(2), io::ErrorKind::NotFound, "listeners[2]");
    }
}

//! `sabha healthcheck`: asks a running server for `/health`, for container images without a shell or curl.
//!
//! Promise: only this server is reported healthy, never another program on its port. The check speaks plain HTTP over
//! TCP or a unix socket. If every listener has TLS, check the metrics address or a unix listener.

use std::{fmt::Display, io, path::Path, time::Duration};

use ruma::OwnedServerName;
use sabha_federation::key_file;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use crate::{
    http::listen::Address,
    remote::signing_key,
    server::{
        health::{IDENTITY, Identity},
        run::on_this_machine,
    },
};

/// The timeout for connecting and the answer together. A server that needs longer to answer `OK` is unhealthy; Docker's
/// own timeout is 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes read of an answer: more than ours needs, and a bound if another program listens there.
const MAX_ANSWER_BYTES: u64 = 4096;

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The server that must answer.
#[derive(Debug, Default)]
pub struct Expected {
    /// `None` accepts any Sabha server.
    pub server_name: Option<OwnedServerName>,
    /// The ID of the signing key, if its file can be read.
    pub key_id: Option<String>,
}

impl Expected {
    /// The server of this data directory, or `Ok(None)` if there is none.
    ///
    /// # Errors
    /// One line, if the key file cannot be read. A missing permission is no error: then only the name is checked.
    pub fn of_data_dir(data_dir: &Path, server_name: OwnedServerName) -> Result<Option<Self>, String> {
        let path = data_dir.join(signing_key::FILE);
        let key_id = match std::fs::read(&path).map(Zeroizing::new) {
            Ok(file) => {
                let keys = key_file::read(&file).unwrap_or_default();
                keys.first().map(|key| key.key_id().to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        Ok(Some(Self { server_name: Some(server_name), key_id }))
    }
}

/// Checks that the server at `target` is the expected one and reports itself healthy, and returns its name.
///
/// # Errors
/// One line for a person: the address and the problem.
pub async fn healthcheck(target: &Address, expected: &Expected) -> Result<String, String> {
    let failed = |what: &dyn Display| format!("{target} is not healthy: {what}");
    let asked = async {
        match target {
            Address::Tcp(address) => ask(TcpStream::connect(on_this_machine(*address)).await?).await,
            Address::Unix { path, .. } => ask(UnixStream::connect(path).await?).await,
        }
    };
    let answer = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            return Err(failed(&format_args!("{error}; no server listens there")));
        }
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => {
            return Err(failed(&format_args!("no answer within {} s", TIMEOUT.as_secs())));
        }
    };
    let answer = String::from_utf8_lossy(&answer);
    match status(&answer) {
        Some(200) => {}
        Some(status) => return Err(failed(&format_args!("it answered with status {status}"))),
        None => return Err(failed(&"its answer is not plain HTTP")),
    }
    let Some(found) = identity(&answer) else {
        return Err(failed(&"something else listens there, which does not say that it is a Sabha"));
    };
    if let Some(name) = expected.server_name.as_ref().filter(|name| found.server_name != name.as_str()) {
        return Err(failed(&format_args!("the server of {} listens there, not that of {name}", found.server_name)));
    }
    if let Some(key_id) = expected.key_id.as_ref().filter(|key_id| found.key_id != **key_id) {
        let name = &found.server_name;
        return Err(failed(&format_args!(
            "another server of {name} listens there, with the signing key {} and not {key_id}",
            found.key_id
        )));
    }
    Ok(found.server_name)
}

async fn ask(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    io.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    io.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn identity(answer: &str) -> Option<Identity> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        Identity::from_header(value).filter(|_| name.eq_ignore_ascii_case(IDENTITY.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use axum::{Router, routing::get};
    use ruma::owned_server_name;

    use super::*;
    use crate::http::accept::serve;
    use crate::http::listen::{Listener, ListenerSpec};
    use crate::http::shutdown::Shutdown;
    use crate::server::health;

    /// Serves `router` on `address` and returns the result of the check.
    async fn check(address: Address, router: Router, expected: &Expected) -> Result<String, String> {
        let shutdown = Shutdown::new();
        let listener = Listener::bind(&ListenerSpec { address, tls: None }).await.unwrap();
        let target = listener.address().clone();
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
        let checked = healthcheck(&target, expected).await;
        shutdown.begin();
        serving.await.unwrap();
        checked.map_err(|error| error.replace(&target.to_string(), "it"))
    }

    fn healthy() -> Router {
        let identity = Identity { server_name: "example.com".to_owned(), key_id: "ed25519:a_1".to_owned() };
        health::router(move || identity.clone(), Arc::new(|| Box::pin(async { Vec::new() })))
    }

    #[tokio::test]
    async fn a_healthy_server_is_recognised_on_both_kinds_of_socket() {
        let folder = tempfile::tempdir().unwrap();
        let loopback = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let any = Expected::default();
        assert_eq!(check(loopback.clone(), healthy(), &any).await, Ok("example.com".to_owned()));
        let unix = Address::Unix { path: folder.path().join("s"), mode: 0o600 };
        assert_eq!(check(unix, healthy(), &any).await, Ok("example.com".to_owned()));

        let other = check(loopback, Router::new(), &any).await;
        assert_eq!(other, Err("it is not healthy: it answered with status 404".to_owned()));
    }

    #[tokio::test]
    async fn somebody_else_on_the_port_is_not_healthy() {
        let loopback = || Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let expected = |name, key_id: &str| Expected { server_name: Some(name), key_id: Some(key_id.to_owned()) };
        let ours = expected(owned_server_name!("example.com"), "ed25519:a_1");
        assert_eq!(check(loopback(), healthy(), &ours).await, Ok("example.com".to_owned()));

        let refused =
            async |router: Router, expected: &Expected| check(loopback(), router, expected).await.unwrap_err();
        let anyone = Router::new().route("/health", get(async || "OK"));
        assert!(refused(anyone, &Expected::default()).await.contains("something else listens there"));
        let other_name = expected(owned_server_name!("example.org"), "ed25519:a_1");
        let said = refused(healthy(), &other_name).await;
        assert!(said.contains("the server of example.com listens there, not that of example.org"), "{said}");
        let other_key = expected(owned_server_name!("example.com"), "ed25519:a_2");
        let said = refused(healthy(), &other_key).await;
        assert!(said.contains("another server of example.com"), "{said}");
    }

    #[tokio::test]
    async fn nobody_listening_is_said_in_one_line() {
        let target = Address::Unix { path: "/nonexistent/sabha.sock".into(), mode: 0 };
        let message = healthcheck(&target, &Expected::default()).await.unwrap_err();
        assert!(message.starts_with("unix:/nonexistent/sabha.sock is not healthy: No such file"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn where_no_server_was_started_there_is_none_to_expect() {
        let folder = tempfile::tempdir().unwrap();
        let found = Expected::of_data_dir(folder.path(), owned_server_name!("localhost")).unwrap();
        assert!(found.is_none());
    }
}

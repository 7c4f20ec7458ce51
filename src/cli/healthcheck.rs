//! `sabha healthcheck`: asks a running server for `/health`, for container images without a shell or curl.
//!
//! Speaks plain HTTP over TCP or a unix socket. Where every listener has TLS, check the metrics or a unix listener.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::http::listen::Address;

/// For connecting and the answer together. A server that needs longer for `OK` is not well; Docker gives 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);

/// More than our answer needs; something else may be listening there.
const MAX_ANSWER_BYTES: u64 = 4096;

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Whether the server at `target` answers that it is well.
///
/// # Errors
/// One line for a person: what was asked, and what came of it.
pub async fn healthcheck(target: &Address) -> Result<(), String> {
    let failed = |what: &dyn Display| format!("{target} is not healthy: {what}");
    let asked = async {
        match target {
            Address::Tcp(address) => ask(TcpStream::connect(reachable(*address)).await?).await,
            Address::Unix { path, .. } => ask(UnixStream::connect(path).await?).await,
        }
    };
    let answer = match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| failed(&error))?,
        Err(_) => {
            return Err(failed(&format_args!("no answer within {} s", TIMEOUT.as_secs())));
        }
    };
    match status(&answer) {
        Some(200) => Ok(()),
        Some(status) => Err(failed(&format_args!("it answered with status {status}"))),
        None => Err(failed(&"its answer is not plain HTTP")),
    }
}

/// A listener on every interface is reached on this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(mut io: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<Vec<u8>> {
    io.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    io.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn status(answer: &[u8]) -> Option<u16> {
    let code = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;

    use super::*;
    use crate::http::accept::serve;
    use crate::http::listen::{Listener, ListenerSpec};
    use crate::http::shutdown::Shutdown;
    use crate::server::health;

    /// Serves `router` on `address` and returns what the check says of it.
    async fn check(address: Address, router: Router) -> Result<(), String> {
        let shutdown = Shutdown::new();
        let listener = Listener::bind(&ListenerSpec { address, tls: None }).await.unwrap();
        let target = listener.address().clone();
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
        let checked = healthcheck(&target).await;
        shutdown.begin();
        serving.await.unwrap();
        checked.map_err(|error| error.replace(&target.to_string(), "it"))
    }

    #[tokio::test]
    async fn a_healthy_server_is_recognised_on_both_kinds_of_socket() {
        let folder = tempfile::tempdir().unwrap();
        let healthy = health::router(Arc::new(|| Box::pin(async { Vec::new() })));
        let loopback = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        assert_eq!(check(loopback.clone(), healthy.clone()).await, Ok(()));
        assert_eq!(check(Address::Unix { path: folder.path().join("s"), mode: 0o600 }, healthy).await, Ok(()));

        let other = check(loopback, Router::new()).await;
        assert_eq!(other, Err("it is not healthy: it answered with status 404".to_owned()));
    }

    #[tokio::test]
    async fn nobody_listening_is_said_in_one_line() {
        let target = Address::Unix { path: "/nonexistent/sabha.sock".into(), mode: 0 };
        let message = healthcheck(&target).await.unwrap_err();
        assert!(message.starts_with("unix:/nonexistent/sabha.sock is not healthy: No such file"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn wildcard_addresses_are_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:8008".parse().unwrap()).to_string(), "127.0.0.1:8008");
        assert_eq!(reachable("[::]:8008".parse().unwrap()).to_string(), "[::1]:8008");
        assert_eq!(reachable("192.0.2.1:80".parse().unwrap()).to_string(), "192.0.2.1:80");
    }
}

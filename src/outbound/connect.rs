//! One connection to a checked address, with HTTP/1.1 or HTTP/2 on it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use sabha_federation::Host;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::trust::ALPN_HTTP2;

/// The time for one address to accept the connection, so that a dead one leaves time for the next.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum size of an answer's status line and headers. hyper's read buffer for HTTP/1.1 grows up to this.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Maximum number of headers in an HTTP/1.1 answer. In HTTP/2 each counts 32 bytes more, so the size bounds the number.
const MAX_HEADERS: usize = 100;

/// The bytes of an answer that an HTTP/2 server may send before we read them: for each answer, and for all answers of a
/// connection. At 100 ms a round trip, 1 MiB carries 10 MB/s, which is enough for the state of a large room.
const HTTP2_STREAM_WINDOW: u32 = 1024 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// The interval at which an HTTP/2 server that owes an answer is pinged, and the timeout for its reply. A connection that
/// a router has forgotten otherwise looks like a slow server.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the address did not accept the connection")]
    Tcp(#[source] io::Error),
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the host cannot be named in a certificate")]
    BadName,
    #[error("HTTP did not begin")]
    Http(#[source] hyper::Error),
}

/// An open connection. Dropping it, and what [`Self::share`] made of it, closes it.
pub struct Connection {
    host: Host,
    requests: RequestSender,
    /// Ends the tasks that hyper runs for the connection, which own the socket.
    end: Arc<DropGuard>,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    Http1,
    Http2,
}

enum RequestSender {
    /// Takes one request at a time.
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A request to which no answer began.
pub(super) struct Unanswered {
    pub host: Host,
    pub source: hyper::Error,
    /// Whether a part of the request may have reached the server.
    pub was_sent: bool,
}

/// Connects to the first address that accepts. With TLS, the certificate must name the given host, and the server chooses
/// one of the connector's protocols.
pub(super) async fn connect(
    host: &Host,
    addresses: &[SocketAddr],
    tls: Option<(&Host, &TlsConnector)>,
) -> Result<Connection, ConnectError> {
    let tcp = first(addresses).await.map_err(ConnectError::Tcp)?;
    // Without it, the last part of a request could be delayed, waiting for more data to send.
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    match tls {
        None => begin(host, tcp, ClientProtocol::Http1).await,
        Some((certificate, connector)) => {
            let name = match certificate {
                Host::Ip(ip) => ServerName::from(*ip),
                Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| ConnectError::BadName)?,
            };
            let stream = connector.connect(name, tcp).await.map_err(ConnectError::Tls)?;
            let chosen = stream.get_ref().1.alpn_protocol();
            let protocol = if chosen == Some(ALPN_HTTP2) { ClientProtocol::Http2 } else { ClientProtocol::Http1 };
            begin(host, stream, protocol).await
        }
    }
}

async fn first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// Begins HTTP on a stream.
pub(super) async fn begin<S>(host: &Host, stream: S, protocol: ClientProtocol) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let token = CancellationToken::new();
    let end = Arc::new(token.clone().drop_guard());
    let (tasks, stream) = (Tasks(token), TokioIo::new(stream));
    // An error of the connection's own future also ends its requests, with the same error.
    let requests = match protocol {
        ClientProtocol::Http1 => {
            let (requests, connection) = http1::Builder::new()
                .max_buf_size(MAX_HEADER_BYTES as usize)
                .max_headers(MAX_HEADERS)
                .handshake(stream)
                .await
                .map_err(ConnectError::Http)?;
            tasks.execute(connection);
            RequestSender::Http1(requests)
        }
        ClientProtocol::Http2 => {
            let (requests, connection) = http2::Builder::new(tasks.clone())
                .timer(TokioTimer::new())
                .keep_alive_interval(HTTP2_PING_INTERVAL)
                .keep_alive_timeout(HTTP2_PONG_TIMEOUT)
                .initial_stream_window_size(HTTP2_STREAM_WINDOW)
                .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
                .max_header_list_size(MAX_HEADER_BYTES)
                .handshake(stream)
                .await
                .map_err(ConnectError::Http)?;
            tasks.execute(connection);
            RequestSender::Http2(requests)
        }
    };
    Ok(Connection { host: host.clone(), requests, end })
}

/// Runs the tasks of a connection, until it is dropped.
#[derive(Clone)]
struct Tasks(CancellationToken);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        tokio::spawn(self.0.clone().run_until_cancelled_owned(task));
    }
}

impl Connection {
    /// The host that was connected to.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn protocol(&self) -> ClientProtocol {
        match self.requests {
            RequestSender::Http1(_) => ClientProtocol::Http1,
            RequestSender::Http2(_) => ClientProtocol::Http2,
        }
    }

    /// Another handle of an HTTP/2 connection, which takes many requests at a time.
    pub(super) fn share(&self) -> Option<Self> {
        match &self.requests {
            RequestSender::Http1(_) => None,
            RequestSender::Http2(requests) => Some(Self {
                host: self.host.clone(),
                requests: RequestSender::Http2(requests.clone()),
                end: Arc::clone(&self.end),
            }),
        }
    }

    /// Whether the two are handles of one connection.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.end, &other.end)
    }

    /// Whether the next request can begin now, as far as we know: the server may have closed the connection.
    pub(super) fn is_ready(&self) -> bool {
        match &self.requests {
            RequestSender::Http1(requests) => requests.is_ready(),
            RequestSender::Http2(requests) => requests.is_ready(),
        }
    }

    /// Waits until the next request can begin.
    ///
    /// # Errors
    /// When there will be none, because one side closes the connection.
    pub(super) async fn ready(&mut self) -> Result<(), hyper::Error> {
        match &mut self.requests {
            RequestSender::Http1(requests) => requests.ready().await,
            RequestSender::Http2(requests) => requests.ready().await,
        }
    }

    /// Sends the request and waits for the head of the answer. The request's `Host` must be set, and for HTTP/2 its URI
    /// must be whole.
    pub(super) async fn send(&mut self, mut request: Request<Bytes>) -> Result<Response<Incoming>, Unanswered> {
        let user_agent = HeaderValue::from_static(concat!("Sabha/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(header::USER_AGENT).or_insert(user_agent);
        let sent = match &mut self.requests {
            RequestSender::Http1(requests) => {
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
                requests.try_send_request(request.map(Full::new)).await
            }
            RequestSender::Http2(requests) => {
                // The URI already says it.
                request.headers_mut().remove(header::HOST);
                requests.try_send_request(request.map(Full::new)).await
            }
        };
        sent.map_err(|error: TrySendError<_>| Unanswered {
            host: self.host.clone(),
            was_sent: error.message().is_none(),
            source: error.into_error(),
        })
    }
}

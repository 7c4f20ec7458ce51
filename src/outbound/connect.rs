//! One connection to a checked address, and one HTTP/1.1 exchange on it.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use sabha_federation::Host;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::{OutboundError, add_user_agent};

/// The time for one address to accept the connection, so that a dead one leaves time for the next.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum size of an answer's status line and headers. hyper's read buffer grows up to this.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Maximum number of headers in an answer.
const MAX_HEADERS: usize = 100;

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

/// An open connection. Dropping it closes it.
pub struct Connection {
    host: Host,
    sender: SendRequest<Full<Bytes>>,
    /// hyper's task for the connection, which ends when this is dropped.
    _driver: JoinSet<()>,
}

/// Connects to the first address that accepts. With TLS, the certificate must name the given host.
pub(super) async fn connect(
    host: &Host,
    addresses: &[SocketAddr],
    tls: Option<(&Host, &TlsConnector)>,
) -> Result<Connection, ConnectError> {
    let tcp = first(addresses).await.map_err(ConnectError::Tcp)?;
    // Without it, the last part of a request could be delayed, waiting for more data to send.
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    match tls {
        None => begin(host, tcp).await,
        Some((certificate, connector)) => {
            let name = match certificate {
                Host::Ip(ip) => ServerName::from(*ip),
                Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| ConnectError::BadName)?,
            };
            let stream = connector.connect(name, tcp).await.map_err(ConnectError::Tls)?;
            begin(host, stream).await
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

async fn begin<S>(host: &Host, stream: S) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // An error here also ends the exchange, with the same error.
        let _ = connection.await;
    });
    Ok(Connection { host: host.clone(), sender, _driver: driver })
}

impl Connection {
    /// Sends the request and reads the whole answer. The request's URI must be a path, and its `Host` must be set.
    pub(super) async fn exchange(
        mut self,
        mut request: Request<Bytes>,
        body_bytes: usize,
    ) -> Result<Response<Bytes>, OutboundError> {
        add_user_agent(request.headers_mut());
        let broke_off = |host: &Host, source| OutboundError::Exchange { host: host.clone(), source };
        let response =
            self.sender.send_request(request.map(Full::new)).await.map_err(|error| broke_off(&self.host, error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, body_bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return OutboundError::TooLarge { limit_bytes: body_bytes };
            }
            match error.downcast::<hyper::Error>() {
                Ok(error) => broke_off(&self.host, *error),
                // `Limited` has only these two errors.
                Err(_) => OutboundError::TooLarge { limit_bytes: body_bytes },
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

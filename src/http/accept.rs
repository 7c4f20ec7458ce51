//! Accepting: from a bound [`Listener`] to requests on a router.
//!
//! This is our own loop instead of `axum::serve`, to control everything between a socket and a handler. Most of our
//! connections are waiting long polls, so a waiting connection (over HTTP/1, as most are) holds only one small task, no
//! buffer and no timer.
//!
//! Promises: neither clients nor the system's limits can end the loop; no client holds a connection without sending a
//! request for longer than the timeouts below, or without reading its answers for longer than [`Transport`] allows; on
//! [`Shutdown`] the loop stops accepting at once and returns when its connections are done, or at the deadline. Next:
//! [`super::tracked`] for the guarantees to a handler.

mod again;
mod answering;
mod heads;
mod http1;
mod http2;
mod negotiate;
mod unread;
mod wire;

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::header::{EXPECT, TRANSFER_ENCODING};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1 as hyper_http1, http2 as hyper_http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tracing::{debug, error, warn};

use self::{
    answering::{Answering, Asked},
    heads::Heads,
    negotiate::Protocol,
    unread::ReadToTheEnd,
    wire::{ConnectionState, Wire},
};
use super::{
    compress::Compression,
    listen::{Listener, Socket},
    shutdown::Shutdown,
    transport::{self, ReceivingUser, SMALL_BYTES, Transport},
};
use crate::network::network;

/// The maximum number of connections of one listener; further ones wait in the kernel's backlog. Bounds memory: at 25
/// kB each, 410 MB.
pub const MAX_CONNECTIONS: usize = 16_384;

/// The maximum size of request line and headers together. nginx and Apache stop at 8 KiB; X-Matrix headers and sync
/// filters in the query string need some room. A larger request is answered with 431.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The maximum size of hyper's read buffer, which starts at 8 KiB and doubles while uploads fill it. Must hold
/// [`MAX_HEADER_BYTES`].
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// The timeout for the headers of a request, counted from the end of the previous request. So it is also the idle
/// timeout of a connection. It is longer than any client needs to send 16 KiB.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The timeout of a TLS handshake: two round trips, with slow mobile networks in mind.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that an HTTP/2 client has to read its last answers and close, after it was told to close because it sent no
/// request for [`HEADER_READ_TIMEOUT`]. Enough for an initial sync of 10 MB at 35 kB/s.
const HTTP2_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);

/// The interval at which an HTTP/2 client that waits for an answer is pinged, and, below, the timeout for its reply.
/// Longer than most long polls, so that few phones are woken by it.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
const HTTP2_PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// The maximum number of concurrent requests on one HTTP/2 connection: the minimum that RFC 9113 recommends.
const MAX_HTTP2_STREAMS: u32 = 100;

/// The upload bytes that an HTTP/2 client may send before its handler reads them, per stream and per connection.
/// Smaller than hyper's 1 MiB, because the client decides how much of this memory is used.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The pause before the next accept when the system has no more sockets for us, unless one of our connections ends
/// first. The missing resource may also be freed elsewhere, by the database or by outbound requests.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(1);

/// The minimum interval between log lines about failed accepts, and about an address with too many connections. At the
/// limit, each connection that ends admits one more, and the next fails again.
const EXHAUSTED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The address of the other end, in the extensions of each request. `None` on a unix socket.
///
/// Behind a reverse proxy it is the proxy's address; another module decides whether to trust its forwarding headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

/// Serves `router` on `listener` until `shutdown` begins, then finishes the requests in flight.
///
/// # Cancellation
/// Dropping the future closes the listener and all its connections at once.
pub async fn serve(listener: Listener, router: Router, shutdown: Shutdown) {
    let address = listener.address().clone();
    let transport = listener.transport.clone();
    let server = Arc::new(Server::new(router, listener.tls.clone(), transport.clone(), shutdown.clone()));
    let mut connections = JoinSet::new();
    let mut stopping = pin!(shutdown.token().cancelled());
    let (mut exhausted_logged_at, mut refused_logged_at) = (None::<Instant>, None::<Instant>);
    loop {
        tokio::select! {
            biased;
            () = &mut stopping => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, client)) => match transport.connect(client) {
                    Some(counted) => {
                        let client = ClientAddress(client);
                        connections.spawn(server.clone().connection(socket, client, counted));
                    }
                    None if refused_logged_at.is_none_or(|at| at.elapsed() >= EXHAUSTED_LOG_INTERVAL) => {
                        refused_logged_at = Some(Instant::now());
                        warn!(?client, "closed a connection: its network has as many as it may");
                    }
                    None => {}
                },
                // Only that client's connection failed.
                Err(error) if ended_in_the_backlog(&error) => {}
                Err(error) => {
                    if exhausted_logged_at.is_none_or(|at| at.elapsed() >= EXHAUSTED_LOG_INTERVAL) {
                        exhausted_logged_at = Some(Instant::now());
                        error!(%address, %error, connections = connections.len(), "could not accept connections");
                    }
                    tokio::select! {
                        () = &mut stopping => break,
                        Some(ended) = connections.join_next() => report(ended),
                        () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
                    }
                }
            },
        }
    }
    drop(listener);
    let finished = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout_at(shutdown.deadline(), finished).await.is_err() {
        warn!(%address, connections = connections.len(), "dropped connections that did not finish in time");
    }
    connections.shutdown().await;
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "connection task failed");
    }
}

/// Returns whether accepting failed because the client has gone. On Linux, `accept` returns a pending error of the new
/// socket.
fn ended_in_the_backlog(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable
    )
}

/// The state that the connections of a listener share.
struct Server {
    router: Router,
    tls: Option<TlsAcceptor>,
    transport: Transport,
    shutdown: Shutdown,
    http1: hyper_http1::Builder,
    http2: hyper_http2::Builder<TokioExecutor>,
}

impl Server {
    fn new(router: Router, tls: Option<TlsAcceptor>, transport: Transport, shutdown: Shutdown) -> Self {
        let mut http1 = hyper_http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_header_size(MAX_HEADER_BYTES as usize)
            .max_buf_size(MAX_BUFFER_BYTES);
        let mut http2 = hyper_http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PONG_TIMEOUT)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_streams(MAX_HTTP2_STREAMS)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(MAX_BUFFER_BYTES);
        Self { router, tls, transport, shutdown, http1, http2 }
    }

    /// Serves one connection from its first byte to its last. The size of this future is a part of the cost of a
    /// waiting client.
    async fn connection(self: Arc<Self>, socket: Socket, client: ClientAddress, _counted: transport::Connected) {
        // Boxed, like HTTP/2 below: otherwise every waiting connection would keep the state of the largest part.
        let negotiated = tokio::select! {
            biased;
            () = self.shutdown.token().cancelled() => return,
            negotiated = Box::pin(negotiate::negotiate(socket, self.tls.as_ref())) => negotiated,
        };
        let (io, protocol) = match negotiated {
            Ok(negotiated) => negotiated,
            Err(error) => {
                return debug!(?client, %error, "connection ended before its first request");
            }
        };
        let state = Arc::<ConnectionState>::default();
        let heads = matches!(protocol, Protocol::Http1).then(Heads::new);
        // Boxed, because it moves into hyper's connection and out again.
        let wire = Box::new(Wire::new(io, heads, Arc::clone(&state)));
        let connected = Connected { server: Arc::clone(&self), client, protocol, state: Arc::clone(&state) };
        let serving = match protocol {
            Protocol::Http1 => Either::Left(http1::serve(&self, wire, connected)),
            Protocol::Http2 => {
                let serving = http2::serve(&self.http2, TokioIo::new(wire), connected, self.shutdown.token());
                Either::Right(Box::pin(serving))
            }
        };
        let served = tokio::select! {
            biased;
            served = serving => Some(served),
            () = state.hangup.wanted() => None,
        };
        match served {
            Some(Ok(())) => {}
            Some(Err(error)) => debug!(?client, %error, "connection ended with an error"),
            None => debug!(?client, "hung up on a client that reads too slowly"),
        }
    }
}

/// The router for one connection.
struct Connected {
    server: Arc<Server>,
    client: ClientAddress,
    protocol: Protocol,
    state: Arc<ConnectionState>,
}

impl Connected {
    fn answer(&self, request: hyper::Request<Incoming>) -> Answering {
        let is_http1 = matches!(self.protocol, Protocol::Http1);
        let asked = Asked {
            compression: Compression::of(request.method(), request.uri().path(), request.headers()),
            unheld_bytes: if is_http1 { SMALL_BYTES } else { 0 },
            // The end of a chunked body is the last position in its connection that is known for certain; see `heads`.
            closes: is_http1 && request.headers().contains_key(TRANSFER_ENCODING),
            answers: Arc::clone(self.server.transport.answers()),
            user: ReceivingUser::default(),
            network: self.client.0.map(network),
            connection: Arc::clone(&self.state),
        };
        if self.state.has_two_lengths() {
            return Answering::refuse_two_lengths(asked);
        }
        let awaits_continue = request.headers().contains_key(EXPECT);
        let mut request: Request = request.map(|incoming| {
            if is_http1 && !incoming.is_end_stream() {
                Body::new(ReadToTheEnd::new(incoming, awaits_continue, self.server.shutdown.clone()))
            } else {
                Body::new(incoming)
            }
        });
        request.extensions_mut().insert(self.client);
        request.extensions_mut().insert(asked.user.clone());
        // A router is always ready, and cloning one counts a reference.
        Answering::new(asked, tower::Service::call(&mut self.server.router.clone(), request))
    }
}

#[cfg(test)]
mod tests;

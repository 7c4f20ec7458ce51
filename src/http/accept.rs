//! Accepting: from a bound [`Listener`] to requests on a router.
//!
//! Our own loop instead of `axum::serve`, for what stands between a socket and a handler: most of our connections are
//! long polls that wait, so one that waits (over HTTP/1, as most do) holds one small task, hyper's two 8 KiB buffers and no
//! timer.
//!
//! Promises: nothing that clients or the system's limits do ends the loop; no client holds a connection without sending a
//! request for longer than the timeouts below, or without reading its answers for longer than
//! [`Transport`] allows; on [`Shutdown`] the loop stops accepting at once and returns when its
//! connections are done, or at the deadline. Next: [`super::tracked`] for what a handler may rely on.

mod answering;
mod heads;
mod http2;
mod negotiate;
mod unread;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{EXPECT, TRANSFER_ENCODING};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2 as hyper_http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};

use self::answering::{Answering, Asked};
use self::heads::Heads;
use self::negotiate::Protocol;
use self::unread::ReadToTheEnd;
use self::wire::{ConnectionState, Wire};
use super::compress::Compression;
use super::listen::{Listener, Socket};
use super::network::network;
use super::shutdown::Shutdown;
use super::transport::{self, ReceivingUser, SMALL_BYTES, Transport};

/// Connections of one listener at a time; more wait in the kernel's backlog. Bounds memory: at 25 kB each, 410 MB.
pub const MAX_CONNECTIONS: usize = 16_384;

/// Request line and headers together. nginx and Apache stop at 8 KiB; X-Matrix headers and sync filters in the query
/// string need some room. A larger one is answered with 431.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// hyper's read buffer starts at 8 KiB and doubles up to this while uploads fill it. Must hold [`MAX_HEADER_BYTES`].
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// For the headers of a request, from the end of the one before: so also how long a connection may idle between
/// requests. Longer than any client needs to send 16 KiB.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// For a TLS handshake: two round trips, with slow mobile networks in mind.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// For a client of HTTP/2 to take its last answers and close, once it was told to after [`HEADER_READ_TIMEOUT`] without a
/// request: an initial sync of 10 MB at 35 kB/s.
const HTTP2_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);

/// When a client of HTTP/2 that waits for an answer is asked whether it is still there, and how long it may take to say so.
/// Longer than most long polls, so that hardly a phone is woken for it.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
const HTTP2_PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests at a time on one HTTP/2 connection; what RFC 9113 names as the least that is useful.
const MAX_HTTP2_STREAMS: u32 = 100;

/// Upload bytes an HTTP/2 client may send ahead of what its handler has read, for a stream and for the connection.
/// Smaller than hyper's 1 MiB: memory that a client, not we, decides to use.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How long accepting pauses when the system has no more sockets for us and none of our connections ends meanwhile:
/// what is short may also be freed elsewhere, by the database or by outbound requests.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(1);

/// How often that is logged, and that an address has too many connections: at the limit, each connection that ends lets one
/// in and the next fails again.
const EXHAUSTED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The address of the other end, in the extensions of each request. `None` on a unix socket.
///
/// Behind a reverse proxy it is the proxy's; whether its forwarding headers are believed is not decided here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

/// Serves `router` on `listener` until `shutdown` begins, then finishes what is in flight.
///
/// # Cancellation
/// Dropping it closes the listener and all its connections at once.
pub async fn serve(listener: Listener, router: Router, shutdown: Shutdown) {
    let address = listener.address().clone();
    let transport = listener.transport.clone();
    let server = Arc::new(Server::new(router, listener.tls.clone(), transport.clone(), shutdown.clone()));
    let graceful = GracefulShutdown::new();
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
                        connections.spawn(server.clone().connection(socket, client, counted, graceful.watcher()));
                    }
                    None if refused_logged_at.is_none_or(|at| at.elapsed() >= EXHAUSTED_LOG_INTERVAL) => {
                        refused_logged_at = Some(Instant::now());
                        warn!(?client, "closed a connection: its network has as many as it may");
                    }
                    None => {}
                },
                // That client's misfortune, not ours.
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
    if tokio::time::timeout_at(shutdown.deadline(), graceful.shutdown()).await.is_err() {
        warn!(%address, connections = connections.len(), "dropped connections that did not finish in time");
    }
    connections.shutdown().await;
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "connection task failed");
    }
}

/// Whether accepting failed because the client has gone. Linux hands a pending error of the new socket to `accept`.
fn ended_in_the_backlog(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable
    )
}

/// What the connections of a listener share.
struct Server {
    router: Router,
    tls: Option<TlsAcceptor>,
    transport: Transport,
    shutdown: Shutdown,
    http1: http1::Builder,
    http2: hyper_http2::Builder<TokioExecutor>,
}

impl Server {
    fn new(router: Router, tls: Option<TlsAcceptor>, transport: Transport, shutdown: Shutdown) -> Self {
        let mut http1 = http1::Builder::new();
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

    /// One connection from its first byte to its last. Its size is what a waiting client costs, beside the buffers.
    async fn connection(
        self: Arc<Self>,
        socket: Socket,
        client: ClientAddress,
        _counted: transport::Connected,
        watcher: Watcher,
    ) {
        // Boxed, as is HTTP/2: the state of the largest part would otherwise be kept for every waiting connection.
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
        let io = TokioIo::new(Wire::new(io, heads, Arc::clone(&state)));
        let service = Connected { server: Arc::clone(&self), client, protocol, state: Arc::clone(&state) };
        let served = match protocol {
            Protocol::Http1 => tokio::select! {
                biased;
                served = watcher.watch(self.http1.serve_connection(io, service)) => Some(served),
                () = state.hangup.wanted() => None,
            },
            Protocol::Http2 => {
                let serving = Box::pin(http2::serve(&self.http2, io, service, self.shutdown.token()));
                let served = tokio::select! {
                    biased;
                    served = serving => Some(served),
                    () = state.hangup.wanted() => None,
                };
                // Held until here: that is what stopping waits for.
                drop(watcher);
                served
            }
        };
        match served {
            Some(Ok(())) => {}
            Some(Err(error)) => debug!(?client, %error, "connection ended with an error"),
            None => debug!(?client, "hung up on a client that reads too slowly"),
        }
    }
}

/// The router, for one connection.
struct Connected {
    server: Arc<Server>,
    client: ClientAddress,
    protocol: Protocol,
    state: Arc<ConnectionState>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Connected {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: hyper::Request<Incoming>) -> Answering {
        let is_http1 = matches!(self.protocol, Protocol::Http1);
        let asked = Asked {
            compression: Compression::of(request.method(), request.uri().path(), request.headers()),
            unheld_bytes: if is_http1 { SMALL_BYTES } else { 0 },
            // Where a body in chunks ends is the last that is known for certain of its connection; see `heads`.
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

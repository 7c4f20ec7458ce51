//! Servers for tests, at the other end of pipes in memory: without sockets, a test may move the clock.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header::HOST};
use http_body_util::{Either, Full};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sabha_federation::Host;
use tokio::{
    io::{AsyncReadExt as _, DuplexStream, duplex},
    sync::Semaphore,
    task::{JoinSet, yield_now},
};

use super::{
    OutboundError,
    connect::{self, ClientProtocol, Connection},
};
use crate::store::ids::lock;

/// Steps of other tasks that a test waits for. No test needs as many.
const MAX_STEPS: usize = 10_000;

/// Steps of other tasks after which none of them has more to do, if the test does nothing.
const SETTLING_STEPS: usize = 100;

/// A server that answers `/silent` never, `/stall` without an end, `/gate` with a permit of its gate, and everything else at
/// once.
pub(super) struct Peer {
    protocol: ClientProtocol,
    made: AtomicUsize,
    asked: Arc<AtomicUsize>,
    pub gate: Arc<Semaphore>,
    open: Mutex<JoinSet<()>>,
}

impl Peer {
    pub fn new(protocol: ClientProtocol) -> Self {
        let open = Mutex::new(JoinSet::new());
        Self { protocol, made: AtomicUsize::new(0), asked: Arc::default(), gate: Arc::new(Semaphore::new(0)), open }
    }

    pub async fn connect(&self) -> Result<Connection, OutboundError> {
        // No network connects in one step.
        yield_now().await;
        let (ours, theirs) = duplex(64 * 1024);
        let (asked, gate) = (Arc::clone(&self.asked), Arc::clone(&self.gate));
        let service = service_fn(move |request: Request<Incoming>| {
            let gate = Arc::clone(&gate);
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                match request.uri().path() {
                    "/silent" => std::future::pending().await,
                    "/stall" => return Ok(Response::new(Either::Left(Endless))),
                    "/gate" => gate.acquire().await.expect("it is not closed").forget(),
                    _ => {}
                }
                Ok::<_, Infallible>(Response::new(Either::Right(Full::new(Bytes::from("hi")))))
            }
        });
        let (stream, protocol) = (TokioIo::new(theirs), self.protocol);
        self.made.fetch_add(1, Ordering::SeqCst);
        lock(&self.open).spawn(async move {
            let _ended = match protocol {
                ClientProtocol::Http1 => http1::Builder::new().serve_connection(stream, service).await,
                ClientProtocol::Http2 => {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
                }
            };
        });
        begin(ours, self.protocol).await
    }

    /// The number of connections so far.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Waits for this number of requests in all.
    pub async fn until_asked(&self, times: usize) {
        until(|| self.asked.load(Ordering::SeqCst) == times).await;
    }

    /// Waits until this number of connections is open, when all that is due was closed.
    pub async fn until_open(&self, number: usize) {
        for _ in 0..SETTLING_STEPS {
            yield_now().await;
        }
        until(|| {
            let mut open = lock(&self.open);
            while open.try_join_next().is_some() {}
            open.len() == number
        })
        .await;
    }

    /// Closes all connections.
    pub async fn close(&self) {
        lock(&self.open).abort_all();
        self.until_open(0).await;
    }
}

/// A body of which nothing comes.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Waits until other tasks have made this true.
pub(super) async fn until(mut is_true: impl FnMut() -> bool) {
    for _ in 0..MAX_STEPS {
        if is_true() {
            return;
        }
        yield_now().await;
    }
    panic!("it has not happened");
}

/// Our end of a connection.
pub(super) async fn begin(ours: DuplexStream, protocol: ClientProtocol) -> Result<Connection, OutboundError> {
    let host = Host::Name("peer.test".to_owned());
    let begun = connect::begin(&host, ours, protocol).await;
    begun.map_err(|source| OutboundError::Connect { host, source })
}

/// A request to `host`, as [`super::address`] makes it.
pub(super) fn request(method: &str, host: &str, path: &str) -> Request<Bytes> {
    let builder = Request::builder().method(method).uri(format!("https://{host}{path}")).header(HOST, host);
    builder.body(Bytes::new()).unwrap()
}

/// Reads the head of a request, byte by byte.
pub(super) async fn read_head(theirs: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(theirs.read_u8().await.unwrap());
    }
}

//! Serves one HTTP/1 connection, without hyper's buffers while a request waits for its answer.
//!
//! hyper allocates a buffer of 8 KiB for reading and one for writing with each connection, and has no option for
//! smaller ones. Most connections are long polls, which need neither. So a request that has waited for [`PARK_AFTER`]
//! is parked: its answer is in an [`ExchangeSlot`], so hyper's connection can be taken apart without it. Until the
//! answer is there, we watch the stream ourselves. Then a new hyper connection reads a head that stands for the request
//! ([`StandIn`]), asks for the answer, and gets the one in the slot.
//!
//! Promises: a client sees no difference between a parked request and another one; a request whose client hangs up is
//! dropped, parked or not, except that a client is not seen to hang up that has sent [`EARLY_BYTES`] before the answer; bytes
//! that arrive early are neither lost nor read twice; while bytes of an earlier answer are unsent, no request is parked.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::response::Response;
use bytes::Bytes;
use http::{Method, Version, header::CONNECTION};
use hyper::{
    Request,
    body::{Body, Incoming},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tracing::debug;

use super::{
    Connected, Server,
    again::Again,
    answering::Answering,
    wire::{ConnectionState, Wire},
};
use crate::store::ids::lock;

/// The time after which a waiting request is parked. Requests that do not wait for news take a few milliseconds, so
/// parking happens about once for each long poll. A longer time would leave more buffers behind when many clients start
/// to wait at once, as after a restart.
pub(super) const PARK_AFTER: Duration = Duration::from_millis(100);

/// The maximum number of bytes that are kept while a request is parked. They begin the next request. We read no more
/// before the answer, so the rest waits in the socket.
const EARLY_BYTES: usize = 512;

/// Serves a connection until its client closes it, sends no request for too long, or the server stops.
pub(super) async fn serve<Io>(server: &Server, mut wire: Box<Wire<Io>>, connected: Connected) -> hyper::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let slot = Arc::<ExchangeSlot>::default();
    let mut service = Exchanges { connected, slot: Arc::clone(&slot) };
    loop {
        // Boxed, because otherwise a parked connection would keep the space of hyper's.
        let served = Box::pin(serve_until_parked(server, wire, service)).await?;
        let Some(parked) = served else { return Ok(()) };
        let (stand_in, mut early) = (parked.stand_in, parked.early);
        (wire, service) = (parked.wire, parked.service);
        if !is_answered(&mut wire, &slot, &mut early).await {
            debug!("the client hung up while its request was parked");
            return Ok(());
        }
        slot.resume();
        let head = stand_in.head(server.shutdown.token().is_cancelled());
        wire.put_before([head.as_bytes(), &early].concat().into());
    }
}

/// A connection without hyper, whose request is parked.
struct Parked<Io> {
    wire: Box<Wire<Io>>,
    service: Exchanges,
    stand_in: StandIn,
    /// The bytes that arrived after the request.
    early: Bytes,
}

/// Serves requests with hyper. Returns `None` at the end of the connection.
async fn serve_until_parked<Io>(
    server: &Server,
    wire: Box<Wire<Io>>,
    service: Exchanges,
) -> hyper::Result<Option<Parked<Io>>>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (slot, state) = (Arc::clone(&service.slot), Arc::clone(&service.connected.state));
    let mut connection = server.http1.serve_connection(TokioIo::new(wire), service);
    let mut stopping = pin!(server.shutdown.token().cancelled());
    let mut is_stopping = false;
    let mut park_timer = None;
    let again = Arc::new(Again::default());
    let mut poll = |cx: &mut Context<'_>| {
        // First, because a connection that is told to stop before it has read anything closes at once, and a new one
        // may have an answer to send.
        if let Poll::Ready(served) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(served.map(|()| None));
        }
        // When the server stops, requests end soon.
        if is_stopping {
            return Poll::Pending;
        }
        if stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
            return Pin::new(&mut connection).poll(cx).map_ok(|()| None);
        }
        poll_parks(&slot, &state, &mut park_timer, cx).map(|stand_in| Ok(Some(stand_in)))
    };
    let Some(stand_in) = poll_fn(|cx| again.poll(cx, &mut poll)).await? else { return Ok(None) };
    let parts = connection.into_parts();
    // A copy, because the bytes would keep hyper's buffer.
    let early = Bytes::copy_from_slice(&parts.read_buf);
    Ok(Some(Parked { wire: parts.io.into_inner(), service: parts.service, stand_in, early }))
}

/// Ready when the connection's request is to be parked. A request that waits sets the timer, which serves all requests
/// that begin before it ends. So a busy connection sets one timer per [`PARK_AFTER`], and an idle one has none.
fn poll_parks(
    slot: &ExchangeSlot,
    state: &ConnectionState,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<StandIn> {
    loop {
        if let Some(running) = timer {
            ready!(running.as_mut().poll(cx));
            *timer = None;
        }
        let Some((asked_at, stand_in)) = slot.parkable() else { return Poll::Pending };
        let now = Instant::now();
        let mut park_at = asked_at + PARK_AFTER;
        if park_at <= now {
            // Only hyper has the rest of an earlier answer that the client has not yet read.
            if !state.has_unsent() {
                return Poll::Ready(stand_in);
            }
            park_at = now + PARK_AFTER;
        }
        *timer = Some(Box::pin(sleep_until(park_at)));
    }
}

/// Waits for the answer of a parked request. Returns false if the client hangs up first. Behind [`EARLY_BYTES`], nobody
/// sees the end of the stream before the answer.
async fn is_answered<Io: AsyncRead + Unpin>(wire: &mut Wire<Io>, slot: &ExchangeSlot, early: &mut Bytes) -> bool {
    poll_fn(|cx| {
        while early.len() < EARLY_BYTES {
            let mut space = [0; EARLY_BYTES];
            let mut read = ReadBuf::new(&mut space[early.len()..]);
            match Pin::new(&mut *wire).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => *early = [early, read.filled()].concat().into(),
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => break,
            }
        }
        slot.poll_answered(cx).map(|()| true)
    })
    .await
}

/// The head that stands for a parked request. hyper writes an answer in the same way for both.
#[derive(Debug, Clone, Copy)]
struct StandIn {
    is_http10: bool,
    /// True if the client wants to keep the connection after the answer.
    keeps_alive: bool,
}

impl StandIn {
    /// Returns `None` for a request that is not parked. Only a GET without a body is: it has fully arrived, and other
    /// methods seldom wait for long.
    fn of<B: Body>(request: &Request<B>) -> Option<Self> {
        if request.method() != Method::GET || !request.body().is_end_stream() {
            return None;
        }
        let is_http10 = request.version() == Version::HTTP_10;
        // RFC 9112, 9.3.
        let has = |token: &str| {
            let values = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|named| named.trim().eq_ignore_ascii_case(token))
        };
        Some(Self { is_http10, keeps_alive: !has("close") && (!is_http10 || has("keep-alive")) })
    }

    /// The head. `closes` is true if the connection ends with the answer whatever the client wants.
    fn head(self, closes: bool) -> &'static str {
        match (self.is_http10, self.keeps_alive && !closes) {
            (false, true) => "GET / HTTP/1.1\r\n\r\n",
            (false, false) => "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
            (true, true) => "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
            (true, false) => "GET / HTTP/1.0\r\n\r\n",
        }
    }
}

/// A request and the answer that it waits for.
struct Exchange {
    answering: Answering,
    asked_at: Instant,
    /// `None` for a request that is not parked.
    stand_in: Option<StandIn>,
    /// True from when the answer of a parked request is there until hyper asks for it.
    is_resumed: bool,
}

/// The place of a connection's current exchange, which [`serve`] shares with hyper. Only the connection's task locks it,
/// so no one ever waits for the lock.
#[derive(Default)]
struct ExchangeSlot(Mutex<Option<Exchange>>);

impl ExchangeSlot {
    /// The arrival and the stand-in of a request that waits for its answer and may be parked.
    fn parkable(&self) -> Option<(Instant, StandIn)> {
        let exchange = lock(&self.0);
        let exchange = exchange.as_ref()?;
        Some((exchange.asked_at, exchange.stand_in?))
    }

    /// Ready when the answer is there; it stays in the slot.
    fn poll_answered(&self, cx: &mut Context<'_>) -> Poll<()> {
        lock(&self.0).as_mut().map_or(Poll::Ready(()), |exchange| exchange.answering.poll_answered(cx))
    }

    /// Takes the answer out of the slot when it is there.
    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Response> {
        let mut exchange = lock(&self.0);
        let waiting = exchange.as_mut().expect("hyper does not poll an answer after its end");
        let Ok(response) = ready!(Pin::new(&mut waiting.answering).poll(cx));
        *exchange = None;
        Poll::Ready(response)
    }

    /// Keeps the answer for the next request of hyper, which is the stand-in.
    fn resume(&self) {
        if let Some(exchange) = &mut *lock(&self.0) {
            exchange.is_resumed = true;
        }
    }

    /// Returns whether the next request is the stand-in of a parked one, whose answer is in the slot.
    fn take_resumed(&self) -> bool {
        lock(&self.0).as_mut().is_some_and(|exchange| std::mem::take(&mut exchange.is_resumed))
    }
}

/// The router as a service that keeps its answers in the slot.
struct Exchanges {
    connected: Connected,
    slot: Arc<ExchangeSlot>,
}

impl hyper::service::Service<Request<Incoming>> for Exchanges {
    type Response = Response;
    type Error = Infallible;
    type Future = FromSlot;

    fn call(&self, request: Request<Incoming>) -> FromSlot {
        if !self.slot.take_resumed() {
            let stand_in = StandIn::of(&request);
            let answering = self.connected.answer(request);
            let exchange = Exchange { answering, asked_at: Instant::now(), stand_in, is_resumed: false };
            *lock(&self.slot.0) = Some(exchange);
        }
        FromSlot(Arc::clone(&self.slot))
    }
}

/// The answer of the exchange in the slot. Dropping it does not end the exchange.
struct FromSlot(Arc<ExchangeSlot>);

impl Future for FromSlot {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_answer(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests;

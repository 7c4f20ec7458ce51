//! One HTTP/2 connection, and its end when its client asks for nothing.
//!
//! hyper has a timeout for the headers of HTTP/1, and none for a client of HTTP/2 that sends no preface, or no request, or
//! half of one; its pings only find out who has gone. So requests are counted here: a connection with none for
//! [`HEADER_READ_TIMEOUT`] is told to close, and closed when it does not.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::response::Response;
use hyper::{body::Incoming, server::conn::http2::Builder};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Connected, HEADER_READ_TIMEOUT, HTTP2_CLOSE_TIMEOUT, negotiate::Io};

/// The requests of a connection.
#[derive(Debug, Default)]
struct Requests {
    /// How many are being answered.
    in_flight: usize,
    /// Whether there ever was one.
    any: bool,
}

/// Serves a connection until its client closes it, has nothing to ask for too long, or the server stops.
pub(super) async fn serve(
    builder: &Builder<TokioExecutor>,
    io: TokioIo<Io>,
    connected: Connected,
    stopping: &CancellationToken,
) -> hyper::Result<()> {
    let requests = Arc::new(watch::Sender::new(Requests::default()));
    let service = Counted { connected, requests: Arc::clone(&requests) };
    let mut connection = pin!(builder.serve_connection(io, service));
    tokio::select! {
        biased;
        served = connection.as_mut() => return served,
        () = stopping.cancelled() => {}
        () = idle(&requests, HEADER_READ_TIMEOUT) => {}
    }
    // Without a preface there is no protocol yet to say good-bye in, and who has asked nothing loses no answer.
    if !requests.borrow().any {
        debug!("closed a connection without a request");
        return Ok(());
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = idle(&requests, HTTP2_CLOSE_TIMEOUT) => {
            debug!("closed a connection whose client does not");
            Ok(())
        }
    }
}

/// Resolves when nothing was asked for `time`.
async fn idle(requests: &watch::Sender<Requests>, time: Duration) {
    let mut requests = requests.subscribe();
    loop {
        // Neither fails: the sender is borrowed.
        let _ = requests.wait_for(|requests| requests.in_flight == 0).await;
        if timeout(time, requests.changed()).await.is_err() {
            return;
        }
    }
}

/// The router, and how many requests it is answering.
struct Counted {
    connected: Connected,
    requests: Arc<watch::Sender<Requests>>,
}

/// Counts a request for as long as it lives: to its answer, or until its client gives it up.
struct InFlight(Arc<watch::Sender<Requests>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.in_flight -= 1);
    }
}

impl hyper::service::Service<hyper::Request<Incoming>> for Counted {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        self.requests.send_modify(|requests| {
            requests.in_flight += 1;
            requests.any = true;
        });
        let in_flight = InFlight(Arc::clone(&self.requests));
        let answer = self.connected.call(request);
        Box::pin(async move {
            let _in_flight = in_flight;
            answer.await
        })
    }
}

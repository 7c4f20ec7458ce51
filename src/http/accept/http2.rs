//! Serves one HTTP/2 connection, and closes it when its client sends no request.
//!
//! hyper has a timeout for HTTP/1 headers, but none for an HTTP/2 client that sends no preface, no request, or half a
//! request; its pings only detect clients that are gone. So requests are counted here. A connection without one for
//! [`HEADER_READ_TIMEOUT`] is told to close, and is closed if it does not.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::response::Response;
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http2::Builder,
};
use hyper_util::rt::TokioExecutor;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Connected, HEADER_READ_TIMEOUT, HTTP2_CLOSE_TIMEOUT};

/// The requests of a connection.
#[derive(Debug, Default)]
struct Requests {
    /// The number of requests that are being answered.
    in_flight: usize,
    /// True if there ever was a request.
    any: bool,
}

/// Serves a connection until its client closes it, sends no request for too long, or the server stops.
pub(super) async fn serve(
    builder: &Builder<TokioExecutor>,
    io: impl Read + Write + Unpin + Send + 'static,
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
    // Without a preface the protocol cannot yet announce the close, and a client without a request loses no answer.
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

/// Resolves when there was no request for `time`.
async fn idle(requests: &watch::Sender<Requests>, time: Duration) {
    let mut requests = requests.subscribe();
    loop {
        // Neither call fails, because the sender is borrowed.
        let _ = requests.wait_for(|requests| requests.in_flight == 0).await;
        if timeout(time, requests.changed()).await.is_err() {
            return;
        }
    }
}

/// The router, with a count of the requests that it is answering.
struct Counted {
    connected: Connected,
    requests: Arc<watch::Sender<Requests>>,
}

/// Counts a request for as long as it lives: until its answer, or until its client cancels it.
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
        let answer = self.connected.answer(request);
        Box::pin(async move {
            let _in_flight = in_flight;
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use http_body_util::Empty;
    use hyper::client::conn::http2::handshake;
    use hyper_util::rt::TokioIo;
    use tokio::{sync::Semaphore, time::Instant};

    use super::{
        super::{ClientAddress, HTTP2_PING_INTERVAL, Protocol, Server, Shutdown, Transport},
        *,
    };

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_and_one_that_waits_for_an_answer_is_not() {
        let gate = Arc::new(Semaphore::new(0));
        let opened = Arc::clone(&gate);
        let gated = async move || opened.acquire().await.map(|_| "done").unwrap_or("closed");
        let router = Router::new().route("/", get(gated));
        let server = Arc::new(Server::new(router, None, Transport::default(), Shutdown::new()));
        // In memory, because a paused clock does not wait for bytes in transit through a socket.
        let (client, io) = tokio::io::duplex(64 * 1024);
        let connected = Connected {
            server: Arc::clone(&server),
            client: ClientAddress(None),
            protocol: Protocol::Http2,
            state: Arc::default(),
        };
        let served =
            tokio::spawn(
                async move { serve(&server.http2, TokioIo::new(io), connected, server.shutdown.token()).await },
            );
        let (mut requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
        let mut connection = tokio::spawn(connection);
        let request = http::Request::get("http://localhost/").body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = tokio::spawn(requests.send_request(request));
        let waited = tokio::time::timeout(3 * HTTP2_PING_INTERVAL, &mut connection).await;
        assert!(waited.is_err(), "it waits for an answer, and its client says that it is there: {waited:?}");
        gate.add_permits(1);
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);

        let answered_at = Instant::now();
        // Both ends finish, though the client keeps its handle for requests. Which end closes first is random, so
        // either may report an error.
        let (_client, _server): (hyper::Result<()>, hyper::Result<()>) =
            (connection.await.unwrap(), served.await.unwrap());
        assert_eq!(answered_at.elapsed(), HEADER_READ_TIMEOUT);
        drop(requests);
    }
}

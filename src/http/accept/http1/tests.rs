//! A connection in memory, whose clock is paused: it does not wait for bytes in transit through a socket.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::sleep,
};

use super::{
    super::{ClientAddress, Heads, Protocol, Shutdown, Transport},
    *,
};

/// The bytes that the stream holds for either side.
const STREAM_BYTES: usize = 4096;

/// More bytes than the stream holds and less than hyper buffers.
const LARGE_BYTES: usize = 4 * STREAM_BYTES;

/// The server's end of the stream. Notes how much space its last reader had.
struct Noting {
    io: DuplexStream,
    space: Arc<AtomicUsize>,
}

impl AsyncRead for Noting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.space.store(buf.remaining(), Ordering::Relaxed);
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connection and its client.
struct Fixture {
    client: DuplexStream,
    space: Arc<AtomicUsize>,
    /// `/gated` waits for a permit.
    gate: Arc<Semaphore>,
    entered: mpsc::Receiver<()>,
    serving: JoinHandle<hyper::Result<()>>,
}

impl Fixture {
    fn start() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let (enter, entered) = mpsc::channel(8);
        let opened = Arc::clone(&gate);
        let gated = async move || {
            enter.send(()).await.unwrap();
            opened.acquire().await.unwrap().forget();
            "done"
        };
        let router = Router::new()
            .route("/gated", get(gated.clone()).post(gated))
            .route("/next", get("next"))
            .route("/large", axum::routing::post(async || "x".repeat(LARGE_BYTES)));
        let server = Arc::new(Server::new(router, None, Transport::default(), Shutdown::new()));
        let (client, io) = tokio::io::duplex(STREAM_BYTES);
        let space = Arc::<AtomicUsize>::default();
        let state = Arc::<ConnectionState>::default();
        let wire = Wire::new(Noting { io, space: Arc::clone(&space) }, Some(Heads::new()), Arc::clone(&state));
        let (client_address, protocol) = (ClientAddress(None), Protocol::Http1);
        let connected = Connected { server: Arc::clone(&server), client: client_address, protocol, state };
        let serving = tokio::spawn(async move { serve(&server, Box::new(wire), connected).await });
        Self { client, space, gate, entered, serving }
    }

    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    async fn wait(&self) {
        sleep(2 * PARK_AFTER).await;
    }

    /// Sends a request that ends the connection, and returns all answers.
    async fn finish(mut self) -> String {
        // The connection may have ended before.
        let _ = self.client.write_all(b"GET /next HTTP/1.1\r\nconnection: close\r\n\r\n").await;
        let mut answers = String::new();
        self.client.read_to_string(&mut answers).await.unwrap();
        // It is an error if a request could not be read.
        let _ended = self.serving.await.unwrap();
        let lines = answers.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with("date: ")).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_keeps_no_buffer() {
    for (request, is_parked) in [
        ("GET /gated HTTP/1.1\r\n\r\n", true),
        ("GET /gated HTTP/1.0\r\n\r\n", true),
        ("GET /gated HTTP/1.1\r\ncontent-length: 0\r\n\r\n", true),
        ("GET /gated HTTP/1.1\r\ncontent-length: 1\r\n\r\n", false),
        ("GET /gated HTTP/1.1\r\ncontent-length: 1\r\n\r\nx", false),
        ("HEAD /gated HTTP/1.1\r\n\r\n", false),
        ("POST /gated HTTP/1.1\r\n\r\n", false),
    ] {
        let mut server = Fixture::start();
        server.send(request).await;
        server.entered.recv().await.unwrap();
        sleep(PARK_AFTER / 2).await;
        assert_ne!(server.space.load(Ordering::Relaxed), EARLY_BYTES, "{request}");
        server.wait().await;
        assert_eq!(server.space.load(Ordering::Relaxed) == EARLY_BYTES, is_parked, "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_is_answered_like_another() {
    for (version, headers) in [
        ("1.1", ""),
        ("1.1", "connection: close\r\n"),
        ("1.1", "connection: x, Close\r\n"),
        ("1.1", "connection: close\r\nconnection: keep-alive\r\n"),
        ("1.1", "connection: upgrade\r\nupgrade: websocket\r\n"),
        ("1.0", ""),
        ("1.0", "connection: keep-alive\r\n"),
        ("1.0", "connection: keep-alive, close\r\n"),
    ] {
        let request = format!("GET /gated HTTP/{version}\r\n{headers}\r\n");
        let mut answers = Vec::new();
        for parks in [false, true] {
            let mut server = Fixture::start();
            server.send(&request).await;
            server.entered.recv().await.unwrap();
            if parks {
                server.wait().await;
                assert_eq!(server.space.load(Ordering::Relaxed), EARLY_BYTES);
            }
            server.gate.add_permits(1);
            answers.push(server.finish().await);
        }
        assert!(answers[0].contains("\r\n\r\ndone"), "{request}: {}", answers[0]);
        assert_eq!(answers[0], answers[1], "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn early_bytes_are_read_once_whenever_they_arrive() {
    let next = "GET /next HTTP/1.1\r\n\r\n";
    let long = format!("GET /next HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(2 * EARLY_BYTES));
    let two_lengths = "POST /next HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
    for (before, after, statuses) in [
        (next, "", &[200, 200, 200][..]),
        ("", next, &[200, 200, 200]),
        (&next[..9], &next[9..], &[200, 200, 200]),
        ("", &next[..9], &[200, 400]),
        (&long[..], "", &[200, 200, 200]),
        ("", &long[..], &[200, 200, 200]),
        (next, next, &[200, 200, 200, 200]),
        (two_lengths, "", &[200, 400]),
        ("", two_lengths, &[200, 400]),
    ] {
        let mut server = Fixture::start();
        server.send("GET /gated HTTP/1.1\r\n\r\n").await;
        server.entered.recv().await.unwrap();
        server.send(before).await;
        server.wait().await;
        server.send(after).await;
        server.wait().await;
        server.gate.add_permits(1);
        let answers = server.finish().await;
        let found: Vec<u16> = answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect();
        assert_eq!(found, statuses, "{before:?} {after:?}: {answers}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_requests_are_parked_on_one_connection() {
    let mut server = Fixture::start();
    for _ in 0..3 {
        server.send("GET /gated HTTP/1.1\r\n\r\n").await;
        server.entered.recv().await.unwrap();
        server.wait().await;
        assert_eq!(server.space.load(Ordering::Relaxed), EARLY_BYTES);
        server.gate.add_permits(1);
        let mut answer = Vec::new();
        while !answer.ends_with(b"done") {
            assert_ne!(server.client.read_buf(&mut answer).await.unwrap(), 0, "it goes on");
        }
        // A timer that ends between two requests parks nothing.
        server.wait().await;
    }
    assert!(server.finish().await.ends_with("next"));
}

#[tokio::test(start_paused = true)]
async fn hanging_up_ends_a_parked_request() {
    for early in ["", "G", "GET /next HTTP/1.1\r\n\r\n", &"G".repeat(EARLY_BYTES - 1)] {
        let mut server = Fixture::start();
        server.send("GET /gated HTTP/1.1\r\n\r\n").await;
        server.entered.recv().await.unwrap();
        server.wait().await;
        for line in early.split_inclusive('\n') {
            server.send(line).await;
            server.wait().await;
        }
        // As over TCP, a client that sends no more is taken for gone, even if it still reads.
        server.client.shutdown().await.unwrap();
        let ended = tokio::time::timeout(10 * PARK_AFTER, &mut server.serving).await;
        ended.unwrap_or_else(|_| panic!("nobody sees the end after {early:?}")).unwrap().unwrap();
        assert_eq!(Arc::strong_count(&server.gate), 1, "the request is dropped, and so is the router");
    }
}

#[tokio::test(start_paused = true)]
async fn unsent_bytes_of_an_earlier_answer_are_not_lost() {
    let mut server = Fixture::start();
    server.send("POST /large HTTP/1.1\r\ncontent-length: 10\r\n\r\n12345").await;
    server.wait().await;
    // The client has read nothing of the first answer when its second request arrives.
    server.send("67890GET /gated HTTP/1.1\r\n\r\n").await;
    server.wait().await;
    assert_ne!(server.space.load(Ordering::Relaxed), EARLY_BYTES);
    server.gate.add_permits(1);
    let answers = server.finish().await;
    assert!(answers.contains(&format!("\r\n\r\n{}HTTP/1.1 200", "x".repeat(LARGE_BYTES))), "{answers}");
    assert!(answers.contains("\r\n\r\ndoneHTTP/1.1 200"), "{answers}");
}

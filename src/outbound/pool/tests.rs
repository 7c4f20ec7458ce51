//! Which connection a request gets, and when connections end.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinSet,
    time::{advance, timeout},
};

use super::{hosts::MAX_AGE, *};
use crate::outbound::{
    Limits,
    connect::ClientProtocol,
    stream::{BodySource, Streamed},
    test_peer::{Peer, begin, read_head, request, until},
};

const PROTOCOLS: [ClientProtocol; 2] = [ClientProtocol::Http1, ClientProtocol::Http2];

const IDLE: Duration = Duration::from_secs(15);

const LIMITS: Limits = Limits { time: Duration::from_secs(60), body_bytes: 1000, redirects: 0 };

async fn read(response: Response<Incoming>, borrowed: Borrowed) -> Result<Bytes, OutboundError> {
    let body = Streamed::new(response.into_body(), BodySource::Pooled(borrowed), LIMITS.into(), Instant::now());
    body.into_bytes(LIMITS.body_bytes).await
}

async fn ask(pool: &Arc<Pool>, peer: &Peer, host: &str, path: &str) -> Result<Bytes, OutboundError> {
    let (response, borrowed) = pool.send(host, peer.connect(), request("GET", host, path)).await?;
    read(response, borrowed).await
}

/// Begins `number` requests at the same time.
fn ask_at_once(pool: &Arc<Pool>, peer: &Arc<Peer>, host: &'static str, number: usize) -> JoinSet<Bytes> {
    let mut asking = JoinSet::new();
    for _ in 0..number {
        let (pool, peer) = (Arc::clone(pool), Arc::clone(peer));
        asking.spawn(async move { ask(&pool, &peer, host, "/gate").await.unwrap() });
    }
    asking
}

fn hosts(pool: &Pool) -> usize {
    lock(&pool.hosts).by_name.len()
}

#[tokio::test(start_paused = true)]
async fn requests_in_a_row_have_one_connection() {
    for protocol in PROTOCOLS {
        let (pool, peer) = (Pool::new(8, IDLE), Peer::new(protocol));
        for _ in 0..20 {
            assert_eq!(ask(&pool, &peer, "a.test", "/").await.unwrap(), "hi");
        }
        assert_eq!(peer.made(), 1, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_share_a_connection_if_the_protocol_can() {
    for (protocol, expected) in [(ClientProtocol::Http1, 20), (ClientProtocol::Http2, 1)] {
        let (pool, peer) = (Pool::new(32, IDLE), Arc::new(Peer::new(protocol)));
        let asking = ask_at_once(&pool, &peer, "a.test", 20);
        // All are there before the first has an answer.
        peer.until_asked(20).await;
        peer.gate.add_permits(20);
        assert_eq!(asking.join_all().await, ["hi"; 20]);
        assert_eq!(peer.made(), expected, "{protocol:?}");
        // One is kept.
        peer.until_open(1).await;
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        assert_eq!(peer.made(), expected, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_for_one_host_in_one_pool() {
    for protocol in PROTOCOLS {
        let (pool, other, peer) = (Pool::new(8, IDLE), Pool::new(8, IDLE), Peer::new(protocol));
        for (pool, host, expected) in [
            (&pool, "a.test", 1),
            (&pool, "A.Test", 1),
            (&pool, "a.test:8448", 2),
            (&pool, "b.test", 3),
            (&other, "a.test", 4),
            (&pool, "a.test", 4),
        ] {
            ask(pool, &peer, host, "/").await.unwrap();
            assert_eq!(peer.made(), expected, "{protocol:?} {host}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_server_has_closed_is_replaced() {
    for protocol in PROTOCOLS {
        let (pool, peer) = (Pool::new(8, IDLE), Peer::new(protocol));
        for expected in 1..=3 {
            ask(&pool, &peer, "a.test", "/").await.unwrap();
            assert_eq!(peer.made(), expected, "{protocol:?}");
            peer.close().await;
        }
    }
}

/// A server whose first connection closes at the second request, without an answer.
#[derive(Default)]
struct Closing {
    made: AtomicUsize,
    serving: Mutex<JoinSet<()>>,
}

impl Closing {
    async fn connect(&self) -> Result<Connection, OutboundError> {
        async fn answer(theirs: &mut DuplexStream) {
            read_head(theirs).await;
            theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        }
        let (ours, mut theirs) = duplex(64 * 1024);
        let is_first = self.made.fetch_add(1, Ordering::SeqCst) == 0;
        lock(&self.serving).spawn(async move {
            answer(&mut theirs).await;
            if is_first {
                return read_head(&mut theirs).await;
            }
            answer(&mut theirs).await;
        });
        begin(ours, ClientProtocol::Http1).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_arrived_is_repeated_only_if_it_is_idempotent() {
    for (method, is_repeated) in [("GET", true), ("PUT", true), ("POST", false)] {
        let (pool, server) = (Pool::new(8, IDLE), Closing::default());
        let ask = async || {
            let sent = pool.send("a.test", server.connect(), request(method, "a.test", "/")).await;
            let (response, borrowed) = sent?;
            read(response, borrowed).await
        };
        ask().await.unwrap();
        let second = ask().await;
        assert_eq!(second.is_ok(), is_repeated, "{method} {second:?}");
        assert_eq!(server.made.load(Ordering::SeqCst), if is_repeated { 2 } else { 1 }, "{method}");
        // A request that fails on a new connection is not repeated.
        let (pool, server) = (Pool::new(8, IDLE), Peer::new(ClientProtocol::Http1));
        let closed = async {
            let connection = server.connect().await?;
            server.close().await;
            Ok(connection)
        };
        pool.send("a.test", closed, request(method, "a.test", "/")).await.err().unwrap();
        assert_eq!((server.made(), hosts(&pool)), (1, 0), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_ends_after_its_time() {
    for protocol in PROTOCOLS {
        let (pool, peer) = (Pool::new(8, IDLE), Peer::new(protocol));
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        advance(IDLE / 2).await;
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        ask(&pool, &peer, "b.test", "/").await.unwrap();
        advance(IDLE / 2).await;
        ask(&pool, &peer, "b.test", "/").await.unwrap();
        peer.until_open(2).await;
        advance(IDLE / 2).await;
        peer.until_open(1).await;
        assert_eq!(hosts(&pool), 1, "{protocol:?}");
        advance(IDLE / 2).await;
        peer.until_open(0).await;
        assert_eq!((peer.made(), hosts(&pool)), (2, 0), "{protocol:?}");
        // The sweeper begins again.
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        advance(IDLE).await;
        peer.until_open(0).await;
        // A pool that ends closes its connections.
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        drop(pool);
        peer.until_open(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_requests_does_not_end() {
    let (pool, peer) = (Pool::new(8, IDLE), Arc::new(Peer::new(ClientProtocol::Http2)));
    let asking = ask_at_once(&pool, &peer, "a.test", 1);
    peer.until_asked(1).await;
    for _ in 0..4 {
        advance(IDLE).await;
        peer.until_open(1).await;
    }
    advance(IDLE / 2).await;
    peer.gate.add_permits(1);
    asking.join_all().await;
    // Its time begins with the end of the request.
    advance(IDLE / 2).await;
    peer.until_open(1).await;
    advance(IDLE / 2).await;
    peer.until_open(0).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_gets_no_new_request() {
    for protocol in PROTOCOLS {
        let (pool, peer) = (Pool::new(8, MAX_AGE * 2), Peer::new(protocol));
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        advance(MAX_AGE).await;
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        assert_eq!(peer.made(), 2, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_closes_the_connection_that_was_idle_for_longest() {
    for protocol in PROTOCOLS {
        let (pool, peer) = (Pool::new(2, IDLE), Peer::new(protocol));
        let began_at = Instant::now();
        for (host, expected) in
            [("a.test", 1), ("b.test", 2), ("a.test", 2), ("c.test", 3), ("a.test", 3), ("b.test", 4)]
        {
            ask(&pool, &peer, host, "/").await.unwrap();
            assert_eq!(peer.made(), expected, "{protocol:?} {host}");
            advance(Duration::from_millis(1)).await;
        }
        peer.until_open(2).await;
        assert_eq!(hosts(&pool), 2);
        assert!(began_at.elapsed() < IDLE, "nobody waited for the sweeper");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_while_all_connections_have_requests() {
    for protocol in PROTOCOLS {
        let (pool, peer) = (Pool::new(2, IDLE), Arc::new(Peer::new(protocol)));
        let mut asking = ask_at_once(&pool, &peer, "a.test", 1);
        // The first at the gate passes first.
        peer.until_asked(1).await;
        let other = ask_at_once(&pool, &peer, "b.test", 1);
        peer.until_asked(2).await;
        let waiting = ask_at_once(&pool, &peer, "c.test", 1);
        until(|| lock(&pool.hosts).waiting == 1).await;
        // One that gives up takes no place.
        let given_up = ask_at_once(&pool, &peer, "d.test", 1);
        until(|| lock(&pool.hosts).waiting == 2).await;
        drop(given_up);
        until(|| lock(&pool.hosts).waiting == 1).await;
        assert_eq!(peer.made(), 2, "{protocol:?}");

        // The first answer makes room: its connection is not kept.
        peer.gate.add_permits(1);
        asking.join_next().await.unwrap().unwrap();
        peer.until_asked(3).await;
        assert_eq!(lock(&pool.hosts).waiting, 0);
        peer.gate.add_permits(2);
        assert_eq!((other.join_all().await, waiting.join_all().await), (vec!["hi".into()], vec!["hi".into()]));
        assert_eq!((peer.made(), hosts(&pool)), (3, 2), "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_one_host_too_a_free_connection_is_not_kept_from_those_who_wait() {
    let (pool, peer) = (Pool::new(1, IDLE), Arc::new(Peer::new(ClientProtocol::Http1)));
    let asking = ask_at_once(&pool, &peer, "a.test", 2);
    until(|| lock(&pool.hosts).waiting == 1).await;
    let began_at = Instant::now();
    peer.gate.add_permits(2);
    asking.join_all().await;
    assert_eq!((peer.made(), began_at.elapsed()), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn over_http1_all_who_waited_connect_at_the_same_time() {
    let (pool, peer) = (Pool::new(8, IDLE), Arc::new(Peer::new(ClientProtocol::Http1)));
    let connecting = Arc::new(AtomicUsize::new(0));
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        let (pool, peer, connecting) = (Arc::clone(&pool), Arc::clone(&peer), Arc::clone(&connecting));
        asking.spawn(async move {
            let connect = async {
                connecting.fetch_add(1, Ordering::SeqCst);
                peer.gate.acquire().await.unwrap().forget();
                peer.connect().await
            };
            let sent = pool.send("a.test", connect, request("GET", "a.test", "/silent")).await;
            sent.map(drop)
        });
    }
    // The first shows the protocol, and the others need not wait for each other.
    until(|| connecting.load(Ordering::SeqCst) == 1).await;
    peer.gate.add_permits(1);
    until(|| connecting.load(Ordering::SeqCst) == 4).await;
    assert_eq!(peer.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_answer_gets_no_further_request() {
    for protocol in PROTOCOLS {
        let (pool, peer) = (Pool::new(8, IDLE), Peer::new(protocol));
        ask(&pool, &peer, "a.test", "/").await.unwrap();
        timeout(Duration::from_secs(5), ask(&pool, &peer, "a.test", "/silent")).await.unwrap_err();
        assert_eq!(ask(&pool, &peer, "a.test", "/").await.unwrap(), "hi");
        assert_eq!(peer.made(), 2, "{protocol:?}");
        let stalled = ask(&pool, &peer, "a.test", "/stall").await;
        assert!(matches!(stalled, Err(OutboundError::TimedOut(_))), "{stalled:?}");
        assert_eq!(ask(&pool, &peer, "a.test", "/").await.unwrap(), "hi");
        assert_eq!(peer.made(), 3, "{protocol:?}");
        peer.until_open(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_after_an_answer_are_no_answer_to_the_next_request() {
    let pool = Pool::new(8, IDLE);
    let (ours, mut theirs) = duplex(64 * 1024);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        read_head(&mut theirs).await;
        let answers = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad";
        theirs.write_all(answers.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let sent = pool.send("a.test", begin(ours, ClientProtocol::Http1), request("GET", "a.test", "/")).await;
    let (response, borrowed) = sent.unwrap();
    assert_eq!(read(response, borrowed).await.unwrap(), "hi");
    let peer = Peer::new(ClientProtocol::Http1);
    assert_eq!(ask(&pool, &peer, "a.test", "/").await.unwrap(), "hi");
    assert_eq!(peer.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_of_a_host_that_was_not_reached() {
    let pool = Pool::new(8, IDLE);
    for _ in 0..20 {
        let refused = async { Err(OutboundError::BadUrl) };
        let sent = pool.send("a.test", refused, request("GET", "a.test", "/")).await;
        assert!(matches!(sent, Err(OutboundError::BadUrl)));
        let silent = pool.send("b.test", std::future::pending(), request("GET", "b.test", "/"));
        timeout(Duration::from_secs(5), silent).await.err().unwrap();
    }
    assert_eq!(hosts(&pool), 0);
    assert_eq!(pool.open.available_permits(), 8);
}

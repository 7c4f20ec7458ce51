//! Bodies that never end, drip, or lie about their length.

use tokio::{
    io::{AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinSet,
};

use super::*;
use crate::outbound::{
    connect::ClientProtocol,
    test_peer::{begin, read_head, request},
};

const LIMITS: StreamLimits = StreamLimits {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(10),
    time: Duration::from_secs(60),
    body_bytes: 1000,
};

/// The body of an answer, and the server's end of the connection. `head` are the headers of the answer.
async fn streamed(head: &str) -> (Streamed, DuplexStream) {
    let (ours, mut theirs) = duplex(64 * 1024);
    let mut connection = begin(ours, ClientProtocol::Http1).await.unwrap();
    let answering = async {
        read_head(&mut theirs).await;
        theirs.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
    };
    let (sent, ()) = tokio::join!(connection.send(request("GET", "peer.test", "/")), answering);
    let body = sent.ok().unwrap().into_body();
    (Streamed::new(body, BodySource::Single(connection), LIMITS, Instant::now()), theirs)
}

/// Reads to the first failure.
async fn failure(body: &mut Streamed) -> OutboundError {
    loop {
        match body.chunk().await {
            Ok(Some(bytes)) => assert!(!bytes.is_empty()),
            Ok(None) => panic!("the answer counts as whole"),
            Err(error) => {
                // It does so from then on.
                assert!(matches!(body.chunk().await, Err(OutboundError::BrokenOff)));
                return error;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_comes_in_pieces_and_ends_once() {
    let (mut body, mut theirs) = streamed("transfer-encoding: chunked").await;
    for piece in ["one", "two"] {
        theirs.write_all(format!("3\r\n{piece}\r\n").as_bytes()).await.unwrap();
        assert_eq!(body.chunk().await.unwrap().unwrap(), piece);
    }
    theirs.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(body.chunk().await.unwrap(), None);
    assert_eq!(body.chunk().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_gathered_whole_or_not_at_all() {
    for (length, most, is_ok) in
        [(0, 10, true), (10, 10, true), (11, 10, false), (1000, 2000, true), (1001, 2000, false)]
    {
        let (body, mut theirs) = streamed(&format!("content-length: {length}")).await;
        theirs.write_all("x".repeat(length).as_bytes()).await.unwrap();
        let whole = body.into_bytes(most).await;
        assert_eq!(whole.is_ok(), is_ok, "{length} {most} {whole:?}");
        assert!(whole.is_ok_and(|whole| whole.len() == length) || !is_ok);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_that_it_is_too_large_is_not_read() {
    let (mut body, _theirs) = streamed("content-length: 1001").await;
    assert!(matches!(failure(&mut body).await, OutboundError::TooLarge { limit_bytes: 1000 }));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_read_up_to_its_limit() {
    let (mut body, mut theirs) = streamed("transfer-encoding: chunked").await;
    let mut writing = JoinSet::new();
    writing.spawn(async move { while theirs.write_all(b"a\r\n0123456789\r\n").await.is_ok() {} });
    assert!(matches!(failure(&mut body).await, OutboundError::TooLarge { limit_bytes: 1000 }));
    // The connection is closed at once, so the server's write fails.
    writing.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_or_drips_ends_in_time() {
    let (mut body, mut theirs) = streamed("content-length: 10").await;
    theirs.write_all(b"01234").await.unwrap();
    assert!(matches!(failure(&mut body).await, OutboundError::Stalled(idle) if idle == LIMITS.idle));

    let (mut body, mut theirs) = streamed("content-length: 900").await;
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        while theirs.write_all(b"x").await.is_ok() {
            tokio::time::sleep(LIMITS.idle / 2).await;
        }
    });
    let began_at = Instant::now();
    assert!(matches!(failure(&mut body).await, OutboundError::TimedOut(time) if time == LIMITS.time));
    assert_eq!(began_at.elapsed().as_secs(), LIMITS.time.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_shorter_than_it_says_is_a_failure() {
    for (head, part) in [("content-length: 10", "01234"), ("transfer-encoding: chunked", "5\r\n01234\r\n")] {
        let (mut body, mut theirs) = streamed(head).await;
        theirs.write_all(part.as_bytes()).await.unwrap();
        drop(theirs);
        assert!(matches!(failure(&mut body).await, OutboundError::Exchange { .. }), "{head}");
    }
}

#[test]
fn time_that_was_spent_is_gone() {
    let left = LIMITS.after(Duration::from_secs(20));
    assert_eq!((left.head, left.idle, left.time), (Duration::ZERO, LIMITS.idle, Duration::from_secs(40)));
}

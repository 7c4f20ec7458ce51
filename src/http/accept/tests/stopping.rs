//! Stopping: requests in flight are answered, and connections end in time.

use super::*;

#[tokio::test]
async fn stopping_finishes_an_http2_request_in_flight() {
    let mut server = Fixture::tcp().await;
    let io = TokioIo::new(server.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut requests, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://localhost/parked").body(Empty::<bytes::Bytes>::new()).unwrap();
    let answer = tokio::spawn(requests.send_request(request));
    server.entered.recv().await.unwrap();
    server.shutdown.begin();
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    server.serving.await.unwrap();
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_answers_parked_requests_and_finishes_writes_in_flight() {
    let mut server = Fixture::tcp().await;
    let mut poll = server.connect().await;
    send(&mut poll, "GET", "/parked").await;
    server.entered.recv().await.unwrap();
    let mut write = server.connect().await;
    send(&mut write, "POST", "/gated").await;
    server.entered.recv().await.unwrap();

    let port = server.port();
    server.shutdown.begin();
    assert_answer(&rest(&mut poll).await, "200", "nothing new");
    assert!(!server.serving.is_finished());

    server.gate.add_permits(1);
    assert_answer(&rest(&mut write).await, "200", "done");
    server.serving.await.unwrap();
    assert_eq!(server.shutdown.finish_tasks().await, Ok(()));
    assert!(TcpStream::connect(port).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn stopping_answers_a_parked_request_at_once() {
    let mut server = Fixture::tcp().await;
    let mut client = server.connect().await;
    send(&mut client, "GET", "/parked").await;
    server.park().await;
    server.shutdown.begin();
    let answer = rest(&mut client).await;
    assert_answer(&answer, "200", "nothing new");
    assert!(answer.contains("connection: close"), "{answer}");
    server.serving.await.unwrap();
    assert!(tokio::time::Instant::now() < server.shutdown.deadline());
}

#[tokio::test]
async fn stopping_closes_idle_and_silent_connections_at_once() {
    let server = Fixture::tcp().await;
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    send(&mut idle, "GET", "/").await;
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    server.stop().await;
    assert_eq!(rest(&mut silent).await, "");
    assert!(rest(&mut idle).await.ends_with("Some(127.0.0.1)"));
}

#[tokio::test]
async fn a_request_that_never_ends_is_dropped_at_the_deadline() {
    let mut server = Fixture::tcp().await;
    let mut client = server.connect().await;
    send(&mut client, "POST", "/gated").await;
    server.entered.recv().await.unwrap();
    // Only the deadline can happen from here on, and a paused clock jumps straight to it.
    tokio::time::pause();
    server.shutdown.begin();
    server.serving.await.unwrap();
    assert_eq!(server.shutdown.finish_tasks().await, Err(1));
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn a_write_runs_on_when_its_client_hangs_up() {
    let mut server = Fixture::tcp().await;
    let mut client = server.connect().await;
    send(&mut client, "POST", "/gated").await;
    server.entered.recv().await.unwrap();
    drop(client);
    // The connection has seen the hang-up when serving ends; before the deadline nothing else can end it.
    server.shutdown.begin();
    server.serving.await.unwrap();
    assert!(tokio::time::Instant::now() < server.shutdown.deadline());

    server.gate.add_permits(1);
    server.finished.recv().await.unwrap();
    assert_eq!(server.shutdown.finish_tasks().await, Ok(()));
}

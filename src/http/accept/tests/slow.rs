//! Slow clients: one that sends or reads nothing is dropped in time, and others are served meanwhile.

use super::*;

#[tokio::test]
async fn a_client_that_sends_nothing_is_dropped_in_time() {
    let server = Fixture::tcp().await;
    let mut silent = server.connect().await;
    // Served after `silent` was accepted, so the timeout of `silent` is the next thing to happen.
    assert_answer(&ask(server.connect().await, "/").await, "200", "Some(127.0.0.1)");
    tokio::time::pause();
    assert_eq!(rest(&mut silent).await, "");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_in_time() {
    let server = Fixture::tcp().await;
    let mut client = server.connect().await;
    send(&mut client, "GET", "/large").await;
    let mut head = [0; 12];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    tokio::time::pause();
    // Longer than the grace period, and than the time that the buffered bytes have earned.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let mut read = Vec::new();
    let _ended = client.read_to_end(&mut read).await;
    assert!(read.len() < LARGE_BYTES, "it was cut off");
    server.stop().await;
}

#[tokio::test]
async fn a_client_of_http2_that_gives_no_room_is_dropped_in_time() {
    let server = Fixture::tcp().await;
    let io = TokioIo::new(server.connect().await);
    let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://localhost/large").body(Empty::<bytes::Bytes>::new()).unwrap();
    let unread = requests.send_request(request).await.unwrap();
    let began = tokio::time::Instant::now();
    tokio::time::pause();
    let watching = tokio::spawn({
        let answers = Arc::clone(server.transport.answers());
        async move { answers.watch().await }
    });
    // The client keeps answering pings, and would do so for ever.
    let _ended = connection.await.unwrap();
    assert!(began.elapsed() < HTTP2_CLOSE_TIMEOUT, "{:?}", began.elapsed());
    watching.abort();
    drop((unread, requests));
    server.stop().await;
}

#[tokio::test]
async fn small_answers_go_out_while_a_large_one_takes_all_room() {
    let server = Fixture::tcp().await;
    let nobody = ReceivingUser::default().or_network(None);
    let _whole = server.transport.answers().hold(1 << 40, nobody, &transport::Hangup::default()).unwrap();
    assert_eq!(ask_http2(server.connect().await).await, (200, "Some(127.0.0.1)".to_owned()));
    assert_answer(&ask(server.connect().await, "/").await, "200", "Some(127.0.0.1)");
    server.stop().await;
}

#[tokio::test]
async fn a_client_of_http2_that_asks_nothing_is_dropped_in_time() {
    // Three starts: the bytes that tell the protocol, the whole preface, and half a header frame.
    for sent in [&HTTP2_START[..4], HTTP2_START, &[HTTP2_START, b"\0\0\x10\x01"].concat()] {
        let server = Fixture::tcp().await;
        let mut silent = server.connect().await;
        silent.write_all(sent).await.unwrap();
        assert_answer(&ask(server.connect().await, "/").await, "200", "Some(127.0.0.1)");
        tokio::time::pause();
        silent.read_to_end(&mut Vec::new()).await.unwrap();
        server.stop().await;
        tokio::time::resume();
    }
}

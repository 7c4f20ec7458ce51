//! HTTP itself: requests that are ambiguous, too large, too slow or too many.

use std::time::Duration;

use sabha::config::ByteSize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::harness::{Client, Engine, TestServer, v3};

/// Sends these bytes, and returns all that the server answers until it closes the connection.
async fn exchange(server: &TestServer, sent: &[u8]) -> String {
    let mut stream = server.connect().await;
    stream.write_all(sent).await.expect("it is read");
    let mut answer = Vec::new();
    // Data before the end counts, however the connection ended.
    let _ended = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

/// Returns the head of one answer, and as much of its body as came with it.
async fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read_buf(&mut answer).await.expect("an answer");
        assert!(read > 0, "no answer: {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_request_whose_end_is_not_certain_is_refused_and_nothing_after_it_is_read() {
    let server = TestServer::start().await;
    let smuggled = "GET /_matrix/client/versions HTTP/1.1|Host: x||";
    let cases = [
        "Transfer-Encoding: chunked|Content-Length: 5",
        "Content-Length: 5|Transfer-Encoding: chunked",
        "Content-Length: 5|X: y|TRANSFER-ENCODING:chunked",
        "Content-Length: 5|Content-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5|Content-Length: five",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:|Transfer-Encoding: identity",
        "X: y| Transfer-Encoding: chunked",
        "Transfer-Encoding:|\tchunked",
        "Content-Length: 5|Transfer-Encoding: \u{b}chunked",
    ];
    for headers in cases {
        let request = format!("POST /_matrix/client/v3/login HTTP/1.1|Host: x|{headers}||0||{smuggled}{smuggled}");
        let answer = exchange(&server, request.replace('|', "\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{headers}: {answer}");
    }
}

#[tokio::test]
async fn the_connection_of_a_request_in_chunks_ends_with_its_answer() {
    let server = TestServer::start().await;
    let request =
        "POST /_matrix/client/v3/login HTTP/1.1|Host: x|Transfer-Encoding: chunked||2|{}|0||GET / HTTP/1.1|Host: x||";
    let answer = exchange(&server, request.replace('|', "\r\n").as_bytes()).await;
    assert!(answer.contains("M_MISSING_PARAM") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn an_early_error_reaches_a_client_that_is_still_sending() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let token = alice.token.expect("she is signed in");
    let upload = v3(["user", &alice.user_id, "account_data", "com.example.large"]);
    let cases = [
        // Requests without a token, with a wrong one, and with a body larger than anyone may send.
        ("POST", v3(["createRoom"]), String::new(), "HTTP/1.1 401"),
        ("PUT", upload.clone(), "Authorization: Bearer wrong\r\n".to_owned(), "HTTP/1.1 401"),
        ("PUT", upload, format!("Authorization: Bearer {token}\r\n"), "HTTP/1.1 413"),
    ];
    let body = vec![b' '; 6 << 20];
    for (method, path, authorization, status) in cases {
        let mut stream = server.connect().await;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it is read");
        // The answer is already on its way, but this client reads it only after it has sent everything.
        stream.write_all(&body).await.expect("what is not wanted is read all the same");
        let answer = one_answer(&mut stream).await;
        assert!(answer.starts_with(status), "{path}: {answer}");
        // The connection stays open.
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is open");
        assert!(one_answer(&mut stream).await.contains("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_go_on_is_told_that_it_need_not() {
    let server = TestServer::start().await;
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n",
        v3(["createRoom"])
    );
    let answer = exchange(&server, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn strangers_send_small_bodies() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let large = json!({ "x": "y".repeat(64 << 10) });
    for path in ["login", "register", "refresh"] {
        server.anonymous().post(&v3([path]), large.clone()).await.error(413, "M_TOO_LARGE");
    }
    alice.put(&v3(["user", &alice.user_id, "account_data", "com.example.x"]), large).await.ok();
    // A body whose announced length is too large is refused before it comes.
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n", v3(["login"]));
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.expect("it is read");
    assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn one_address_has_only_so_many_connections_and_a_proxy_has_any_number() {
    const LIMIT: u32 = 16;
    for trusted in [false, true] {
        let config = move |config: &mut sabha::config::Config| {
            config.limits.connections_per_address = LIMIT;
            if trusted {
                config.listeners[0].trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
            }
        };
        let server = TestServer::builder().config(config).start().await;
        let mut open = Vec::new();
        for _ in 0..LIMIT {
            let mut stream = server.connect().await;
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is read");
            one_answer(&mut stream).await;
            open.push(stream);
        }
        let one_more = exchange(&server, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert_eq!(one_more.starts_with("HTTP/1.1 200"), trusted, "{one_more}");
    }
}

/// Starts a server, with a client and a room of which a page has about 12 MB.
async fn with_a_large_page(engine: Engine) -> (TestServer, Client, String) {
    let config = |config: &mut sabha::config::Config| {
        config.limits.page_bytes = ByteSize::mib(64);
        config.limits.answer_bytes_in_flight = ByteSize::mib(16);
    };
    let server = TestServer::builder().engine(engine).config(config).start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let large = json!({ "x": "y".repeat(60_000) });
    for txn in 0..200 {
        alice.send(&room, "com.example.large", &format!("t{txn}"), large.clone()).await;
    }
    (server, alice, v3(["rooms", &room, "messages"]) + "?dir=b&limit=200")
}

both_engines! {
    async fn answers_that_nobody_reads_do_not_pile_up(engine: Engine) {
        let (server, alice, page) = with_a_large_page(engine).await;
        let bob = server.register("bob").await;
        let token = alice.token.clone().expect("she is signed in");
        let address = server.base().trim_start_matches("http://").parse().expect("an address");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut slow = socket.connect(address).await.expect("the server listens");
        let request = format!("GET {page} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        slow.write_all(request.as_bytes()).await.expect("it is read");
        assert!(one_answer(&mut slow).await.starts_with("HTTP/1.1 200"), "the first has room");

        let second = alice.get(&page).await;
        let answers = server.app().transport.answers();
        assert!(answers.bytes_in_flight() <= 16 << 20, "{} bytes", answers.bytes_in_flight());
        if second.status.as_u16() == 503 {
            assert_eq!(second.headers["retry-after"], "1");
        } else {
            // The second answer took so long that the first reader counts as slow.
            second.ok();
            let mut read = Vec::new();
            let _ended = slow.read_to_end(&mut read).await;
            assert!(read.len() < 12 << 20, "it was cut off");
        }
        // Small answers always have room, and so have larger ones of other users.
        alice.get(&v3(["account", "whoami"])).await.ok();
        let bobs = bob.create_room(json!({})).await;
        bob.send(&bobs, "com.example.large", "t", json!({ "x": "y".repeat(60_000) })).await;
        bob.sync(None).await;
        drop(slow);
        // The server notices the closed connection by itself. Then the retry succeeds that the refusal asked for.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while answers.bytes_in_flight() > 0 {
            assert!(tokio::time::Instant::now() < deadline, "the bytes are given back");
            tokio::task::yield_now().await;
        }
        alice.get(&page).await.ok();
    }
}

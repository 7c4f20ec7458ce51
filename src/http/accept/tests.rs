//! Whole connections: a raw client on one side, a small router on the other.

mod cut;
mod slow;
mod stopping;

use std::net::SocketAddr;
use std::path::Path;

use axum::Extension;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::http::listen::{Address, ListenerSpec};
use crate::http::tls::TlsFiles;
use crate::http::tls::tests::self_signed;
use crate::http::tracked::TrackedLayer;

/// The bytes that an HTTP/2 client sends before its first request: the preface and empty settings.
const HTTP2_START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// More bytes than a connection's buffers and an HTTP/2 client's window hold.
const LARGE_BYTES: usize = 32 << 20;

/// A served router. Reports when a handler is entered and finished and when `/parked` is left, and holds the gate that
/// `/gated` waits for.
struct Fixture {
    address: Address,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    entered: mpsc::Receiver<()>,
    finished: mpsc::Receiver<()>,
    left: mpsc::Receiver<()>,
    gate: Arc<Semaphore>,
    transport: Transport,
}

/// Reports when a handler's future is dropped, finished or not.
struct Leaving(mpsc::Sender<()>);

impl Drop for Leaving {
    fn drop(&mut self) {
        // No test listens any more when the runtime ends.
        let _ = self.0.try_send(());
    }
}

impl Fixture {
    async fn start(address: Address, tls: Option<TlsFiles>) -> Self {
        let shutdown = Shutdown::new();
        let (enter, entered) = mpsc::channel(8);
        let (finish, finished) = mpsc::channel(8);
        let (leave, left) = mpsc::channel(8);
        let gate = Arc::new(Semaphore::new(0));

        let token = shutdown.token().clone();
        let enter_parked = enter.clone();
        let parked = async move || {
            let _leaving = Leaving(leave.clone());
            enter_parked.send(()).await.unwrap();
            token.cancelled().await;
            "nothing new"
        };
        let handler_gate = gate.clone();
        let gated = async move || {
            enter.send(()).await.unwrap();
            let _permit = handler_gate.acquire().await.unwrap();
            finish.send(()).await.unwrap();
            "done"
        };
        let router = Router::new()
            .route("/", get(async |Extension(client): Extension<ClientAddress>| format!("{:?}", client.0)))
            .route("/panic", get(async || -> &'static str { panic!("a broken handler") }))
            .route("/large", get(async || vec![b'x'; LARGE_BYTES]))
            .route("/parked", get(parked))
            .route("/gated", get(gated.clone()).post(gated))
            .layer(TrackedLayer::new(shutdown.tasks().clone()));

        let transport = Transport::default();
        let listener = Listener::bind(&ListenerSpec { address, tls }).await.unwrap().within(transport.clone());
        let address = listener.address().clone();
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
        Self { address, shutdown, serving, entered, finished, left, gate, transport }
    }

    async fn tcp() -> Self {
        Self::start(Address::Tcp(([127, 0, 0, 1], 0).into()), None).await
    }

    async fn unix(folder: &Path) -> Self {
        Self::start(Address::Unix { path: folder.join("s"), mode: 0o600 }, None).await
    }

    fn port(&self) -> SocketAddr {
        match &self.address {
            Address::Tcp(address) => *address,
            Address::Unix { .. } => panic!("a unix socket has no port"),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.port()).await.unwrap()
    }

    /// Waits until the handler is entered, and then until its request is parked.
    async fn park(&mut self) {
        self.entered.recv().await.unwrap();
        tokio::time::pause();
        tokio::time::sleep(2 * http1::PARK_AFTER).await;
        tokio::time::resume();
    }

    async fn stop(self) {
        self.shutdown.begin();
        self.serving.await.unwrap();
    }
}

async fn send(io: &mut (impl AsyncWrite + Unpin), method: &str, path: &str) {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
}

/// Reads everything until the server closes.
async fn rest(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    io.read_to_string(&mut text).await.unwrap();
    text
}

/// Sends a request with `Connection: close` and returns the answer.
async fn ask(mut io: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    rest(&mut io).await
}

fn assert_answer(answer: &str, status: &str, body: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
}

#[tokio::test]
async fn tcp_requests_know_their_clients_address() {
    let server = Fixture::tcp().await;
    assert_answer(&ask(server.connect().await, "/").await, "200", "Some(127.0.0.1)");
    server.stop().await;
}

#[tokio::test]
async fn unix_requests_have_no_client_address_and_the_socket_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Fixture::unix(folder.path()).await;
    let path = folder.path().join("s");
    let socket = UnixStream::connect(&path).await.unwrap();
    assert_answer(&ask(socket, "/").await, "200", "None");
    server.stop().await;
    assert!(!path.exists());
}

/// Connects with TLS and returns the stream and the protocol that ALPN chose.
async fn connect_tls(
    server: &Fixture,
    root: rustls::pki_types::CertificateDer<'static>,
    alpn: &[&[u8]],
) -> (tokio_rustls::client::TlsStream<TcpStream>, Option<Vec<u8>>) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("localhost".try_into().unwrap(), server.connect().await).await.unwrap();
    let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    (stream, chosen)
}

/// The status and body of `GET /` over HTTP/2.
async fn ask_http2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> (u16, String) {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
    let (mut requests, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://localhost/").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = requests.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(requests);
    connection.await.unwrap().unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn tls_speaks_what_alpn_chose() {
    let folder = tempfile::tempdir().unwrap();
    let (files, root) = self_signed(folder.path(), "server");
    let server = Fixture::start(Address::Tcp(([127, 0, 0, 1], 0).into()), Some(files)).await;

    let (stream, chosen) = connect_tls(&server, root.clone(), &[]).await;
    assert_eq!(chosen, None);
    assert_answer(&ask(stream, "/").await, "200", "Some(127.0.0.1)");

    let (stream, chosen) = connect_tls(&server, root, &[b"h2", b"http/1.1"]).await;
    assert_eq!(chosen.as_deref(), Some(&b"h2"[..]));
    assert_eq!(ask_http2(stream).await, (200, "Some(127.0.0.1)".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_recognised_without_tls() {
    let server = Fixture::tcp().await;
    assert_eq!(ask_http2(server.connect().await).await, (200, "Some(127.0.0.1)".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn too_large_headers_are_refused() {
    let server = Fixture::tcp().await;
    let mut client = server.connect().await;
    // The headers are one byte over the limit and have no end, so that nothing is left unread when the server closes.
    let mut request = b"GET / HTTP/1.1\r\nhost: ".to_vec();
    request.resize(MAX_HEADER_BYTES as usize + 1, b'x');
    client.write_all(&request).await.unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 431"));
    server.stop().await;
}

#[tokio::test]
async fn a_panic_costs_neither_the_answer_nor_the_connection() {
    let server = Fixture::tcp().await;
    let mut client = server.connect().await;
    send(&mut client, "GET", "/panic").await;
    let mut head = [0; 12];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 500");
    // The same connection still works.
    let answers = ask(client, "/").await;
    assert!(answers.contains("M_UNKNOWN"), "{answers}");
    assert!(answers.contains("HTTP/1.1 200"), "{answers}");
    server.stop().await;
}

#[tokio::test]
async fn a_parked_request_is_answered_and_its_connection_goes_on() {
    let mut server = Fixture::tcp().await;
    let mut client = server.connect().await;
    send(&mut client, "GET", "/gated").await;
    server.park().await;
    server.gate.add_permits(1);
    server.finished.recv().await.unwrap();
    let answers = ask(client, "/").await;
    assert!(answers.contains("\r\n\r\ndoneHTTP/1.1 200"), "{answers}");
    assert_answer(&answers, "200", "Some(127.0.0.1)");
    server.stop().await;
}

#[tokio::test]
async fn a_parked_request_is_dropped_when_its_client_hangs_up() {
    let mut server = Fixture::tcp().await;
    let mut client = server.connect().await;
    send(&mut client, "GET", "/parked").await;
    server.park().await;
    drop(client);
    server.left.recv().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_request_is_parked_with_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let (files, root) = self_signed(folder.path(), "server");
    let mut server = Fixture::start(Address::Tcp(([127, 0, 0, 1], 0).into()), Some(files)).await;
    let (mut client, _) = connect_tls(&server, root, &[b"http/1.1"]).await;
    send(&mut client, "GET", "/gated").await;
    server.park().await;
    server.gate.add_permits(1);
    server.finished.recv().await.unwrap();
    let answers = ask(client, "/").await;
    assert!(answers.contains("\r\n\r\ndoneHTTP/1.1 200"), "{answers}");
    assert_answer(&answers, "200", "Some(127.0.0.1)");
    server.stop().await;
}

#[tokio::test]
async fn a_waiting_connections_task_is_small() {
    let server = Arc::new(Server::new(Router::new(), None, Transport::default(), Shutdown::new()));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let counted = Transport::default().connect(None).unwrap();
    let connection = server.connection(Socket::Left(client), ClientAddress(None), counted);
    let size_bytes = size_of_val(&connection);
    assert!(size_bytes <= 1024, "{size_bytes}");
}

#[test]
fn only_a_clients_own_failure_is_passed_over() {
    const EMFILE: i32 = 24;
    const ENOMEM: i32 = 12;
    for kind in [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset] {
        assert!(ended_in_the_backlog(&kind.into()));
    }
    for code in [EMFILE, ENOMEM] {
        assert!(!ended_in_the_backlog(&io::Error::from_raw_os_error(code)));
    }
}

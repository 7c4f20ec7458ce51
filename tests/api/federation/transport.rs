//! Connections to other servers: kept, shared, replaced, and never used for another name; and looking servers up.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Version, header, header::CACHE_CONTROL};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use ruma::{ServerName, api::federation::query::get_profile_information, user_id};
use sabha::{
    clock::Clock,
    http::tls::{self, TlsFiles},
    memory::budget::Budget,
    outbound::{ConnectError, Limits, Outbound, OutboundError, StreamLimits, Use},
    remote::{FederationError, discovery::Discovery},
};
use sabha_federation::{Host, Route};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::network::Network;
use crate::harness::Engine;

const LIMITS: Limits = Limits { time: Duration::from_secs(20), body_bytes: 1000, redirects: 0 };

const STREAM_LIMITS: StreamLimits = StreamLimits {
    head: Duration::from_secs(20),
    idle: Duration::from_secs(20),
    time: Duration::from_secs(20),
    body_bytes: 4 << 20,
};

const HTTP1: &[&str] = &["http/1.1"];
const BOTH: &[&str] = &["h2", "http/1.1"];

const WELL_KNOWN: &str = "/.well-known/matrix/server";

/// The version, the host and the path of a request.
type Asked = (Version, String, String);

/// A server that counts its TLS handshakes and notes its requests.
struct Peer {
    handshakes: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: JoinSet<()>,
}

impl Peer {
    async fn start(
        network: &Network,
        name: &'static str,
        protocols: &[&str],
        answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let files = network.tls(name);
        let files = TlsFiles { certificate_chain: files.certificate, private_key: files.key };
        let mut config = Arc::unwrap_or_clone(tls::load(&files).expect("a certificate"));
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(network.address(name)).await.expect("a free address");
        let (handshakes, asked) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Asked>>>::default());
        let (counter, notes) = (Arc::clone(&handshakes), Arc::clone(&asked));
        let service = service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            let host = request.headers().get(header::HOST).map(|host| host.to_str().expect("ASCII").to_owned());
            let host = host.or(request.uri().authority().map(ToString::to_string)).expect("every request has one");
            let answer = answer(&path);
            notes.lock().expect("no panics").push((request.version(), host, path));
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a socket");
                let (acceptor, service, counter) = (acceptor.clone(), service.clone(), Arc::clone(&counter));
                connections.spawn(async move {
                    // A client may give up, which is for its test to see.
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    counter.fetch_add(1, Ordering::SeqCst);
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { handshakes, asked, serving }
    }

    /// Frees the address and closes the connections.
    async fn stop(mut self) {
        self.serving.shutdown().await;
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panics").clone()
    }
}

fn hi(_: &str) -> Response {
    "hi".into_response()
}

fn route(name: &str) -> Route {
    let host = Host::Name(name.to_owned());
    Route { certificate: host.clone(), host_header: name.to_owned(), targets: vec![(host, 8448)] }
}

async fn send(outbound: &Outbound, use_: Use, route: &Route) -> Result<Bytes, OutboundError> {
    let request = Request::builder().uri("/path?query").body(Bytes::new()).expect("a request");
    outbound.send(use_, route, request, LIMITS).await.map(http::Response::into_body)
}

#[tokio::test]
async fn requests_in_a_row_need_one_handshake_in_the_protocol_that_the_server_chooses() {
    for (protocols, version) in [(BOTH, Version::HTTP_2), (HTTP1, Version::HTTP_11), (&[], Version::HTTP_11)] {
        let network = Network::of(&["peer.test"]);
        let peer = Peer::start(&network, "peer.test", protocols, hi).await;
        let outbound = network.outbound(&["127.0.0.0/8"]);
        for _ in 0..20 {
            assert_eq!(send(&outbound, Use::Queries, &route("peer.test")).await.unwrap(), "hi");
        }
        assert_eq!(peer.handshakes(), 1, "{protocols:?}");
        let expected = (version, "peer.test".to_owned(), "/path".to_owned());
        assert_eq!(peer.asked(), vec![expected; 20]);
    }
}

#[tokio::test]
async fn requests_at_once_share_a_connection_of_http2() {
    let network = Network::of(&["peer.test"]);
    let peer = Peer::start(&network, "peer.test", BOTH, hi).await;
    let outbound = Arc::new(network.outbound(&["127.0.0.0/8"]));
    let mut sending = JoinSet::new();
    for _ in 0..20 {
        let outbound = Arc::clone(&outbound);
        sending.spawn(async move { send(&outbound, Use::Queries, &route("peer.test")).await.unwrap() });
    }
    assert_eq!(sending.join_all().await, ["hi"; 20]);
    assert_eq!(peer.handshakes(), 1);
}

#[tokio::test]
async fn each_use_has_a_connection_of_its_own() {
    let network = Network::of(&["peer.test"]);
    let peer = Peer::start(&network, "peer.test", BOTH, hi).await;
    let outbound = network.outbound(&["127.0.0.0/8"]);
    for _ in 0..3 {
        for use_ in [Use::Queries, Use::Keys, Use::Fetches, Use::Transactions, Use::Joins] {
            send(&outbound, use_, &route("peer.test")).await.unwrap();
        }
    }
    assert_eq!(peer.handshakes(), 5);
}

#[tokio::test]
async fn a_server_that_starts_again_is_asked_without_a_failure() {
    for protocols in [BOTH, HTTP1] {
        let network = Network::of(&["peer.test"]);
        let outbound = network.outbound(&["127.0.0.0/8"]);
        for _ in 0..3 {
            let peer = Peer::start(&network, "peer.test", protocols, hi).await;
            send(&outbound, Use::Transactions, &route("peer.test")).await.unwrap();
            assert_eq!(peer.handshakes(), 1, "{protocols:?}");
            peer.stop().await;
        }
    }
}

#[tokio::test]
async fn a_kept_connection_opens_no_way_for_another_name() {
    let network = Network::of(&["peer.test", "inside.test"]);
    let peer = Peer::start(&network, "peer.test", BOTH, hi).await;
    let inside = Peer::start(&network, "inside.test", BOTH, hi).await;
    let address = network.address("peer.test").ip().to_string();
    let outbound = network.outbound(&[&address]);
    send(&outbound, Use::Queries, &route("peer.test")).await.unwrap();

    // Another name must have a permitted address.
    let denied = send(&outbound, Use::Queries, &route("inside.test")).await;
    assert!(matches!(denied, Err(OutboundError::Denied { .. })), "{denied:?}");
    // A permitted address must have a certificate for the other name.
    let same_address = Route { targets: route("peer.test").targets, ..route("inside.test") };
    let refused = send(&outbound, Use::Queries, &same_address).await;
    assert!(matches!(refused, Err(OutboundError::Connect { source: ConnectError::Tls(_), .. })), "{refused:?}");
    assert_eq!((peer.handshakes(), inside.handshakes()), (1, 0));
    // The first of several targets that can be connected to gets the request.
    let several = [route("inside.test").targets, route("peer.test").targets].concat();
    let second = Route { targets: several, host_header: "peer.test:8448".to_owned(), ..route("peer.test") };
    assert_eq!(send(&outbound, Use::Queries, &second).await.unwrap(), "hi");
}

#[tokio::test]
async fn an_answer_is_limited_in_size_and_a_redirect_is_an_answer() {
    for protocols in [BOTH, HTTP1] {
        let network = Network::of(&["peer.test"]);
        let answer = |_: &str| (StatusCode::FOUND, [(header::LOCATION, "https://peer.test/x")], vec![b'x'; 1001]);
        let peer = Peer::start(&network, "peer.test", protocols, move |path| answer(path).into_response()).await;
        let outbound = network.outbound(&["127.0.0.0/8"]);
        let sent = send(&outbound, Use::Queries, &route("peer.test")).await;
        assert!(matches!(sent, Err(OutboundError::TooLarge { limit_bytes: 1000 })), "{sent:?}");
        let request = Request::builder().uri("/path").body(Bytes::new()).expect("a request");
        let response = outbound.stream(Use::Queries, &route("peer.test"), request, STREAM_LIMITS).await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.into_body().into_bytes(2000).await.unwrap().len(), 1001);
        assert_eq!(peer.asked().len(), 2);
    }
}

/// A peer that delegates to `to` for ten hours.
async fn delegating(network: &Network, to: &'static str) -> Peer {
    let answer = move |_: &str| {
        let body = format!(r#"{{"m.server":"{to}"}}"#);
        let mut answer = Response::new(Body::from(body));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=36000"));
        answer
    };
    Peer::start(network, "peer.test", BOTH, answer).await
}

#[tokio::test]
async fn a_delegation_is_looked_up_once_for_all_and_outlives_a_failure() {
    const HOUR: Duration = Duration::from_secs(3600);
    let network = Network::of(&["peer.test"]);
    let peer = delegating(&network, "first.test:443").await;
    let clock = Clock::manual(Clock::System.now_ms());
    let outbound = Arc::new(network.outbound(&["127.0.0.0/8"]));
    let discovery = Arc::new(Discovery::new(outbound, clock.clone(), &Budget::new(64 << 20)));
    let name = ServerName::parse("peer.test").expect("a server name");
    let mut looking = JoinSet::new();
    for _ in 0..20 {
        let (discovery, name) = (Arc::clone(&discovery), name.clone());
        looking.spawn(async move { discovery.route(&name).await.host_header });
    }
    assert_eq!(looking.join_all().await, ["first.test:443"; 20]);
    let expected = [(Version::HTTP_11, "peer.test".to_owned(), WELL_KNOWN.to_owned())];
    assert_eq!(peer.asked(), expected);

    // Near its end it is refreshed, but the host is down.
    peer.stop().await;
    let looked_up = async || discovery.route(&name).await.host_header;
    clock.advance(8 * HOUR);
    assert_eq!(looked_up().await, "first.test:443");
    // The host is asked again after a pause.
    let peer = delegating(&network, "second.test:443").await;
    assert_eq!(looked_up().await, "first.test:443");
    assert_eq!(peer.asked(), []);
    clock.advance(Duration::from_secs(60));
    assert_eq!(looked_up().await, "second.test:443");
    assert_eq!(peer.asked(), expected);

    // After its end it does not count.
    peer.stop().await;
    clock.advance(10 * HOUR);
    assert_eq!(looked_up().await, "peer.test");
}

#[tokio::test]
async fn a_large_answer_is_read_as_it_comes_and_a_refusal_is_an_error() {
    const MEGABYTES: usize = 3;
    let network = Network::of(&["a.test", "peer.test"]);
    let asked = Arc::<AtomicUsize>::default();
    let times = Arc::clone(&asked);
    let answer = move |path: &str| {
        if path == WELL_KNOWN {
            return StatusCode::NOT_FOUND.into_response();
        }
        match times.fetch_add(1, Ordering::SeqCst) {
            0 => vec![b'x'; MEGABYTES << 20].into_response(),
            1 => (StatusCode::NOT_FOUND, r#"{"errcode":"M_NOT_FOUND","error":"x"}"#).into_response(),
            _ => (StatusCode::FORBIDDEN, vec![b'x'; 1 << 20]).into_response(),
        }
    };
    let peer = Peer::start(&network, "peer.test", BOTH, answer).await;
    let a = network.start(Engine::Sqlite, "a.test").await;
    let federation = a.app().federation.as_ref().expect("it is switched on");
    let destination = ServerName::parse("peer.test").expect("a server name");
    let ask = async || {
        let request = get_profile_information::v1::Request::new(user_id!("@x:peer.test").to_owned());
        federation.ask_streamed(Use::Joins, &destination, request, STREAM_LIMITS).await
    };
    let (head, mut body) = ask().await.unwrap();
    assert_eq!(head.status, StatusCode::OK);
    let mut bytes = 0;
    while let Some(chunk) = body.chunk().await.unwrap() {
        bytes += chunk.len();
    }
    assert_eq!(bytes, MEGABYTES << 20);

    let refused = ask().await.err().expect("a refusal");
    let FederationError::Refused { status, kind, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(
        (status, kind.map(|kind| kind.errcode().to_string())),
        (StatusCode::NOT_FOUND, Some("M_NOT_FOUND".to_owned()))
    );
    // The status counts also when its body is too large to be read.
    let refused = ask().await.err().expect("a refusal");
    assert!(
        matches!(refused, FederationError::Refused { status: StatusCode::FORBIDDEN, kind: None, .. }),
        "{refused:?}"
    );
    assert_eq!((asked.load(Ordering::SeqCst), peer.handshakes()), (3, 2), "one is for the well-known");
}

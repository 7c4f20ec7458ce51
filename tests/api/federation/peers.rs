//! Other servers as they exist on the internet: slow, wrong or malicious.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header::LOCATION};
use ruma::{CanonicalJsonObject, ServerName};
use sabha::{
    clock::Clock,
    http::{
        accept,
        listen::{Address, Listener, ListenerSpec},
        shutdown::Shutdown,
        tls::TlsFiles,
    },
};
use sabha_federation::{ServerSigner, published_keys};
use tokio::{sync::Semaphore, task::JoinSet};

use super::network::{Network, authorization, get_as};
use crate::harness::{Engine, v3};

pub(super) const PROFILE: &str = "/_matrix/federation/v1/query/profile?user_id=%40bob%3Ab.test";

/// A server in the network that publishes its keys, and gives the test's answer to every other request.
pub(super) struct Peer {
    pub(super) signer: ServerSigner,
    /// Number of requests for its keys.
    asked: Arc<AtomicUsize>,
    /// Permits for answers with its keys: without any, such requests wait.
    gate: Arc<Semaphore>,
    /// The answers to requests for its keys, and to those for the keys of others.
    answers: Arc<Mutex<[Option<String>; 2]>>,
    _serving: JoinSet<()>,
}

/// The keys of a server with another end of their validity.
pub(super) fn keys_until(signer: &ServerSigner, valid_until_ms: i64) -> String {
    let keys = published_keys::publish(signer, 0).expect("signed");
    let mut keys: CanonicalJsonObject = serde_json::from_str(keys.get()).expect("canonical");
    keys.remove("signatures");
    keys.insert("valid_until_ts".to_owned(), ruma::Int::try_from(valid_until_ms).expect("a small number").into());
    signer.sign_json(&mut keys).expect("an object");
    serde_json::to_string(&keys).expect("canonical")
}

impl Peer {
    pub(super) async fn start(
        network: &Network,
        name: &'static str,
        valid_until_ms: i64,
        other: fn() -> Response,
    ) -> Self {
        let signer = ServerSigner::generate(ServerName::parse(name).expect("a server name"));
        let answers = Arc::new(Mutex::new([Some(keys_until(&signer, valid_until_ms)), None]));
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let (counter, door, said) = (Arc::clone(&asked), Arc::clone(&gate), Arc::clone(&answers));
        let answer = move |index: usize| match said.lock().expect("no test panics with it")[index].clone() {
            Some(answer) => answer.into_response(),
            None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
        let router = Router::new().fallback(async move |request: Request| match request.uri().path() {
            "/_matrix/key/v2/server" => {
                counter.fetch_add(1, Ordering::SeqCst);
                let _in = door.acquire().await;
                answer(0)
            }
            "/_matrix/key/v2/query" => answer(1),
            "/.well-known/matrix/server" => StatusCode::NOT_FOUND.into_response(),
            _ => other(),
        });
        let tls = network.tls(name);
        let tls = TlsFiles { certificate_chain: tls.certificate, private_key: tls.key };
        let spec = ListenerSpec { address: Address::Tcp(network.address(name)), tls: Some(tls) };
        let listener = Listener::bind(&spec).await.expect("a free address");
        let mut serving = JoinSet::new();
        serving.spawn(accept::serve(listener, router, Shutdown::new()));
        Self { signer, asked, gate, answers, _serving: serving }
    }

    /// Gives another answer about its own keys from now on; `None` is a failure.
    pub(super) fn publishes(&self, answer: Option<String>) {
        self.answers.lock().expect("no test panics with it")[0] = answer;
    }

    /// Gives these answers as a notary from now on.
    pub(super) fn knows(&self, answers: &[String]) {
        let answer = format!(r#"{{"server_keys":[{}]}}"#, answers.join(","));
        self.answers.lock().expect("no test panics with it")[1] = Some(answer);
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub(super) fn nothing() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

#[tokio::test]
async fn the_keys_of_a_server_are_asked_for_once_by_many_who_wait() {
    let network = Network::of(&["b.test", "peer.test"]);
    let peer = Peer::start(&network, "peer.test", Clock::System.now_ms() + 3_600_000, nothing).await;
    let b = network.start(Engine::Sqlite, "b.test").await;
    b.register("bob").await;
    let header = authorization(&peer.signer, "b.test", Method::GET, PROFILE, "");
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let (client, header) = (b.anonymous(), header.clone());
        requests.spawn(async move { client.request_as(Some(&header), Method::GET, PROFILE, None).await.status });
    }
    assert_eq!(requests.join_all().await, [StatusCode::OK; 20]);
    assert_eq!(peer.asked(), 1);
}

#[tokio::test]
async fn nobody_can_make_us_flood_a_server_or_wait_for_its_known_keys() {
    let network = Network::of(&["b.test", "peer.test"]);
    let start_ms = Clock::System.now_ms();
    let clock = Clock::manual(start_ms);
    let peer = Peer::start(&network, "peer.test", start_ms + 3_600_000, nothing).await;
    let b = network.builder(Engine::Sqlite, "b.test").clock(clock.clone()).start().await;
    b.register("bob").await;
    let client = b.anonymous();
    get_as(&client, &peer.signer, "b.test", PROFILE).await.ok();

    // An unknown key makes b.test ask the peer again. That was of no use, so the next time is only after a pause.
    let stranger = ServerSigner::generate(ServerName::parse("peer.test").unwrap());
    for _ in 0..5 {
        get_as(&client, &stranger, "b.test", PROFILE).await.error(401, "M_UNAUTHORIZED");
    }
    assert_eq!(peer.asked(), 2);
    clock.advance(Duration::from_secs(31));

    // While that request is waiting, b.test still finds the peer's known key.
    let everything = peer.gate.forget_permits(Semaphore::MAX_PERMITS);
    let asking = {
        let client = client.clone();
        tokio::spawn(async move { get_as(&client, &stranger, "b.test", PROFILE).await.status })
    };
    let is_asked = async {
        while peer.asked() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_asked).await.expect("the server is asked again");
    get_as(&client, &peer.signer, "b.test", PROFILE).await.ok();
    assert!(!asking.is_finished());
    peer.gate.add_permits(everything);
    assert_eq!(asking.await.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!(peer.asked(), 3);
}

#[tokio::test]
async fn keys_that_have_ended_are_not_believed() {
    let network = Network::of(&["b.test", "peer.test"]);
    let peer = Peer::start(&network, "peer.test", Clock::System.now_ms() - 1, nothing).await;
    let b = network.start(Engine::Sqlite, "b.test").await;
    b.register("bob").await;
    get_as(&b.anonymous(), &peer.signer, "b.test", PROFILE).await.error(401, "M_UNAUTHORIZED");
    assert_eq!(peer.asked(), 1);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_the_other_servers_fault() {
    let answers: [fn() -> Response; 7] = [
        || "not JSON".into_response(),
        || "[]".into_response(),
        || "x".repeat(2 << 20).into_response(),
        || (StatusCode::INTERNAL_SERVER_ERROR, "{}").into_response(),
        || (StatusCode::UNAUTHORIZED, "{}").into_response(),
        || (StatusCode::FOUND, [(LOCATION, "https://b.test/")]).into_response(),
        || (StatusCode::OK, [(LOCATION, "https://b.test/")], "{\"room_id\":7}").into_response(),
    ];
    for answer in answers {
        let network = Network::of(&["a.test", "peer.test"]);
        let _peer = Peer::start(&network, "peer.test", 0, answer).await;
        let a = network.start(Engine::Sqlite, "a.test").await;
        let alice = a.register("alice").await;
        alice.get(&v3(["directory", "room", "#tea:peer.test"])).await.error(502, "M_UNKNOWN");
    }
}

#[tokio::test]
async fn what_another_server_says_is_passed_on_in_the_right_form_only() {
    let network = Network::of(&["a.test", "peer.test"]);
    let answer =
        || r#"{"displayname":{"a":1},"avatar_url":"javascript:alert(1)","m.tz":"x","null":null}"#.into_response();
    let _peer = Peer::start(&network, "peer.test", 0, answer).await;
    let a = network.start(Engine::Sqlite, "a.test").await;
    let alice = a.register("alice").await;
    let profile = alice.get(&v3(["profile", "@x:peer.test"])).await.ok();
    assert_eq!(profile, serde_json::json!({ "m.tz": "x", "null": null }));
    alice.get(&v3(["profile", "@x:peer.test", "displayname"])).await.error(404, "M_NOT_FOUND");

    let refusing = Network::of(&["a.test", "peer.test"]);
    let _peer = Peer::start(&refusing, "peer.test", 0, || (StatusCode::FORBIDDEN, "{}").into_response()).await;
    let a = refusing.start(Engine::Sqlite, "a.test").await;
    a.register("alice").await.get(&v3(["profile", "@x:peer.test"])).await.error(403, "M_FORBIDDEN");
}

//! Requests to the server: through its router or over sockets, and with clients that hang up.
//!
//! In the router, a client hangs up as hyper does it: the future of the answer is dropped. Over a socket, the
//! connection ends after the whole request was sent or a part of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{Router, body::Body};
use http::Method;
use http_body_util::BodyExt as _;
use sabha::app::App;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};
use tower::ServiceExt as _;

use crate::{delays::yields, plan::Cut, world::World};

/// The text of a 503 of a process that does not lead any more, and stored nothing. A database that does not answer has
/// another text, and the write may go on.
const NOT_DONE: &str = "The server is busy or restarting.";

/// Returns the path of an endpoint below `/_matrix/client/v3`, with each segment percent-encoded.
pub fn v3<const N: usize>(segments: [&str; N]) -> String {
    segments.iter().fold("/_matrix/client/v3".to_owned(), |path, segment| path + "/" + &encoded(segment))
}

/// Percent-encodes a text for a path or a query.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

/// The connection to the server.
#[derive(Clone)]
pub enum Transport {
    Router(Router),
    Socket { address: SocketAddr, http: reqwest::Client },
}

/// A running server, or one of several processes.
#[derive(Clone)]
pub struct Open {
    pub transport: Transport,
    pub app: App,
}

/// The way of all clients into the server, or to the process that leads. A restart closes it for a while; requests then
/// wait.
pub struct Doors {
    open: RwLock<Option<Open>>,
    /// The number of times that they were closed.
    closed: AtomicU64,
}

/// The place of a request in the server.
struct Inside<'a> {
    open: Open,
    /// The number of times that the doors were closed before.
    closed: u64,
    /// Keeps the doors open.
    _guard: Option<RwLockReadGuard<'a, Open>>,
}

impl Doors {
    pub fn new(open: Open) -> Arc<Self> {
        Arc::new(Self { open: RwLock::new(Some(open)), closed: AtomicU64::new(0) })
    }

    /// Waits until the server runs. The doors do not close before the guard is dropped.
    async fn open(&self) -> RwLockReadGuard<'_, Open> {
        RwLockReadGuard::map(self.open.read().await, |open| open.as_ref().expect("they are opened again"))
    }

    /// Lets a request in. It must end before a restart. Where there are several processes, it may stay in one that does not
    /// lead any more.
    async fn enter(&self) -> Inside<'_> {
        let guard = self.open().await;
        let (open, closed) = (guard.clone(), self.closed.load(Ordering::SeqCst));
        let is_shared = open.app.db.committer().is_shared();
        Inside { open, closed, _guard: (!is_shared).then_some(guard) }
    }

    /// Returns the services of the running server. Drop them soon after `stopping`, which a restart waits for.
    pub async fn app(&self) -> App {
        self.open().await.app.clone()
    }

    /// Tells whether the server consists of several processes.
    pub async fn are_shared(&self) -> bool {
        self.app().await.db.committer().is_shared()
    }

    /// Lets no request in from now on, and waits for the answers to all that are inside and must end.
    pub async fn close(&self) -> RwLockWriteGuard<'_, Option<Open>> {
        let closed = self.open.write().await;
        self.closed.fetch_add(1, Ordering::SeqCst);
        closed
    }

    /// Tells whether the process may have lost the lease since the request came in.
    fn has_moved(&self, inside: &Inside<'_>) -> bool {
        inside.open.app.db.committer().is_shared() && self.closed.load(Ordering::SeqCst) > inside.closed
    }
}

/// A device that is signed in.
#[derive(Debug, Clone)]
pub struct Device {
    pub user_id: String,
    pub device_id: String,
    pub token: String,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None }
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, path: path.into(), body: None }
    }

    pub fn put(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::PUT, path: path.into(), body: Some(body) }
    }

    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::POST, path: path.into(), body: Some(body) }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
    pub json: Value,
    /// True if the process does not lead any more, and did not do what was asked for.
    pub is_elsewhere: bool,
}

/// The server's API for all clients of a run.
#[derive(Clone)]
pub struct Api {
    pub doors: Arc<Doors>,
    pub world: Arc<World>,
}

impl Api {
    /// Sends a request and returns the answer. A status that no client may ever see is a fault.
    pub async fn ask(&self, token: &str, request: &Request) -> Answer {
        let (status, text, is_elsewhere) = loop {
            let inside = self.doors.enter().await;
            let (status, text) = match &inside.open.transport {
                Transport::Router(router) => through_router(router.clone(), token, request).await,
                Transport::Socket { address, http } => through_socket(*address, http, token, request).await,
            };
            let has_moved = self.doors.has_moved(&inside);
            if has_moved {
                // A process that is behind does not wait for the position of a token yet (decision 17). So the client does.
                let position = inside.open.app.db.committer().published();
                self.doors.app().await.db.committer().reached(position).await;
            }
            let is_elsewhere = status == 503 && has_moved && text.contains(NOT_DONE);
            // A large sync that waits for its turn when the server stops is refused, and clients try again.
            let is_refused = is_elsewhere || status == 503 && inside.open.app.stopping.is_cancelled();
            if !is_refused || request.method != Method::GET {
                break (status, text, is_elsewhere);
            }
        };
        let json = serde_json::from_str(&text).unwrap_or_default();
        if status >= 500 && !is_elsewhere || status == 429 || status == 401 {
            self.world
                .fault("an honest request failed", format!("{} {}: {status} {text}", request.method, request.path));
        }
        Answer { status, text, json, is_elsewhere }
    }

    /// Sends a request to the process that leads, however often that is another one.
    pub async fn ask_the_leader(&self, token: &str, request: &Request) -> Answer {
        loop {
            let answer = self.ask(token, request).await;
            if !answer.is_elsewhere {
                return answer;
            }
        }
    }

    /// Returns the body of a 200. Anything else is a fault, and gives `null`.
    pub async fn need(&self, token: &str, request: &Request) -> Value {
        let answer = self.ask_the_leader(token, request).await;
        if answer.status != 200 {
            let Request { method, path, .. } = request;
            self.world.fault("a request was refused", format!("{method} {path}: {} {}", answer.status, answer.text));
            return Value::Null;
        }
        answer.json
    }

    /// Sends a request and hangs up, unless the answer arrives first.
    pub async fn ask_and_hang_up(&self, token: &str, request: &Request, cut: Cut) -> Option<Answer> {
        let inside = self.doors.enter().await;
        if let Transport::Socket { address, .. } = &inside.open.transport
            && cut.sent < 100
        {
            send_part(*address, token, request, cut).await;
            return None;
        }
        drop(inside);
        tokio::select! {
            biased;
            answer = self.ask(token, request) => Some(answer),
            () = yields(cut.after_yields) => None,
        }
    }

    /// Creates an account and signs it in.
    pub async fn register(&self, name: &str) -> Device {
        let body = json!({ "username": name, "password": "correct horse", "auth": { "type": "m.login.dummy" } });
        device(&self.need("", &Request::post("/_matrix/client/v3/register", body)).await)
    }

    /// Signs an account in on another device.
    pub async fn login(&self, user: &str) -> Device {
        let body = json!({
            "type": "m.login.password", "password": "correct horse", "identifier": { "type": "m.id.user", "user": user },
        });
        device(&self.need("", &Request::post("/_matrix/client/v3/login", body)).await)
    }
}

fn device(answer: &Value) -> Device {
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    Device { user_id: text("user_id"), device_id: text("device_id"), token: text("access_token") }
}

async fn through_router(router: Router, token: &str, request: &Request) -> (u16, String) {
    let mut builder = http::Request::builder().method(request.method.clone()).uri(&request.path);
    if !token.is_empty() {
        builder = builder.header("authorization", format!("Bearer {token}"));
    }
    let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
    let request = builder.header("content-type", "application/json").body(Body::from(body)).expect("a request");
    let Ok(answer) = router.oneshot(request).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body in memory").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn through_socket(address: SocketAddr, http: &reqwest::Client, token: &str, request: &Request) -> (u16, String) {
    let mut builder = http.request(request.method.clone(), format!("http://{address}{}", request.path));
    if !token.is_empty() {
        builder = builder.bearer_auth(token);
    }
    if let Some(body) = &request.body {
        builder = builder.json(body);
    }
    match builder.send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            (status, answer.text().await.unwrap_or_default())
        }
        Err(error) => (599, format!("no answer: {error:?}")),
    }
}

/// Sends a part of a request and closes the connection.
async fn send_part(address: SocketAddr, token: &str, request: &Request, cut: Cut) {
    let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
    let whole = format!(
        "{} {} HTTP/1.1\r\nhost: model\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        request.method,
        request.path,
        body.len()
    );
    let part = whole.len() * cut.sent as usize / 100;
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    // An error is fine: the server may have closed the connection already.
    let _ = stream.write_all(&whole.as_bytes()[..part]).await;
    yields(cut.after_yields).await;
}

//! A client: sends requests, and checks every answer against the specification.

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::{TestServer, server::PASSWORD, shapes::Shapes};

/// Returns the path of an endpoint below `/_matrix/client/v3`, with each segment percent-encoded.
pub fn v3<const N: usize>(segments: [&str; N]) -> String {
    let encode = |segment: &str| {
        segment.bytes().fold(String::new(), |mut text, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
            text
        })
    };
    segments.iter().fold("/_matrix/client/v3".to_owned(), |path, segment| path + "/" + &encode(segment))
}

/// A user of a server, or an anonymous client. Clones are the same device.
#[derive(Debug, Clone)]
pub struct Client {
    /// Empty for an anonymous client, like `device_id`.
    pub user_id: String,
    pub device_id: String,
    pub token: Option<String>,
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub(super) fn new(http: reqwest::Client, base: String) -> Self {
        Self { user_id: String::new(), device_id: String::new(), token: None, http, base }
    }

    /// The same device, as a client of another process on the same database.
    pub fn at(&self, server: &TestServer) -> Self {
        Self { base: server.base().to_owned(), ..self.clone() }
    }

    /// A client with a token that does not come from a login: an application service.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Returns the client that the answer of a login or a registration signs in.
    ///
    /// # Panics
    /// When the answer names no device.
    pub fn signed_in(&self, answer: &Value) -> Self {
        let text =
            |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {answer}")).to_owned();
        Self {
            user_id: text("user_id"),
            device_id: text("device_id"),
            token: Some(text("access_token")),
            ..self.clone()
        }
    }

    /// Signs an account in with its password, on a new device.
    pub async fn login(&self, user: &str, password: &str) -> Self {
        let body = json!({
            "type": "m.login.password", "password": password, "identifier": { "type": "m.id.user", "user": user },
        });
        let anonymous = Self { token: None, ..self.clone() };
        let answer = anonymous.post(&v3(["login"]), body).await.ok();
        self.signed_in(&answer)
    }

    /// Signs the same user in on another device.
    pub async fn login_again(&self) -> Self {
        self.login(&self.user_id, PASSWORD).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path, None).await
    }

    pub async fn put(&self, path: &str, json: Value) -> Response {
        self.request(Method::PUT, path, Some(json.to_string())).await
    }

    pub async fn post(&self, path: &str, json: Value) -> Response {
        self.request(Method::POST, path, Some(json.to_string())).await
    }

    pub async fn delete(&self, path: &str, json: Value) -> Response {
        self.request(Method::DELETE, path, Some(json.to_string())).await
    }

    /// Sends any request, even one whose body is not JSON.
    ///
    /// # Panics
    /// When the server does not answer, or when the specification does not allow its answer.
    pub async fn request(&self, method: Method, path: &str, body: Option<String>) -> Response {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        self.request_as(authorization.as_deref(), method, path, body).await
    }

    /// Sends a request with any `Authorization` header, for example that of another server.
    ///
    /// # Panics
    /// As [`Self::request`].
    pub async fn request_as(
        &self,
        authorization: Option<&str>,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Response {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let asked = format!("{method} {path}");
        let answer = request.send().await.unwrap_or_else(|error| panic!("{asked}: {error}"));
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.unwrap_or_else(|error| panic!("{asked}: {error}"));
        let json = checked(&method, path, status, &headers, &text);
        Response { status, headers, json, text, asked }
    }

    /// Creates a room and returns its ID.
    pub async fn create_room(&self, json: Value) -> String {
        let answer = self.post(&v3(["createRoom"]), json).await.ok();
        answer["room_id"].as_str().expect("a checked answer has it").to_owned()
    }

    /// Sends a text message and returns its event ID.
    pub async fn send_text(&self, room: &str, txn: &str, body: &str) -> String {
        self.send(room, "m.room.message", txn, json!({ "msgtype": "m.text", "body": body })).await
    }

    /// Sends an event and returns its ID.
    pub async fn send(&self, room: &str, event_type: &str, txn: &str, content: Value) -> String {
        let answer = self.put(&v3(["rooms", room, "send", event_type, txn]), content).await.ok();
        answer["event_id"].as_str().expect("a checked answer has it").to_owned()
    }

    /// Sets state and returns the event's ID.
    pub async fn set_state(&self, room: &str, event_type: &str, state_key: &str, content: Value) -> String {
        let answer = self.put(&v3(["rooms", room, "state", event_type, state_key]), content).await.ok();
        answer["event_id"].as_str().expect("a checked answer has it").to_owned()
    }

    pub async fn invite(&self, room: &str, user_id: &str) {
        self.post(&v3(["rooms", room, "invite"]), json!({ "user_id": user_id })).await.ok();
    }

    pub async fn join(&self, room: &str) {
        self.post(&v3(["join", room]), json!({})).await.ok();
    }

    pub async fn leave(&self, room: &str) {
        self.post(&v3(["rooms", room, "leave"]), json!({})).await.ok();
    }

    /// Returns all events of the room that the user may see, oldest first.
    pub async fn timeline(&self, room: &str) -> Vec<Value> {
        let (mut events, mut from) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{}?dir=f&limit=100{from}", v3(["rooms", room, "messages"]))).await.ok();
            let chunk = page["chunk"].as_array().expect("a checked answer has it");
            events.extend(chunk.iter().cloned());
            // At the live end, the token stays the same.
            match page["end"].as_str().filter(|_| !chunk.is_empty()) {
                Some(end) => from = format!("&from={end}"),
                None => return events,
            }
        }
    }

    /// Syncs without waiting: everything if `since` is `None`.
    pub async fn sync(&self, since: Option<&str>) -> Value {
        self.sync_with(since, "timeout=0").await
    }

    /// Sends `/sync` with further parameters, such as `timeout=30000&full_state=true`.
    pub async fn sync_with(&self, since: Option<&str>, parameters: &str) -> Value {
        let since = since.map_or_else(String::new, |since| format!("since={since}&"));
        self.get(&format!("/_matrix/client/v3/sync?{since}{parameters}")).await.ok()
    }
}

/// Returns the body as JSON, after a check of its shape; `null` if it is something else, such as a page.
fn checked(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, text: &str) -> Value {
    let shapes = Shapes::load();
    // The specification describes the page for authentication stages only in words.
    let is_page = path.contains("/fallback/web");
    let is_matrix = !is_page && (path.starts_with("/_matrix/") || path.starts_with("/.well-known/"));
    let is_json = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json && (!is_matrix || !shapes.expects_json(method, path, status)) {
        return Value::Null;
    }
    assert!(is_json, "{method} {path}: {status} without JSON: {text:?}");
    let json =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{method} {path}: {status} {error} in {text:?}"));
    if is_matrix && let Err(violations) = shapes.check(method, path, status, &json) {
        let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
        panic!("{method} {path}: {status} is not as specified:\n  {}\n{json:#}", lines.join("\n  "));
    }
    json
}

/// An answer that was checked.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
    pub text: String,
    asked: String,
}

impl Response {
    /// Returns the body of a 200.
    ///
    /// # Panics
    /// With the answer, when it is a different one.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}: {}", self.asked, self.text);
        self.json
    }

    /// Returns the body of the expected error.
    ///
    /// # Panics
    /// With the answer, when it is a different one.
    #[track_caller]
    pub fn error(self, status: u16, errcode: &str) -> Value {
        let found = (self.status.as_u16(), self.json["errcode"].as_str().unwrap_or("no errcode"));
        assert_eq!(found, (status, errcode), "{}: {}", self.asked, self.text);
        self.json
    }
}

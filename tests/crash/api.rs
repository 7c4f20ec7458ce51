//! Requests to a server that may die at any moment.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use reqwest::Method;
use serde_json::{Value, json};

/// The result of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A complete answer with a 2xx status: the server's promise.
    Answered(Value),
    /// No answer, because the server was killed. The checks find out whether the request took effect.
    Lost,
}

/// A client of one life of a server.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    killed: Arc<AtomicBool>,
}

impl Api {
    pub fn new(base: String, killed: Arc<AtomicBool>) -> Self {
        let http = reqwest::Client::builder().timeout(std::time::Duration::from_secs(30)).build().expect("a client");
        Self { http, base, killed }
    }

    /// Sends a request once.
    ///
    /// # Panics
    /// When a living server refuses or does not answer: no test sends a request here that may be refused.
    pub async fn ask(&self, method: Method, path: &str, token: &str, body: Option<&Value>) -> Outcome {
        let mut request = self.http.request(method.clone(), format!("{}/_matrix/client/v3{path}", self.base));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.json::<Value>().await?))
        };
        match answer.await {
            Ok((status, json)) if status.is_success() => Outcome::Answered(json),
            Ok((status, json)) => panic!("{method} {path}: {status} {json}"),
            Err(error) if self.killed.load(Ordering::SeqCst) => {
                let _ = error;
                Outcome::Lost
            }
            Err(error) => panic!("{method} {path}: a living server gave no answer: {error:?}"),
        }
    }

    /// Sends a request to a server that is not killed.
    pub async fn sure(&self, method: Method, path: &str, token: &str, body: Option<&Value>) -> Value {
        match self.ask(method.clone(), path, token, body).await {
            Outcome::Answered(json) => json,
            Outcome::Lost => panic!("{method} {path}: the server was killed during the checks"),
        }
    }

    pub async fn get(&self, path: &str, token: &str) -> Value {
        self.sure(Method::GET, path, token, None).await
    }

    /// Sends a GET. `None` for a 404.
    pub async fn find(&self, path: &str, token: &str) -> Option<Value> {
        let request = self.http.get(format!("{}/_matrix/client/v3{path}", self.base)).bearer_auth(token);
        let answer = request.send().await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        let status = answer.status();
        let json: Value = answer.json().await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        match status.as_u16() {
            404 => None,
            200 => Some(json),
            _ => panic!("GET {path}: {status} {json}"),
        }
    }

    /// Sends a request that the server may refuse. `path` is the complete path.
    pub async fn any(&self, method: Method, path: &str, token: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_any(method, path, token, body).await.unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// As [`Self::any`], for a server that may end. `None` without an answer.
    pub async fn try_any(&self, method: Method, path: &str, token: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    /// Returns only the status.
    pub async fn status(&self, path: &str, token: &str) -> u16 {
        let request = self.http.get(format!("{}/_matrix/client/v3{path}", self.base)).bearer_auth(token);
        request.send().await.unwrap_or_else(|error| panic!("GET {path}: {error}")).status().as_u16()
    }

    pub async fn put(&self, path: &str, token: &str, body: &Value) -> Value {
        self.sure(Method::PUT, path, token, Some(body)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Value {
        self.sure(Method::POST, path, token, Some(body)).await
    }

    /// Creates an account and returns the answer.
    pub async fn register(&self, name: &str) -> Value {
        let body =
            json!({ "username": name, "password": "correct horse battery", "auth": { "type": "m.login.dummy" } });
        self.post("/register", "", &body).await
    }
}

/// Percent-encodes one segment of a path.
pub fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

/// Returns a text of an answer, which must exist.
#[track_caller]
pub fn text<'a>(json: &'a Value, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {json}"))
}

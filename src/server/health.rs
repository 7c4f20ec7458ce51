//! The health endpoints: `/health` for whether the server is alive, `/ready` for whether it can serve.
//!
//! `/health` answers as long as the process runs its tasks, and checks nothing else: an unavailable database is no
//! reason to restart us. It names the server ([`Identity`]), so that `sabha healthcheck` does not mistake another
//! program on the port for this server. `/ready` runs the checks it was given; on 503 a load balancer stops sending us
//! requests.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;

/// The result of each check: its name, and the problem in one line. It must hold no secrets, because anyone may read
/// it.
pub type Checks = Vec<(&'static str, Result<(), String>)>;

/// Runs the checks. It must finish by itself: a check that may hang needs a timeout.
pub type RunChecks = dyn Fn() -> Pin<Box<dyn Future<Output = Checks> + Send>> + Send + Sync;

/// The header of `/health` that identifies the server.
pub const IDENTITY: HeaderName = HeaderName::from_static("sabha-server");

/// The identity of a server: its name and the ID of its signing key, which is also in every answer of
/// `/_matrix/key/v2/server`. Two test servers may share a name, but never a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub server_name: String,
    pub key_id: String,
}

impl Identity {
    /// Returns the value of the [`IDENTITY`] header.
    fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("{} {}", self.server_name, self.key_id)).ok()
    }

    /// Parses a value of [`IDENTITY`].
    pub fn from_header(value: &str) -> Option<Self> {
        let (server_name, key_id) = value.trim().split_once(' ')?;
        Some(Self { server_name: server_name.to_owned(), key_id: key_id.to_owned() })
    }
}

const HEALTH: &str = "/health";
const READY: &str = "/ready";

pub(super) const ROUTES: [(Method, &str); 2] = [(Method::GET, HEALTH), (Method::GET, READY)];

/// `GET /health` and `GET /ready`.
///
/// The identity is asked for each time, because the signing key can be replaced.
pub fn router(identity: impl Fn() -> Identity + Clone + Send + Sync + 'static, run_checks: Arc<RunChecks>) -> Router {
    Router::new()
        .route(
            HEALTH,
            get(move || {
                // Server names and key IDs are ASCII.
                let identity = identity().to_header().unwrap_or(HeaderValue::from_static("?"));
                let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-store")), (IDENTITY, identity)];
                async move { (headers, "OK") }
            }),
        )
        .route(READY, get(async move || ready(&run_checks().await)))
}

#[derive(Serialize)]
struct Readiness<'a> {
    ready: bool,
    checks: Vec<CheckResult<'a>>,
}

#[derive(Serialize)]
struct CheckResult<'a> {
    name: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

fn ready(checks: &Checks) -> Response {
    let checks: Vec<_> = checks
        .iter()
        .map(|(name, found)| CheckResult { name, ok: found.is_ok(), error: found.as_ref().err().map(String::as_str) })
        .collect();
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&Readiness { ready, checks }) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, database: Result<(), String>) -> (StatusCode, String) {
        let identity = Identity { server_name: "example.com".to_owned(), key_id: "ed25519:a_1".to_owned() };
        let router = router(
            move || identity.clone(),
            Arc::new(move || {
                let database = database.clone();
                Box::pin(async move { vec![("database", database), ("bus", Ok(()))] })
            }),
        );
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_says_which_check_failed() {
        let (status, body) = ask("/ready", Err("no connection".to_owned())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let body: Value = serde_json::from_str(&body).unwrap();
        let checks =
            json!([{ "name": "database", "ok": false, "error": "no connection" }, { "name": "bus", "ok": true }]);
        assert_eq!(body, json!({ "ready": false, "checks": checks }));

        let (status, body) = ask("/ready", Ok(())).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains(r#""ready":true"#), "{body}");
    }

    #[test]
    fn an_identity_is_read_back() {
        let identity = Identity { server_name: "[::1]:8448".to_owned(), key_id: "ed25519:a_1".to_owned() };
        let header = identity.to_header().unwrap();
        assert_eq!(Identity::from_header(header.to_str().unwrap()), Some(identity));
        assert_eq!(Identity::from_header("nginx"), None);
    }

    #[tokio::test]
    async fn health_asks_no_checks() {
        assert_eq!(ask("/health", Err("no connection".to_owned())).await, (StatusCode::OK, "OK".to_owned()));
    }
}

//! Whether the server lives (`/health`) and whether it can serve (`/ready`).
//!
//! `/health` answers as long as the process runs its tasks, and looks at nothing else: a database that is away is no
//! reason to restart us. `/ready` runs the checks it was given; 503 takes us out of a load balancer.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, StatusCode};
use serde::Serialize;

/// What each check found: its name, and in one line what is wrong. No secrets in it; anybody may read them.
pub type Checks = Vec<(&'static str, Result<(), String>)>;

/// Runs the checks. Must come to an end by itself: a check of something that hangs needs a timeout.
pub type RunChecks = dyn Fn() -> Pin<Box<dyn Future<Output = Checks> + Send>> + Send + Sync;

const HEALTH: &str = "/health";
const READY: &str = "/ready";

pub(super) const ROUTES: [(Method, &str); 2] = [(Method::GET, HEALTH), (Method::GET, READY)];

/// `GET /health` and `GET /ready`.
pub fn router(run_checks: Arc<RunChecks>) -> Router {
    Router::new()
        .route(HEALTH, get(async || ([(CACHE_CONTROL, "no-store")], "OK")))
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
        let router = router(Arc::new(move || {
            let database = database.clone();
            Box::pin(async move { vec![("database", database), ("bus", Ok(()))] })
        }));
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

    #[tokio::test]
    async fn health_asks_no_checks() {
        assert_eq!(ask("/health", Err("no connection".to_owned())).await, (StatusCode::OK, "OK".to_owned()));
    }
}

//! One span and one measurement for each request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument as _, debug, debug_span};

/// Runs the request in a span that names its endpoint, and records how long it took.
///
/// The path is the endpoint's template, so text from a client's path appears in neither logs nor metrics.
pub(super) async fn trace(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // An unknown path is a client's text, and there may be endlessly many.
    let path = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let span = debug_span!("request", %method, path);
    let response = next.run(request).instrument(span.clone()).await;
    let duration = started.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| debug!(status, duration_ms = duration.as_secs_f64() * 1000.0, "answered"));
    // A long poll waits on purpose; its time would hide all others.
    if !path.ends_with("/sync") {
        let status_class = format!("{}xx", status / 100);
        metrics::histogram!("sabha_http_request_seconds", "method" => method.to_string(), "path" => path, "status" => status_class)
            .record(duration.as_secs_f64());
    }
    response
}

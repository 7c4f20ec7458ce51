//! One span and one measurement for each request.
//!
//! A layer of our own instead of a middleware function of axum, because a parked request would keep the space of the
//! function's future, twice the size of this layer's.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    response::Response,
};
use tower::{Layer, Service};
use tracing::{Instrument as _, debug, debug_span, instrument::Instrumented};

/// Runs each request in a span that names its endpoint, and records how long it took.
///
/// The path is the endpoint's template, so text from a client's path appears in neither logs nor metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// A service whose requests are traced.
#[derive(Debug, Clone)]
pub(super) struct Traced<S> {
    inner: S,
}

impl<S> Service<Request> for Traced<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = TracedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let started = Instant::now();
        let method = request.method().clone();
        let path = request.extensions().get::<MatchedPath>().cloned();
        let span = debug_span!("request", %method, path = template(path.as_ref()));
        let answer = span.in_scope(|| self.inner.call(request)).instrument(span);
        TracedFuture { answer, started, method, path }
    }
}

/// An unknown path is a client's text, and there may be endlessly many.
fn template(path: Option<&MatchedPath>) -> &str {
    path.map_or("unknown", MatchedPath::as_str)
}

/// The answer of a [`Traced`] service.
pub(super) struct TracedFuture<F> {
    answer: Instrumented<F>,
    started: Instant,
    method: Method,
    path: Option<MatchedPath>,
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for TracedFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.answer).poll(cx));
        let duration = self.started.elapsed();
        let status = response.status().as_u16();
        self.answer.span().in_scope(|| debug!(status, duration_ms = duration.as_secs_f64() * 1000.0, "answered"));
        let path = template(self.path.as_ref());
        // A long poll waits on purpose; its time would hide all others.
        if !path.ends_with("/sync") {
            let (method, path, status_class) =
                (self.method.to_string(), path.to_owned(), format!("{}xx", status / 100));
            metrics::histogram!("sabha_http_request_seconds", "method" => method, "path" => path, "status" => status_class)
                .record(duration.as_secs_f64());
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::future::RouteFuture;

    use super::*;

    #[test]
    fn a_parked_request_keeps_little() {
        let inner_bytes = size_of::<RouteFuture<Infallible>>();
        let size_bytes = size_of::<TracedFuture<RouteFuture<Infallible>>>();
        assert!(size_bytes <= inner_bytes + 128, "{size_bytes} bytes");
    }
}

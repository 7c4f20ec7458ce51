//! The headers that let Matrix clients run in browsers ([spec]).
//!
//! Promise: every answer carries these headers. A browser's OPTIONS request is answered here for every path, known or
//! not, without authentication and without reaching a handler. This is for the client-server API and media; other
//! servers are not browsers.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tower::{Layer, Service};

const ORIGIN: HeaderValue = HeaderValue::from_static("*");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS");
const HEADERS: HeaderValue = HeaderValue::from_static("X-Requested-With, Content-Type, Authorization");
/// Seconds for which a browser may cache the answer: a day, which browsers may shorten (Chromium to two hours). Without
/// it they ask again every five seconds, which doubles the requests of a web client. The answer never changes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Puts [`Cors`] around a service.
#[derive(Debug, Clone, Copy, Default)]
pub struct CorsLayer;

impl<S> Layer<S> for CorsLayer {
    type Service = Cors<S>;

    fn layer(&self, inner: S) -> Cors<S> {
        Cors { inner }
    }
}

/// A service that browsers on other sites may use.
#[derive(Debug, Clone)]
pub struct Cors<S> {
    inner: S,
}

impl<S> Service<Request> for Cors<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = CorsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.method() == Method::OPTIONS {
            CorsFuture::Preflight
        } else {
            CorsFuture::Answer(self.inner.call(request))
        }
    }
}

/// The answer of a [`Cors`] service.
pub enum CorsFuture<F> {
    Preflight,
    Answer(F),
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for CorsFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut *self {
            Self::Preflight => preflight(),
            Self::Answer(answer) => {
                let Ok(mut response) = ready!(Pin::new(answer).poll(cx));
                allow(response.headers_mut());
                response
            }
        };
        Poll::Ready(Ok(response))
    }
}

fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow(response.headers_mut());
    response.headers_mut().insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

fn allow(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    /// The status and the headers for a request to a router with only `GET /known`.
    async fn ask(method: Method, path: &str) -> (StatusCode, HeaderMap) {
        let known = get(async || (StatusCode::UNAUTHORIZED, "no token"));
        let router = super::super::tracked::TrackedLayer::new(tokio_util::task::TaskTracker::new())
            .layer(Router::new().route("/known", known));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = CorsLayer.layer(router).oneshot(request).await.unwrap();
        (response.status(), response.headers().clone())
    }

    fn assert_allowed(headers: &HeaderMap) {
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, POST, PUT, DELETE, OPTIONS");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "X-Requested-With, Content-Type, Authorization");
    }

    #[tokio::test]
    async fn every_preflight_is_answered_without_a_handler() {
        for path in ["/known", "/unknown"] {
            let (status, headers) = ask(Method::OPTIONS, path).await;
            assert_eq!(status, StatusCode::NO_CONTENT);
            assert_allowed(&headers);
        }
    }

    #[tokio::test]
    async fn errors_carry_the_headers_too() {
        for (path, expected) in [("/known", StatusCode::UNAUTHORIZED), ("/unknown", StatusCode::NOT_FOUND)] {
            let (status, headers) = ask(Method::GET, path).await;
            assert_eq!(status, expected);
            assert_allowed(&headers);
        }
    }
}

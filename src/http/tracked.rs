//! Requests that must not stop halfway.
//!
//! hyper drops a handler's future when its client hangs up, at any `.await`. That is right for a read: no one wants the
//! answer of an abandoned `/sync`. But a request that changes data would be left half done. So the handlers of PUT, POST,
//! PATCH and DELETE go on in a task of their own when they are dropped. Most are not: they run where they are polled, and no
//! other task has to be woken for them.
//!
//! When the database does not answer, a client that waits for such a request is told to retry. The request itself
//! continues, so that it either succeeds or fails as a whole.
//!
//! Promise, for every method: a panic becomes a 500 with `M_UNKNOWN` and an error in the log, never a lost connection.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::{Layer, Service};
use tracing::{Instrument, Span, error};

use super::ApiError;

/// Puts [`Tracked`] around a service.
#[derive(Clone)]
pub struct TrackedLayer {
    tasks: TaskTracker,
    too_long: Option<Arc<TooLong>>,
}

/// Makes a future that ends when the client of a request that begins now should wait no longer for its answer.
type TooLong = dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

impl TrackedLayer {
    /// `tasks` waits for the requests at shutdown: [`super::shutdown::Shutdown::tasks`].
    #[must_use]
    pub fn new(tasks: TaskTracker) -> Self {
        Self { tasks, too_long: None }
    }

    /// Answers a writing request with 503 once the future that `too_long` makes has ended. The request continues to its
    /// end.
    #[must_use]
    pub fn waits_until<F>(self, too_long: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { too_long: Some(Arc::new(move || Box::pin(too_long()))), ..self }
    }
}

impl<S> Layer<S> for TrackedLayer {
    type Service = Tracked<S>;

    fn layer(&self, inner: S) -> Tracked<S> {
        Tracked { inner, tasks: self.tasks.clone(), too_long: self.too_long.clone() }
    }
}

/// A service whose writing requests run to their end.
#[derive(Clone)]
pub struct Tracked<S> {
    inner: S,
    tasks: TaskTracker,
    too_long: Option<Arc<TooLong>>,
}

impl<S> Service<Request> for Tracked<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = TrackedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let writes = matches!(*request.method(), Method::PUT | Method::POST | Method::PATCH | Method::DELETE);
        let answer = Guarded(Box::pin(self.inner.call(request)));
        if writes {
            TrackedFuture::Writes(Writing {
                running: Some((answer, self.tasks.token())),
                too_long: self.too_long.as_ref().map(|too_long| too_long()),
                span: Span::current(),
            })
        } else {
            TrackedFuture::Reads(answer)
        }
    }
}

/// The answer of a [`Tracked`] service.
pub enum TrackedFuture<F: Future<Output = Result<Response, Infallible>> + Send + 'static> {
    /// Stops when it is dropped.
    Reads(Guarded<F>),
    /// Goes on when it is dropped.
    Writes(Writing<F>),
}

impl<F: Future<Output = Result<Response, Infallible>> + Send + 'static> Future for TrackedFuture<F> {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Reads(answer) => Pin::new(answer).poll(cx),
            Self::Writes(writing) => writing.poll(cx),
        }
        .map(Ok)
    }
}

/// A handler that runs to its end: here, or in a task of its own once nobody waits for it.
pub struct Writing<F: Future<Output = Result<Response, Infallible>> + Send + 'static> {
    /// The handler, with the token that lets the shutdown wait for it. `None` when it has ended, or goes on in its own task.
    running: Option<(Guarded<F>, TaskTrackerToken)>,
    too_long: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    span: Span,
}

impl<F: Future<Output = Result<Response, Infallible>> + Send + 'static> Writing<F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        let Some((answer, _)) = &mut self.running else { return Poll::Ready(internal_error()) };
        if let Poll::Ready(response) = Pin::new(answer).poll(cx) {
            self.running = None;
            return Poll::Ready(response);
        }
        let Some(too_long) = &mut self.too_long else { return Poll::Pending };
        ready!(too_long.as_mut().poll(cx));
        self.leave();
        let error = ApiError::database_away(
            "The server waits for its database. What you asked for may be done or not: please ask again.",
        );
        Poll::Ready(error.into_response())
    }

    /// Lets the handler go on in its own task.
    fn leave(&mut self) {
        // Without a runtime nothing could go on.
        if let Some((answer, counted)) = self.running.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let goes_on = async move {
                let _response = answer.await;
                drop(counted);
            };
            runtime.spawn(goes_on.instrument(self.span.clone()));
        }
    }
}

impl<F: Future<Output = Result<Response, Infallible>> + Send + 'static> Drop for Writing<F> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A handler's future that turns a panic into an answer. Boxed, because it is large and is moved into a task or a
/// connection.
pub struct Guarded<F>(Pin<Box<F>>);

impl<F: Future<Output = Result<Response, Infallible>>> Future for Guarded<F> {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        // Unwind safe in the sense that matters: after a panic the future is never polled again, only dropped.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(|Ok(response)| response),
            Err(panic) => {
                error!(error = panic_message(&*panic), "request handler panicked");
                Poll::Ready(internal_error())
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn internal_error() -> Response {
    let mut response = Response::new(Body::from(r#"{"errcode":"M_UNKNOWN","error":"Internal server error."}"#));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;

//! Requests wait while this process does not know whether what it has in memory is current.
//!
//! After a pause another process may write to the database ([`Committer::is_current`]). The database is asked then, before a
//! request is answered. If it does not say so in time, the client is told to retry.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    response::{IntoResponse as _, Response},
};
use tower::{Layer, Service, ServiceExt as _};

use crate::{http::ApiError, store::Committer};

/// The beginnings of paths that name no data. Other servers remember for an hour that these failed.
const SAME_FOR_EVER: [&str; 2] = ["/.well-known/", "/_matrix/key/v2/server"];

/// Puts [`WhileCurrent`] around a service.
#[derive(Clone)]
pub(super) struct CurrentLayer(pub(super) Committer);

impl<S> Layer<S> for CurrentLayer {
    type Service = WhileCurrent<S>;

    fn layer(&self, inner: S) -> WhileCurrent<S> {
        WhileCurrent { inner, committer: self.0.clone() }
    }
}

/// A service that is asked only while the process is current.
#[derive(Clone)]
pub(super) struct WhileCurrent<S> {
    inner: S,
    committer: Committer,
}

impl<S> Service<Request> for WhileCurrent<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = CurrentFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let is_current = self.committer.is_current();
        if is_current || SAME_FOR_EVER.iter().any(|path| request.uri().path().starts_with(path)) {
            return CurrentFuture::AtOnce(self.inner.call(request));
        }
        let Self { inner, committer } = self.clone();
        CurrentFuture::Later(Box::pin(async move {
            match committer.current().await {
                Ok(()) => inner.oneshot(request).await,
                Err(error) => Ok(ApiError::from(error).into_response()),
            }
        }))
    }
}

/// The answer of a [`WhileCurrent`] service.
pub(super) enum CurrentFuture<F> {
    AtOnce(F),
    Later(Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>),
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for CurrentFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::AtOnce(answer) => Pin::new(answer).poll(cx),
            Self::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

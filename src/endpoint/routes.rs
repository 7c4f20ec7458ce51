//! The route table: it maps each request type to its handler and to the action of its rate limit.

use std::{pin::Pin, sync::Arc};

use axum::{
    Router,
    extract::{FromRequest as _, Request, State},
    handler::Handler,
    http::Method,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use ruma::api::{IncomingRequest, Metadata, auth_scheme::AuthScheme, path_builder::PathBuilder as _};

use super::{Authed, Authenticate, WaitsFor};
use crate::{app::App, http::ApiError, limits::rate_limits::Action};

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Endpoint = Arc<dyn Fn(App, Request) -> Answer + Send + Sync>;

/// An endpoint as a handler. axum would keep the parts of a request beside the future of a function until it ends.
#[derive(Clone)]
struct Erased(Endpoint);

impl Handler<(), App> for Erased {
    type Future = Answer;

    fn call(self, request: Request, app: App) -> Answer {
        (self.0)(app, request)
    }
}

/// Endpoints of one API. All handlers are erased to one type, which keeps the code small with hundreds of them.
#[derive(Default)]
pub struct Routes {
    router: Router<App>,
    list: Vec<(Method, &'static str)>,
}

impl Routes {
    /// Serves a request type on all its paths, stable and unstable.
    #[must_use]
    pub fn serve<R, H, F, T>(self, action: Action, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        <R::Authentication as AuthScheme>::Output: Send,
        H: Fn(State<App>, Authed<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send,
        T: IntoResponse,
    {
        self.serve_waiting(None, action, handler)
    }

    /// As [`Self::serve`], for a handler that waits for something outside, perhaps for seconds.
    #[must_use]
    pub fn serve_waiting<R, H, F, T>(
        mut self,
        waits_for: impl Into<Option<WaitsFor>>,
        action: Action,
        handler: H,
    ) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        <R::Authentication as AuthScheme>::Output: Send,
        H: Fn(State<App>, Authed<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send,
        T: IntoResponse,
    {
        let endpoint = endpoint(action, waits_for.into(), handler);
        for path in <R as Metadata>::PATH_BUILDER.all_paths() {
            self = self.add(<R as Metadata>::METHOD, path, Arc::clone(&endpoint));
        }
        self
    }

    /// Serves a request type on further paths that ruma's type does not name but can parse.
    #[must_use]
    pub fn serve_at<R, H, F, T>(mut self, paths: &[&'static str], action: Action, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        <R::Authentication as AuthScheme>::Output: Send,
        H: Fn(State<App>, Authed<R>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send,
        T: IntoResponse,
    {
        let endpoint = endpoint(action, None, handler);
        for path in paths {
            self = self.add(<R as Metadata>::METHOD, path, Arc::clone(&endpoint));
        }
        self
    }

    /// Serves an endpoint that ruma has no request type for. The handler authenticates by itself.
    #[must_use]
    pub fn serve_raw<H, F, T>(self, method: Method, path: &'static str, action: Action, handler: H) -> Self
    where
        H: Fn(App, Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
        T: IntoResponse,
    {
        let handler = Arc::new(handler);
        self.add(
            method,
            path,
            Arc::new(move |app, mut request| {
                request.extensions_mut().insert(action);
                // In its own box; otherwise the block below would hold it twice: as captured and as awaited.
                let answer = Box::pin(handler(app, request));
                Box::pin(async move {
                    match answer.await {
                        Ok(reply) => reply.into_response(),
                        Err(error) => error.into_response(),
                    }
                })
            }),
        )
    }

    fn add(mut self, method: Method, path: &'static str, endpoint: Endpoint) -> Self {
        let filter = MethodFilter::try_from(method.clone()).expect("Matrix uses only the common HTTP methods");
        self.router = self.router.route(path, on(filter, Erased(endpoint)));
        self.list.push((method, path));
        self
    }

    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.list.extend(other.list);
        self
    }

    /// All served methods and paths.
    pub fn list(&self) -> &[(Method, &'static str)] {
        &self.list
    }

    /// Builds the router. It answers unknown paths and methods with `M_UNRECOGNIZED`.
    pub fn into_router(self) -> Router<App> {
        self.router
            .fallback(|| async { ApiError::unrecognized() })
            .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
    }
}

/// Erases the types of a handler.
fn endpoint<R, H, F, T>(action: Action, waits_for: Option<WaitsFor>, handler: H) -> Endpoint
where
    R: IncomingRequest + Send + 'static,
    R::Authentication: Authenticate,
    <R::Authentication as AuthScheme>::Output: Send,
    H: Fn(State<App>, Authed<R>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<T, ApiError>> + Send,
    T: IntoResponse,
{
    let handler = Arc::new(handler);
    Arc::new(move |app, mut request| {
        let handler = Arc::clone(&handler);
        request.extensions_mut().insert(action);
        if let Some(waits_for) = waits_for {
            request.extensions_mut().insert(waits_for);
        }
        Box::pin(async move {
            match Authed::<R>::from_request(request, &app).await {
                Ok(mut authed) => {
                    // Here, because a handler takes the request apart.
                    let _parsed = authed.parsed.take();
                    match handler(State(app), authed).await {
                        Ok(reply) => reply.into_response(),
                        Err(error) => error.into_response(),
                    }
                }
                Err(error) => error.into_response(),
            }
        })
    })
}

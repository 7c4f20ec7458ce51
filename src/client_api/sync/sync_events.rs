//! `GET /_matrix/client/v3/sync` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequest as _, Request},
    http::{StatusCode, Uri},
};
use ruma::api::{
    client::{
        filter::FilterDefinition,
        sync::sync_events::v3::{Filter, Request as Endpoint},
    },
    error::ErrorKind,
};
use serde::de::IgnoredAny;
use tracing::{Instrument as _, debug_span};

use crate::{
    account::{AuthenticateError, LocalDevice},
    app::App,
    endpoint::Authed,
    filter::{Definition, SyncFilter, timeline_fields_in_query},
    http::{ApiError, RawJson},
    sync::{
        token::{Hints, InvalidToken, SyncToken},
        v3::{self, SyncError},
    },
};

/// The unstable name of `use_state_after`, which matrix-js-sdk sends.
const UNSTABLE_STATE_AFTER: &str = "org.matrix.msc4222.use_state_after";

/// Returns the changes since the client's last sync, and waits for one if there are none.
pub(super) fn handle(app: App, request: Request) -> impl Future<Output = Result<RawJson, ApiError>> + Send {
    let asking = asking(&app, request);
    answer(asking, app)
}

/// A known caller and what they ask for.
type Asked = (Arc<LocalDevice>, v3::Request);

/// A request that is being read. Boxed, because the answer's future would keep its space for as long as it is parked.
enum Asking {
    Done(Box<Asked>),
    /// The session or the filter is read from the database, or the request is refused.
    Going(Pin<Box<dyn Future<Output = Result<Box<Asked>, ApiError>> + Send>>),
}

impl Asking {
    fn done(asked: Result<Box<Asked>, ApiError>) -> Self {
        match asked {
            Ok(asked) => Self::Done(asked),
            Err(error) => Self::Going(Box::pin(std::future::ready(Err(error)))),
        }
    }
}

async fn answer(asking: Asking, app: App) -> Result<RawJson, ApiError> {
    let asked = match asking {
        Asking::Done(asked) => asked,
        Asking::Going(asked) => asked.await?,
    };
    let (caller, request) = &*asked;
    let answer = v3::sync(&app, caller, request).await.map_err(|error| match error {
        SyncError::Revoked => AuthenticateError::Unknown.into(),
        SyncError::NoTurn(error) => ApiError::from(error),
        SyncError::TooMuchState => ApiError::too_large(
            "Your rooms have more state than a sync can tell. Ask for less of it with a filter, such as lazy_load_members.",
        ),
        SyncError::Storage(error) => ApiError::from(error),
    })?;
    Ok(RawJson(answer))
}

/// Reads the request, at once if memory has the session and the filter.
fn asking(app: &App, request: Request) -> Asking {
    let uri = request.uri().clone();
    let caller = debug_span!("authenticate").in_scope(|| Authed::<Endpoint>::caller_in_memory(&request, app));
    let Some(caller) = caller else {
        let app = app.clone();
        return Asking::Going(Box::pin(async move {
            let authed = Authed::<Endpoint>::from_request(request, &app).await?;
            read(app, authed, uri).instrument(debug_span!("sync.read")).await
        }));
    };
    let span = debug_span!("sync.read");
    let authed = match span.in_scope(|| Authed::<Endpoint>::of_caller(request, app, caller)) {
        Ok(authed) => authed,
        Err(error) => return Asking::done(Err(error)),
    };
    let filter = match &authed.request.filter {
        None => Some(SyncFilter::of_all()),
        Some(Filter::FilterId(id)) => app.filter_cache.find_in_memory(authed.caller.user.nid, id),
        Some(_) => None,
    };
    match filter {
        Some(filter) => Asking::done(span.in_scope(|| asked(app, authed, filter, &uri))),
        None => Asking::Going(Box::pin(read(app.clone(), authed, uri).instrument(span))),
    }
}

/// Finds the filter of the request.
async fn read(app: App, mut authed: Authed<Endpoint>, uri: Uri) -> Result<Box<Asked>, ApiError> {
    let filter = match authed.request.filter.take() {
        None => SyncFilter::of_all(),
        Some(Filter::FilterDefinition(known)) => {
            let timeline = timeline_fields_in_query(uri.query())
                .map_err(|error| ApiError::bad_json(format!("filter: {error}")))?;
            app.filter_cache.given(authed.caller.user.nid, &Definition { known, timeline })?
        }
        Some(Filter::FilterId(text)) if text.trim_start().starts_with('{') => return Err(broken_filter(&text)),
        Some(Filter::FilterId(id)) => app
            .filter_cache
            .find(&app.filters, authed.caller.user.nid, &id)
            .await?
            .ok_or_else(|| ApiError::invalid_param("There is no filter with this ID."))?,
        Some(_) => return Err(ApiError::invalid_param("The filter cannot be read.")),
    };
    asked(&app, authed, filter, &uri)
}

/// The request with its filter and its token.
fn asked(app: &App, authed: Authed<Endpoint>, filter: Arc<SyncFilter>, uri: &Uri) -> Result<Box<Asked>, ApiError> {
    let Authed { caller, request, .. } = authed;
    let not_ours = |error: InvalidToken| ApiError::invalid_param(format!("since: {error}"));
    let (since, hints) = match request.since.as_deref() {
        None | Some("") => (None, Hints::default()),
        Some(token) => (Some(token.parse::<SyncToken>().map_err(not_ours)?), Hints::of(token).map_err(not_ours)?),
    };
    let unstable = asks_for_unstable_state_after(uri);
    let longest = app.config.limits.sync_timeout_max.duration();
    let request = v3::Request {
        filter,
        since,
        hints,
        full_state: request.full_state,
        state_after: request.use_state_after || unstable,
        state_after_unstable: unstable && !request.use_state_after,
        set_presence: request.set_presence,
        timeout: request.timeout.unwrap_or(Duration::ZERO).min(longest),
    };
    Ok(Box::new((caller, request)))
}

/// The reason why a filter definition is invalid. No filter ID begins with a brace, so the text was meant as a
/// definition.
fn broken_filter(text: &str) -> ApiError {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::NotJson, "filter: it is not valid JSON.");
    }
    match serde_json::from_str::<FilterDefinition>(text) {
        Err(error) => ApiError::bad_json(format!("filter: {error}")),
        Ok(_) => ApiError::bad_json("filter: it cannot be read."),
    }
}

fn asks_for_unstable_state_after(uri: &Uri) -> bool {
    let pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(|pair| pair.split_once('=')).any(|(name, value)| name == UNSTABLE_STATE_AFTER && value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that a parked request keeps, besides its connection and that of [`v3::sync`].
    const HANDLER_BYTES: usize = 1280;

    #[test]
    fn a_parked_request_keeps_little() {
        fn size<F: Future>(_: impl FnOnce(App, Request) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(handle) <= HANDLER_BYTES, "{} bytes", size(handle));
    }
}

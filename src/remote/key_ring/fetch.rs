//! The requests for keys. They are not signed: anyone may ask.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use ruma::{ServerName, ServerSigningKeyId};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::sync::Semaphore;

use super::KeyError;
use crate::{
    outbound::{Limits, Outbound, OutboundError, Use},
    remote::discovery::Discovery,
};

/// Limits of fetching the keys of one server. Meanwhile a request waits to be authenticated.
const FETCH_LIMITS: Limits = Limits { time: Duration::from_secs(10), body_bytes: 64 * 1024, redirects: 0 };

/// Limits of asking a notary about one server. It may answer with several of the server's answers.
const NOTARY_LIMITS: Limits = Limits { body_bytes: 256 * 1024, ..FETCH_LIMITS };

/// Maximum number of answers that are taken from a notary. One is usual.
const MAX_NOTARY_ANSWERS: usize = 8;

/// Maximum number of concurrent key requests. Any sender of a request decides which server we ask, so they must not
/// take all sockets.
const MAX_FETCHES: usize = 64;

/// Maximum number of these for others, as a notary. Less, because an anonymous request can name a hundred servers, and
/// requests to us must not wait behind them.
const MAX_FETCHES_FOR_OTHERS: usize = 16;

/// Those who want to know a server's keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnBehalf {
    Us,
    /// A server whose notary we are.
    Others,
}

/// The network, as far as keys need it.
pub(super) struct Fetcher {
    outbound: Arc<Outbound>,
    discovery: Arc<Discovery>,
    for_us: Semaphore,
    for_others: Semaphore,
}

impl Fetcher {
    pub fn new(outbound: Arc<Outbound>, discovery: Arc<Discovery>) -> Self {
        let (for_us, for_others) = (Semaphore::new(MAX_FETCHES), Semaphore::new(MAX_FETCHES_FOR_OTHERS));
        Self { outbound, discovery, for_us, for_others }
    }

    /// The server's own answer about its keys.
    pub async fn ask_server(&self, server: &ServerName, on_behalf: OnBehalf) -> Result<Bytes, KeyError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = Uri::from_static("/_matrix/key/v2/server");
        self.send(server, request, FETCH_LIMITS, on_behalf).await
    }

    /// The answers of `server` that a notary has, with a key that is valid at this moment.
    pub async fn ask_notary(
        &self,
        notary: &ServerName,
        server: &ServerName,
        key_id: &ServerSigningKeyId,
        at_ms: Option<i64>,
    ) -> Result<Vec<Box<RawValue>>, KeyError> {
        #[derive(Deserialize)]
        struct Answers {
            server_keys: Vec<Box<RawValue>>,
        }

        let criteria = json!({ "minimum_valid_until_ts": at_ms.unwrap_or(0).max(0) });
        let body = json!({ "server_keys": { server.as_str(): { key_id.as_str(): criteria } } });
        let mut request = Request::new(Bytes::from(body.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/_matrix/key/v2/query");
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        let body = self.send(notary, request, NOTARY_LIMITS, OnBehalf::Us).await?;
        let Answers { mut server_keys } =
            serde_json::from_slice(&body).map_err(sabha_federation::PublishedKeysError::Malformed)?;
        server_keys.truncate(MAX_NOTARY_ANSWERS);
        Ok(server_keys)
    }

    async fn send(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        limits: Limits,
        on_behalf: OnBehalf,
    ) -> Result<Bytes, KeyError> {
        let turns = match on_behalf {
            OnBehalf::Us => &self.for_us,
            OnBehalf::Others => &self.for_others,
        };
        let asking = async {
            // The semaphores are never closed.
            let _turn = turns.acquire().await;
            let route = self.discovery.route(server).await;
            self.outbound.send(Use::Keys, &route, request, limits).await
        };
        let timed_out = OutboundError::TimedOut(limits.time);
        let response = tokio::time::timeout(limits.time, asking).await.unwrap_or(Err(timed_out))?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            status => Err(KeyError::Refused(status)),
        }
    }
}

//! Federation: requests to other servers, and authentication of their requests.
//!
//! Promises: every request that we send is signed for one destination and goes through [`crate::outbound`]. A request
//! counts as a server's only if it is signed with a key that is shown to be this server's and that is valid now. A
//! server that does not answer delays requests to it for at most the time below, and no others.
//!
//! Reading order: [`Federation::ask`] sends one request. [`discovery`] finds a server's address. [`key_ring`] holds the
//! keys of other servers, [`signing_key`] our own. [`queries`] are the requests. The parts without network are in the crate `sabha_federation`.
//! Events between servers: not yet.

pub mod discovery;
pub mod key_ring;
pub mod queries;
pub mod signing_key;
pub mod turns;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, response};
use ruma::{
    OwnedServerName, ServerName,
    api::{
        EndpointError as _, IncomingResponse, IncomingResponseExt as _, OutgoingBody as _, OutgoingRequest,
        error::{Error as MatrixError, ErrorKind, FromHttpResponseError},
        federation::authentication::{ServerSignatures, XMatrix},
        path_builder::PathBuilder,
    },
};
use sabha_federation::{ServerSigner, published_keys, x_matrix};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use tracing::debug;

pub use self::key_ring::{KeyError, MAX_SERVERS, WantedAnswer};
use self::{discovery::Discovery, key_ring::KeyRing, turns::Turns};
use crate::{
    clock::Clock,
    memory::budget::Budget,
    outbound::{Limits, Outbound, OutboundError, StreamLimits, Streamed, Use},
    report::Report,
    store::{self, Database},
};

/// Limits of a request that a user waits for: profiles, aliases, the room directory.
pub const QUERY_LIMITS: Limits = Limits { time: Duration::from_secs(10), body_bytes: 1024 * 1024, redirects: 0 };

/// Maximum size of a refusal of a request whose answer is streamed: a code and a sentence.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Another server, which has authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteServer {
    pub origin: OwnedServerName,
}

/// Why a request to another server failed.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    #[error("{destination} was not reached")]
    Unreachable {
        destination: OwnedServerName,
        #[source]
        source: OutboundError,
    },
    #[error("{destination} answered {status}")]
    Refused { destination: OwnedServerName, status: StatusCode, kind: Option<ErrorKind> },
    #[error("{destination} gave an answer that makes no sense")]
    Malformed { destination: OwnedServerName },
    #[error("too many questions to {destination}, or to all servers, are open")]
    Busy { destination: OwnedServerName },
    #[error("the request cannot be written")]
    Request,
}

/// Why a request failed to authenticate as the server that it names.
#[derive(Debug, thiserror::Error)]
pub enum UnverifiedError {
    #[error("the request is for another server")]
    OtherDestination,
    #[error("no other server has our name")]
    FromOurselves,
    #[error("the key of the signature is not known to be the server's")]
    Key(#[from] KeyError),
    #[error("the signature does not match the request")]
    Signature,
}

/// The federation service.
pub struct Federation {
    signer: Arc<ServerSigner>,
    clock: Clock,
    outbound: Arc<Outbound>,
    discovery: Arc<Discovery>,
    keys: Arc<KeyRing>,
    turns: Turns,
}

impl Federation {
    pub fn new(
        db: Arc<Database>,
        clock: Clock,
        signer: Arc<ServerSigner>,
        outbound: Arc<Outbound>,
        notaries: &[OwnedServerName],
        budget: &Budget,
    ) -> Self {
        let discovery = Arc::new(Discovery::new(Arc::clone(&outbound), clock.clone(), budget));
        let (own, network) = (Arc::clone(&signer), (Arc::clone(&outbound), Arc::clone(&discovery)));
        let keys = Arc::new(KeyRing::new(db, clock.clone(), own, network, notaries, budget));
        Self { signer, clock, outbound, discovery, keys, turns: Turns::default() }
    }

    /// Sends a signed request to another server.
    ///
    /// # Errors
    /// [`FederationError`]. The server may have processed the request.
    pub async fn ask<R>(
        &self,
        use_: Use,
        destination: &ServerName,
        request: R,
        limits: Limits,
    ) -> Result<R::IncomingResponse, FederationError>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, EndpointError = MatrixError> + Send,
        R::IncomingResponse: Send,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        let request = self.written(destination, request)?;
        let (head, body) = self.sent(use_, destination, request, limits.into()).await?.into_parts();
        let unreachable = |source| FederationError::Unreachable { destination: destination.to_owned(), source };
        let body = body.into_bytes(limits.body_bytes).await.map_err(unreachable)?;
        read::<R::IncomingResponse>(destination, &Response::from_parts(head, body))
    }

    /// Sends a signed request whose answer is too large for memory. A refusal is an error, as for [`Self::ask`].
    ///
    /// # Errors
    /// [`FederationError`]. The server may have processed the request.
    pub async fn ask_streamed<R>(
        &self,
        use_: Use,
        destination: &ServerName,
        request: R,
        limits: StreamLimits,
    ) -> Result<(response::Parts, Streamed), FederationError>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, EndpointError = MatrixError> + Send,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        let request = self.written(destination, request)?;
        let (head, body) = self.sent(use_, destination, request, limits).await?.into_parts();
        if head.status.is_success() {
            return Ok((head, body));
        }
        // The status counts also when the rest cannot be read.
        let body = body.into_bytes(MAX_REFUSAL_BYTES).await.unwrap_or_default();
        Err(refused(destination, &Response::from_parts(head, body)))
    }

    /// Finds the server and sends the request. The time limits include both.
    async fn sent(
        &self,
        use_: Use,
        destination: &ServerName,
        request: Request<Bytes>,
        limits: StreamLimits,
    ) -> Result<Response<Streamed>, FederationError> {
        let unreachable = |source| FederationError::Unreachable { destination: destination.to_owned(), source };
        let began_at = Instant::now();
        let route = timeout(limits.head, self.discovery.route(destination))
            .await
            .map_err(|_| unreachable(OutboundError::TimedOut(limits.head)))?;
        let limits = limits.after(began_at.elapsed());
        let response = self.outbound.stream(use_, &route, request, limits).await.map_err(unreachable)?;
        debug!(%destination, status = response.status().as_u16(), "answered by another server");
        Ok(response)
    }

    fn written<R>(&self, destination: &ServerName, request: R) -> Result<Request<Bytes>, FederationError>
    where
        R: OutgoingRequest<Authentication = ServerSignatures>,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        let request = request.try_into_http_request_inner("", ()).map_err(|_| FederationError::Request)?;
        let (mut head, body) = request.into_parts();
        if let Some(content_type) = body.content_type() {
            head.headers.entry(http::header::CONTENT_TYPE).or_insert(content_type);
        }
        let body: Vec<u8> = body.try_into_buf().map_err(|_| FederationError::Request)?;
        let mut request = Request::from_parts(head, Bytes::from(body));
        x_matrix::sign_request(&self.signer, destination, &mut request).map_err(|_| FederationError::Request)?;
        Ok(request)
    }

    /// Checks a request by its header alone, before its body is read.
    ///
    /// # Errors
    /// When the request is for another server, or claims to be from us.
    pub fn check_header(&self, header: &XMatrix) -> Result<(), UnverifiedError> {
        // Servers from before v1.3 name no destination; the signature covers ours in any case.
        if header.destination.as_deref().is_some_and(|destination| destination != self.signer.server_name()) {
            return Err(UnverifiedError::OtherDestination);
        }
        if header.origin == *self.signer.server_name() {
            return Err(UnverifiedError::FromOurselves);
        }
        Ok(())
    }

    /// Checks that the request is from its origin and for us. May fetch the origin's keys.
    ///
    /// # Errors
    /// See [`UnverifiedError`].
    pub async fn verify(&self, header: &XMatrix, request: &Request<Bytes>) -> Result<(), UnverifiedError> {
        self.check_header(header)?;
        let key = self.keys.find(&header.origin, &header.key).await?;
        x_matrix::verify_request(header, self.signer.server_name(), &key, request)
            .map_err(|_| UnverifiedError::Signature)
    }

    /// Our published signing keys, signed with those that are in use.
    pub fn own_keys(&self) -> Box<RawValue> {
        published_keys::publish(&self.signer, self.clock.now_ms()).expect("the object is made here, without signatures")
    }

    /// The keys of these servers, with our signature: we are a notary. Asks the servers whose stored answer does not do.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys_of_others(
        &self,
        wanted: BTreeMap<OwnedServerName, WantedAnswer>,
    ) -> Result<Vec<Box<RawValue>>, store::Error> {
        self.keys.answers(wanted).await
    }
}

fn read<R: IncomingResponse<EndpointError = MatrixError>>(
    destination: &ServerName,
    response: &Response<Bytes>,
) -> Result<R, FederationError> {
    if !response.status().is_success() {
        return Err(refused(destination, response));
    }
    R::try_from_http_response(borrowed(response)).map_err(|error: FromHttpResponseError<MatrixError>| {
        debug!(%destination, error = %Report(&error), "another server's answer makes no sense");
        FederationError::Malformed { destination: destination.to_owned() }
    })
}

/// The refusal of an answer that is no success. A redirect counts as one, because the signature is only for this server.
fn refused(destination: &ServerName, response: &Response<Bytes>) -> FederationError {
    let status = response.status();
    let kind = || MatrixError::from_http_response(borrowed(response)).error_kind().cloned();
    let kind = if status.is_client_error() { kind() } else { None };
    FederationError::Refused { destination: destination.to_owned(), status, kind }
}

fn borrowed(response: &Response<Bytes>) -> Response<&[u8]> {
    let mut borrowed = Response::new(&response.body()[..]);
    *borrowed.status_mut() = response.status();
    *borrowed.headers_mut() = response.headers().clone();
    borrowed
}

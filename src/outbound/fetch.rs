//! Fetching a URL, over a connection of its own for each redirect.

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{HOST, LOCATION},
    uri::PathAndQuery,
};
use sabha_federation::Host;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{Limits, Outbound, OutboundError, StreamLimits, Streamed, Trust, stream::BodySource};

/// Maximum number of URLs fetched at a time, so that slow hosts cannot take all our sockets. Further requests wait, within
/// their time.
pub(super) const MAX_FETCHES: usize = 512;

impl Outbound {
    /// Fetches `url`, following redirects. `https` never redirects to plain `http`.
    ///
    /// # Errors
    /// [`OutboundError`]. Any status except a redirect is an answer.
    pub async fn get(&self, url: &Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        let work = async {
            // The semaphore is never closed.
            let _permit = self.fetches.acquire().await;
            self.follow(url.clone(), trust, limits).await
        };
        timeout(limits.time, work).await.unwrap_or(Err(OutboundError::TimedOut(limits.time)))
    }

    async fn follow(&self, mut url: Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        for _ in 0..=limits.redirects {
            let response = self.fetch(&url, trust, limits).await?;
            let Some(next) = redirect(&url, &response)? else {
                return Ok(response);
            };
            url = next;
        }
        Err(OutboundError::TooManyRedirects(limits.redirects))
    }

    /// Fetches one URL, without redirects.
    async fn fetch(&self, url: &Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        let host = match url.host().ok_or(OutboundError::BadUrl)? {
            // The parser has also converted spellings such as `0x7f.1` and `2130706433` to addresses.
            url::Host::Ipv4(ip) => Host::Ip(ip.into()),
            url::Host::Ipv6(ip) => Host::Ip(ip.into()),
            url::Host::Domain(name) => Host::Name(name.to_owned()),
        };
        let port = url.port_or_known_default().ok_or(OutboundError::BadUrl)?;
        let tls = match url.scheme() {
            "https" => Some((&host, self.trust.connector(trust))),
            "http" => None,
            _ => return Err(OutboundError::BadUrl),
        };
        let host_header = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path: PathAndQuery =
            url[url::Position::BeforePath..url::Position::AfterQuery].parse().map_err(|_| OutboundError::BadUrl)?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = path.into();
        let host_header = HeaderValue::from_str(&host_header).map_err(|_| OutboundError::BadUrl)?;
        request.headers_mut().insert(HOST, host_header);
        let mut connection = self.connect(&host, port, tls).await?;
        let (head, body) = connection.send(request).await?.into_parts();
        let limits = StreamLimits::from(limits);
        let body = Streamed::new(body, BodySource::Single(connection), limits, Instant::now());
        Ok(Response::from_parts(head, body.into_bytes(limits.body_bytes).await?))
    }
}

/// The redirect target of an answer, if it has one.
pub(super) fn redirect(from: &Url, response: &Response<Bytes>) -> Result<Option<Url>, OutboundError> {
    use StatusCode as S;
    if ![S::MOVED_PERMANENTLY, S::FOUND, S::SEE_OTHER, S::TEMPORARY_REDIRECT, S::PERMANENT_REDIRECT]
        .contains(&response.status())
    {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok()).ok_or(OutboundError::BadUrl)?;
    let is_allowed = match to.scheme() {
        "https" => true,
        "http" => from.scheme() == "http",
        _ => false,
    };
    if is_allowed { Ok(Some(to)) } else { Err(OutboundError::BadUrl) }
}

//! Compresses answers with gzip, for clients that ask for it.
//!
//! The rule: answers of at least [`MIN_BYTES`] to GET, and to the few POST requests that only read ([`READS`]), are
//! compressed if they are JSON or text. No answer that hands out a credential (login, registration, refreshing, tokens,
//! setup) is among them. If an attacker can write into an answer, its compressed length reveals how much of that text
//! matches the secret beside it ("BREACH"). Media is already compressed.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compress, Compression as Level, FlushCompress, Status};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY},
    response::Parts,
};
use hyper::body::Body as _;
use tokio::sync::Semaphore;

/// The minimum size of a compressed answer. Below it a round trip costs more than the bytes; most answers are below it.
pub(super) const MIN_BYTES: usize = 1024;

/// The maximum size of an answer that is compressed where it was made, in at most a fifth of a millisecond. Larger
/// answers go to a separate thread.
pub(super) const AT_ONCE_BYTES: usize = 16 << 10;

/// The compression level: most of the best level's gain, in a quarter of its time.
const LEVEL: u32 = 3;

/// The largest window: repetitions are found within 32 KiB.
const WINDOW_BITS: u8 = 15;

/// The ends of the paths of POST requests that only read.
const READS: [&str; 4] = ["/keys/query", "/publicRooms", "/search", "/user_directory/search"];

/// The processors that compress large answers: half of all; the others serve.
static PROCESSORS: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(std::thread::available_parallelism().map_or(1, |cpus| usize::from(cpus).div_ceil(2)))
});

/// Large answers that are being compressed or wait for it, some tens of milliseconds each. Under more load, answers are
/// sent uncompressed.
static QUEUE: Semaphore = Semaphore::const_new(16);

/// The compression that the answer to a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// The answer is never compressed, for any client.
    Never,
    /// This client does not accept gzip. Another client might, so the answer has a `Vary` header for caches.
    NotAskedFor,
    Gzip,
}

impl Compression {
    pub(super) fn of(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        match *method {
            // The answer to HEAD has no body to compress, but it also depends on `Accept-Encoding`.
            Method::HEAD => Self::NotAskedFor,
            Method::GET if accepts_gzip(headers) => Self::Gzip,
            Method::POST if !READS.iter().any(|read| path.ends_with(read)) => Self::Never,
            Method::POST if accepts_gzip(headers) => Self::Gzip,
            Method::GET | Method::POST => Self::NotAskedFor,
            _ => Self::Never,
        }
    }

    /// Returns whether the answer is to be compressed. Adds `Vary` if that depends on the encodings that the client
    /// accepts.
    pub(super) fn marks(self, parts: &mut Parts) -> bool {
        let is_text = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().starts_with(b"application/json") || kind.as_bytes().starts_with(b"text/")
        });
        if self == Self::Never || !is_text || parts.headers.contains_key(CONTENT_ENCODING) {
            return false;
        }
        parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        self == Self::Gzip
    }
}

/// Marks the answer as compressed. hyper writes its new length.
pub(super) fn mark(parts: &mut Parts) {
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.remove(CONTENT_LENGTH);
}

/// Returns whether the client accepts gzip ([RFC 9110, 12.5.3]).
///
/// [RFC 9110, 12.5.3]: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut named, mut any) = (None, None);
    for coding in codings.flat_map(|value| value.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches(['q', 'Q']).trim_start_matches('=');
        let wanted = weight.is_empty() || weight.parse().is_ok_and(|weight: f32| weight > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => named = Some(wanted),
            "*" => any = Some(wanted),
            _ => {}
        }
    }
    named.or(any).unwrap_or(false)
}

/// Returns the bytes of a body that is fully in memory, as ours are. Any other body is returned unchanged.
pub(super) fn whole(mut body: Body) -> Result<Bytes, Body> {
    let Some(length) = body.size_hint().exact() else { return Err(body) };
    if length == 0 {
        return Err(body);
    }
    match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) if data.len() as u64 == length => Ok(data),
            Ok(data) => Err(Body::new(Begun { first: Some(data), rest: body })),
            Err(_) => Err(body),
        },
        _ => Err(body),
    }
}

/// A body whose first piece was taken and put back.
struct Begun {
    first: Option<Bytes>,
    rest: Body,
}

impl hyper::body::Body for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(hyper::body::Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        match self.rest.size_hint().exact() {
            Some(rest) => hyper::body::SizeHint::with_exact(first + rest),
            None => hyper::body::SizeHint::default(),
        }
    }
}

thread_local! {
    /// A compressor per thread, because its 300 kB of tables would cost more than most answers if made for each.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new_gzip(Level::new(LEVEL), WINDOW_BITS));
}

/// Compresses the bytes.
pub(super) fn gzip(bytes: &[u8]) -> Bytes {
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        let mut out = Vec::with_capacity(bytes.len() / 3 + 64);
        loop {
            let done = usize::try_from(compressor.total_in()).unwrap_or(usize::MAX);
            let left = bytes.get(done..).unwrap_or_default();
            match compressor.compress_vec(left, &mut out, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return out.into(),
                Ok(_) => out.reserve(out.capacity() / 2),
                Err(error) => unreachable!("a compressor in order takes any bytes: {error}"),
            }
        }
    })
}

/// Compresses the bytes on a separate thread. Returns `None` if too many others are waiting.
pub(super) async fn gzip_elsewhere(bytes: Bytes) -> Option<Bytes> {
    let _place = QUEUE.try_acquire().ok()?;
    let _processor = PROCESSORS.acquire().await.ok()?;
    tokio::task::spawn_blocking(move || gzip(&bytes)).await.ok()
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, io::Read as _};

    use http_body_util::BodyExt as _;
    use hyper::body::{Frame, SizeHint};

    use super::*;

    /// A body of a known length that comes in pieces.
    struct Pieces(VecDeque<&'static str>);

    impl hyper::body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(Bytes::from(piece)))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
        }
    }

    #[test]
    fn gzip_is_for_who_asks_for_it() {
        let check = |accepted: &[&'static str], expected: bool| {
            let values = accepted.iter().map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value)));
            assert_eq!(accepts_gzip(&values.collect()), expected, "{accepted:?}");
        };
        check(&["gzip"], true);
        check(&["br, GZIP;q=0.5, *;q=0"], true);
        check(&["br", "deflate, gzip"], true);
        check(&["*"], true);
        check(&["*;q=0.1"], true);
        check(&[], false);
        check(&["br, zstd"], false);
        check(&["gzip;q=0"], false);
        check(&["gzip; q=0.000, *"], false);
        check(&["identity"], false);
        check(&["gzip;q=many"], false);
    }

    #[test]
    fn only_what_reads_is_compressed() {
        let check = |method: Method, path: &str, expected: bool| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
            assert_eq!(Compression::of(&method, path, &headers) == Compression::Gzip, expected, "{method} {path}");
        };
        check(Method::GET, "/_matrix/client/v3/sync", true);
        check(Method::POST, "/_matrix/client/v3/keys/query", true);
        check(Method::POST, "/_matrix/client/v3/publicRooms", true);
        for path in ["login", "register", "refresh", "user/@a:b/openid/request_token", "keys/claim"] {
            check(Method::POST, &format!("/_matrix/client/v3/{path}"), false);
        }
        check(Method::POST, "/_matrix/client/v1/login/get_token", false);
        check(Method::PUT, "/_matrix/client/v3/rooms/!a/send/m.room.message/search", false);
    }

    #[test]
    fn what_was_compressed_is_read_again() {
        let noise: Vec<u8> = (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        // The same compressor is used for one after the other.
        for bytes in [&b"hello"[..], &b"hello ".repeat(10_000), &noise, b""] {
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(&gzip(bytes)[..]).read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
        }
    }

    #[tokio::test]
    async fn a_stream_is_handed_on_as_it_was() {
        assert_eq!(whole(Body::from("hello")).ok().as_deref(), Some(&b"hello"[..]));
        assert!(whole(Body::empty()).is_err());
        let stream = Body::new(Pieces(VecDeque::from(["one", "two"])));
        let body = whole(stream).expect_err("it is not whole");
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "onetwo");
    }
}

//! Turns the router's answer into the one that is sent: compressed if the client accepts that, and held within the
//! budget.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
    routing::future::RouteFuture,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::body::Body as _;
use ruma::api::error::ErrorKind;

use super::wire::ConnectionState;
use crate::http::{
    ApiError,
    compress::{self, Compression},
    transport::{Answers, Held, ReceivingUser},
};

/// Facts about a request that are known before it is answered.
pub(super) struct Asked {
    pub(super) compression: Compression,
    /// Answers of up to this size do not count against the budget. Over HTTP/1 a connection has one answer at a time,
    /// and its stream watches its client. An HTTP/2 client may have a hundred answers and read none of them.
    pub(super) unheld_bytes: usize,
    /// True if the connection ends with this answer.
    pub(super) closes: bool,
    pub(super) answers: Arc<Answers>,
    /// The receiver of the answer: the user, once known, or the network of the other end.
    pub(super) user: ReceivingUser,
    pub(super) network: Option<IpAddr>,
    pub(super) connection: Arc<ConnectionState>,
}

/// An answer on its way out.
pub(super) struct Answering {
    asked: Asked,
    step: Step,
}

enum Step {
    Routing(RouteFuture<Infallible>),
    /// Compresses a large answer on another thread. Boxed, because few requests get here and each parked request would
    /// need the space.
    Compressing(Pin<Box<dyn Future<Output = Response> + Send>>),
    /// The answer is there: of a request that was refused before it reached the router, or of a parked one.
    Answered(Option<Response>),
}

impl Answering {
    pub(super) fn new(asked: Asked, route: RouteFuture<Infallible>) -> Self {
        Self { asked, step: Step::Routing(route) }
    }

    /// Refuses a request with two lengths, whose end is not certain.
    pub(super) fn refuse_two_lengths(asked: Asked) -> Self {
        let message = "A request must not have both Transfer-Encoding and Content-Length.";
        let refused = ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::Unknown, message).into_response();
        Self { asked: Asked { closes: true, ..asked }, step: Step::Answered(Some(refused)) }
    }

    /// Ready when the answer is there. It is kept for the next poll.
    pub(super) fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(response) = ready!(Pin::new(&mut *self).poll(cx));
        self.step = Step::Answered(Some(response));
        Poll::Ready(())
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { asked, step } = &mut *self;
        loop {
            let mut response = match step {
                Step::Routing(route) => {
                    let Ok(response) = ready!(Pin::new(route).poll(cx));
                    match asked.go_on(response) {
                        Ok(response) => response,
                        Err(compressing) => {
                            *step = Step::Compressing(compressing);
                            continue;
                        }
                    }
                }
                Step::Compressing(compressing) => ready!(compressing.as_mut().poll(cx)),
                Step::Answered(response) => response.take().expect("a future is not polled after its end"),
            };
            if asked.closes {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return Poll::Ready(Ok(response));
        }
    }
}

impl Asked {
    /// Returns the answer to send, or the future that compresses it.
    fn go_on(&self, response: Response) -> Result<Response, Pin<Box<dyn Future<Output = Response> + Send>>> {
        let (mut parts, body) = response.into_parts();
        let compresses = self.compression.marks(&mut parts);
        let length = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        // A streamed body is neither held nor compressed: its source waits for the client.
        let Some(length) = length else { return Ok(Response::from_parts(parts, body)) };
        let compresses = compresses && length >= compress::MIN_BYTES;
        if !compresses && length <= self.unheld_bytes {
            return Ok(Response::from_parts(parts, body));
        }
        let bytes = match compress::whole(body) {
            Ok(bytes) => bytes,
            Err(body) => return Ok(Response::from_parts(parts, body)),
        };
        if !compresses {
            return Ok(self.held(parts, bytes));
        }
        if length <= compress::AT_ONCE_BYTES {
            let bytes = compress::gzip(&bytes);
            compress::mark(&mut parts);
            return Ok(self.held(parts, bytes));
        }
        // Held at its full size while it is compressed.
        let Some(held) = self.hold(bytes.len()) else { return Ok(no_room()) };
        Err(Box::pin(compress_held(parts, bytes, held)))
    }

    fn hold(&self, bytes: usize) -> Option<Held> {
        self.answers.hold(bytes, self.user.or_network(self.network), &self.connection.hangup)
    }

    fn held(&self, parts: http::response::Parts, bytes: Bytes) -> Response {
        if bytes.len() <= self.unheld_bytes {
            return Response::from_parts(parts, Body::from(bytes));
        }
        match self.hold(bytes.len()) {
            Some(held) => Response::from_parts(parts, held.body(bytes)),
            None => no_room(),
        }
    }
}

async fn compress_held(mut parts: http::response::Parts, bytes: Bytes, held: Held) -> Response {
    let original = bytes.clone();
    let bytes = match compress::gzip_elsewhere(bytes).await {
        Some(compressed) => {
            compress::mark(&mut parts);
            held.shrink_to(compressed.len());
            compressed
        }
        None => original,
    };
    Response::from_parts(parts, held.body(bytes))
}

/// The error when the budget for answers is used up and no connection may be closed for it.
fn no_room() -> Response {
    ApiError::unavailable("The server sends too much at this moment. Please try again.").into_response()
}

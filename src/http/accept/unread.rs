//! Reads the rest of a request body that the client still sends after it was answered.
//!
//! Some errors are answered before the request body is read, such as a wrong token or a body that is too large. Closing
//! then would reset the connection, and a client that is still sending would see a broken pipe instead of the answer.
//! So a bounded part of the rest is read and discarded while the answer is sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

use crate::http::shutdown::Shutdown;

/// The most bytes read of an unwanted body: sixteen times the default limit of a request.
const UNREAD_BYTES: usize = 16 << 20;

/// The time limit for reading it: enough for all of it at 13 Mbit/s.
const UNREAD_TIME: Duration = Duration::from_secs(10);

/// The body of an HTTP/1 request. If the handler drops it before its end, the rest is read in the background.
pub(super) struct ReadToTheEnd {
    /// `None` after the end or an error, and while it is dropped.
    incoming: Option<Incoming>,
    /// True if the client waits for a `100 Continue` before it sends anything; polling the body sends one.
    awaits_continue: bool,
    shutdown: Shutdown,
}

impl ReadToTheEnd {
    pub(super) fn new(incoming: Incoming, awaits_continue: bool, shutdown: Shutdown) -> Self {
        Self { incoming: Some(incoming), awaits_continue, shutdown }
    }
}

impl Body for ReadToTheEnd {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.awaits_continue = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.incoming = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ReadToTheEnd {
    fn drop(&mut self) {
        let left = self.incoming.take().filter(|incoming| !incoming.is_end_stream() && !self.awaits_continue);
        let Some(mut incoming) = left else { return };
        // Without a runtime the connection is gone as well.
        let Ok(runtime) = Handle::try_current() else { return };
        let shutdown = self.shutdown.clone();
        runtime.spawn(async move {
            let read = async {
                let mut read_bytes = 0;
                while let Some(Ok(frame)) = incoming.frame().await {
                    read_bytes += frame.data_ref().map_or(0, Bytes::len);
                    if read_bytes > UNREAD_BYTES {
                        break;
                    }
                }
            };
            let stopping = shutdown.token();
            let _: Option<_> = stopping.run_until_cancelled(tokio::time::timeout(UNREAD_TIME, read)).await;
        });
    }
}

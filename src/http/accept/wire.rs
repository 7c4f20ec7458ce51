//! The stream of one connection, between the socket and hyper. It checks how fast the client reads, and the heads that
//! come in.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::heads::Heads;
use crate::http::transport::{Hangup, Pace};

/// The state that a connection's stream shares with its requests.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    pub(super) hangup: Hangup,
    has_two_lengths: AtomicBool,
    has_unsent: AtomicBool,
}

impl ConnectionState {
    /// Returns whether a request arrived whose end is not certain. Then no other request of the connection is trusted
    /// either.
    pub(super) fn has_two_lengths(&self) -> bool {
        self.has_two_lengths.load(Ordering::Relaxed)
    }

    /// Returns whether hyper may have bytes for the client that the socket has not taken yet. It writes until all are
    /// sent or the socket takes no more.
    pub(super) fn has_unsent(&self) -> bool {
        self.has_unsent.load(Ordering::Relaxed)
    }
}

/// The stream. Its writes fail when the client reads too slowly.
pub(super) struct Wire<Io> {
    io: Io,
    /// The bytes that a reader gets before those of `io`. They are not checked again.
    before: Bytes,
    pace: Pace,
    /// `None` for HTTP/2, where each frame has one length.
    heads: Option<Heads>,
    state: Arc<ConnectionState>,
}

impl<Io> Wire<Io> {
    pub(super) fn new(io: Io, heads: Option<Heads>, state: Arc<ConnectionState>) -> Self {
        Self { io, before: Bytes::new(), pace: Pace::new(), heads, state }
    }

    /// Gives a reader these bytes before those of the socket.
    pub(super) fn put_before(&mut self, bytes: Bytes) {
        self.before = bytes;
    }

    /// Passes on the result of a write. A pending write fails once the client has fallen too far behind.
    fn paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        self.state.has_unsent.store(poll.is_pending(), Ordering::Relaxed);
        match poll {
            Poll::Ready(Ok(done)) => {
                self.pace.wrote(bytes(&done));
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.pace.poll_behind(cx).map(Err),
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Wire<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let given = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before.split_to(given));
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let Self { heads, state, .. } = &mut *self;
        if let Some(heads) = heads
            && heads.feed(buf.filled().get(filled..).unwrap_or_default())
        {
            state.has_two_lengths.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Wire<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.paced(cx, polled, |written| *written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.paced(cx, polled, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.paced(cx, polled, |()| 0)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.paced(cx, polled, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

//! Detects the protocol of a new connection before hyper sees it.
//!
//! hyper-util's `auto` builder does this too, but without a timeout for a client that sends nothing, and it reserves
//! space for HTTP/2's state in every HTTP/1 connection. With TLS, ALPN tells the protocol; without TLS, the first four
//! bytes do.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::{HEADER_READ_TIMEOUT, TLS_HANDSHAKE_TIMEOUT};
use crate::http::listen::Socket;

#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A connection that is ready for hyper. TLS is boxed, because its state is over a kilobyte and plain connections do
/// not need it.
pub(super) type Io = Either<Sniffed, Box<TlsStream<Socket>>>;

/// The first bytes of the HTTP/2 client preface (RFC 9113, 3.4). They suffice, because the method `PRI` is reserved for
/// it. Any HTTP/1 request is longer.
const PREFACE_START: [u8; 4] = *b"PRI ";

pub(super) async fn negotiate(socket: Socket, tls: Option<&TlsAcceptor>) -> io::Result<(Io, Protocol)> {
    let Some(tls) = tls else {
        let (io, protocol) = timeout(HEADER_READ_TIMEOUT, sniff(socket)).await.map_err(|_| late("no request"))??;
        return Ok((Either::Left(io), protocol));
    };
    let stream = timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(socket)).await.map_err(|_| late("no TLS handshake"))??;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((Either::Right(Box::new(stream)), protocol))
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}

async fn sniff(mut socket: Socket) -> io::Result<(Sniffed, Protocol)> {
    let mut start = [0; PREFACE_START.len()];
    socket.read_exact(&mut start).await?;
    let protocol = if start == PREFACE_START { Protocol::Http2 } else { Protocol::Http1 };
    Ok((Sniffed { socket, start, given: 0 }, protocol))
}

/// A socket whose first bytes were already read; a reader gets them again first.
pub(super) struct Sniffed {
    socket: Socket,
    start: [u8; PREFACE_START.len()],
    /// The number of bytes of `start` that the reader has.
    given: usize,
}

impl AsyncRead for Sniffed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &self.start[self.given..];
        let give = left.len().min(buf.remaining());
        if give == 0 {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        buf.put_slice(&left[..give]);
        self.given += give;
        // Also read the bytes that follow, if they are there: after a read of only four bytes hyper would double its
        // buffer for good. The next read returns an error of the socket, if it has one.
        let _: Poll<io::Result<()>> = Pin::new(&mut self.socket).poll_read(cx, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_come_with_those_after_them() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let request = b"GET / HTTP/1.1\r\n\r\n";
        client.write_all(request).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (mut sniffed, _) = sniff(Either::Left(server)).await.unwrap();
        let mut read = [0; 64];
        assert_eq!(sniffed.read(&mut read).await.unwrap(), request.len());
        assert_eq!(&read[..request.len()], request);
    }
}

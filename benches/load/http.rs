//! One HTTP/1.1 keep-alive connection, written by hand.
//!
//! The load generator shares its cores with the server. Therefore a request here costs two system calls, and no
//! allocation once the buffers have grown. It supports only what a benchmark needs: one request at a time, and answers
//! with a `Content-Length` or chunked. For requests to Matrix endpoints see [`crate::client`].

use std::{
    fmt::Display,
    io::{ErrorKind::WouldBlock, Write as _},
    net::SocketAddr,
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::Result;

/// Longer than any long poll of a workload. A server that takes longer is considered stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Set when the server said `Connection: close`: the next request needs a new stream.
    closing: bool,
}

pub struct Reply<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Returns the body of a 200, and for any other status an error that quotes the answer.
    pub fn ok(self) -> Result<&'a [u8]> {
        if self.status == 200 {
            return Ok(self.body);
        }
        let excerpt = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        Err(format!("the server answered {}: {excerpt}", self.status).into())
    }

    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        Ok(serde_json::from_slice(self.ok()?)?)
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            address,
            stream: dial(address).await?,
            output: Vec::with_capacity(1024),
            input: Vec::with_capacity(2048),
            closing: false,
        })
    }

    pub async fn exchange(
        &mut self,
        method: &str,
        path: impl Display,
        token: Option<&str>,
        body: Option<&str>,
    ) -> Result<Reply<'_>> {
        self.write(method, path, token, body).await?;
        self.read().await
    }

    /// Writes a request without waiting for its answer, which [`Self::read`] returns.
    pub async fn write(
        &mut self,
        method: &str,
        path: impl Display,
        token: Option<&str>,
        body: Option<&str>,
    ) -> Result<()> {
        if self.closing {
            self.stream = dial(self.address).await?;
            self.closing = false;
        }
        self.output.clear();
        write!(self.output, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n")?;
        if let Some(token) = token {
            write!(self.output, "Authorization: Bearer {token}\r\n")?;
        }
        match body {
            Some(body) => {
                write!(self.output, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?
            }
            None => self.output.extend_from_slice(b"\r\n"),
        }
        Ok(self.stream.write_all(&self.output).await?)
    }

    pub async fn read(&mut self) -> Result<Reply<'_>> {
        tokio::time::timeout(ANSWER_WITHIN, self.read_reply()).await?
    }

    /// Returns whether an answer, or the end of the connection, has arrived.
    pub async fn has_input(&self) -> bool {
        let readable = tokio::time::timeout(Duration::ZERO, self.stream.readable());
        // A socket may be reported as readable when it is not; only a read tells for certain.
        readable.await.is_ok() && !matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == WouldBlock)
    }

    async fn read_reply(&mut self) -> Result<Reply<'_>> {
        self.input.clear();
        let body_start = loop {
            if let Some(end) = find(&self.input, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await?;
        };
        let head = Head::parse(&self.input[..body_start])?;
        self.closing = head.close;
        let body_end = match head.body {
            Length::Known(length) => {
                let end = body_start + length;
                self.input.reserve(end.saturating_sub(self.input.len()));
                while self.input.len() < end {
                    self.fill().await?;
                }
                end
            }
            Length::Chunked => self.read_chunks(body_start).await?,
        };
        Ok(Reply { status: head.status, body: &self.input[body_start..body_end] })
    }

    /// Joins the chunks in place and returns the end of the body.
    async fn read_chunks(&mut self, body_start: usize) -> Result<usize> {
        let (mut cursor, mut body_end) = (body_start, body_start);
        loop {
            let line_end = loop {
                if let Some(end) = find(&self.input[cursor..], b"\r\n") {
                    break cursor + end;
                }
                self.fill().await?;
            };
            let line = std::str::from_utf8(&self.input[cursor..line_end])?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)?;
            let data = line_end + 2;
            while self.input.len() < data + size + 2 {
                self.fill().await?;
            }
            if size == 0 {
                return Ok(body_end);
            }
            self.input.copy_within(data..data + size, body_end);
            body_end += size;
            cursor = data + size + 2;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err("the server closed the connection before it answered".into());
        }
        Ok(())
    }
}

async fn dial(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Head {
    status: u16,
    body: Length,
    close: bool,
}

enum Length {
    Known(usize),
    Chunked,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self> {
        let mut lines = std::str::from_utf8(head)?.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("an empty status line")?;
        let mut parsed = Self { status: status.parse()?, body: Length::Known(0), close: false };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                parsed.body = Length::Known(value.parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                parsed.body = Length::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                parsed.close = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(parsed)
    }
}

/// Returns the position of `needle` in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// Encodes a path segment or query value, all but the unreserved characters.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

//! Checks the heads of incoming HTTP/1 requests for one thing: two lengths for one body.
//!
//! A request with both `Transfer-Encoding` and `Content-Length` ends at one point for us and at another for a proxy
//! that trusts the other header. The bytes in between are smuggled past the proxy as a separate request ([RFC 9112,
//! 6.3]). hyper uses the first of the two headers and hides the second, so the request cannot be refused later.
//!
//! After a chunked request nothing more is checked: its connection closes with the answer, so no request can follow it.
//!
//! [RFC 9112, 6.3]: https://www.rfc-editor.org/rfc/rfc9112#section-6.3

/// The bytes kept of a line: enough for either header name and any length.
const LINE_BYTES: usize = 48;

const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
const CONTENT_LENGTH: &[u8] = b"content-length:";

/// Follows the heads of one connection.
#[derive(Debug)]
pub(super) struct Heads {
    place: Place,
    line: [u8; LINE_BYTES],
    /// Bytes of the line so far, including those that are not kept.
    line_length: usize,
    /// True once the head has a line; empty lines before it are skipped.
    begun: bool,
    is_chunked: bool,
    length: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Body {
        left: u64,
    },
    /// The end of the checks: nothing more is examined.
    End,
}

impl Heads {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Head,
            line: [0; LINE_BYTES],
            line_length: 0,
            begun: false,
            is_chunked: false,
            length: None,
        }
    }

    /// Takes the next incoming bytes. Returns whether a request among them has two lengths.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.place {
                Place::End => return false,
                Place::Body { left } => {
                    let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[passed..];
                    let left = left - passed as u64;
                    self.place = if left == 0 { Place::Head } else { Place::Body { left } };
                }
                Place::Head => {
                    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                        self.keep(bytes);
                        return false;
                    };
                    self.keep(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    if self.end_line() {
                        self.place = Place::End;
                        return true;
                    }
                }
            }
        }
        false
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(room) = self.line.get_mut(self.line_length..) {
            let kept = room.len().min(bytes.len());
            room[..kept].copy_from_slice(&bytes[..kept]);
        }
        self.line_length += bytes.len();
    }

    /// Returns whether the line ended a head with two lengths.
    fn end_line(&mut self) -> bool {
        let length = std::mem::take(&mut self.line_length);
        let line = self.line[..length.min(LINE_BYTES)].trim_ascii_end();
        if !line.is_empty() {
            self.begun = true;
            if let Some(value) = value_of(line, CONTENT_LENGTH) {
                let value = if length <= LINE_BYTES { std::str::from_utf8(value.trim_ascii()).ok() } else { None };
                // hyper refuses an invalid length, and no request follows.
                self.length = Some(value.and_then(|value| value.parse().ok()).unwrap_or(u64::MAX));
            }
            self.is_chunked |= value_of(line, TRANSFER_ENCODING).is_some();
            return false;
        }
        if !self.begun {
            return false;
        }
        self.begun = false;
        let (is_chunked, length) = (std::mem::take(&mut self.is_chunked), self.length.take());
        self.place = match (is_chunked, length) {
            (true, Some(_)) => return true,
            (true, None) => Place::End,
            (false, Some(left @ 1..)) => Place::Body { left },
            (false, _) => Place::Head,
        };
        false
    }
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lengths_are_found_wherever_they_stand() {
        let check = |request: &str, expected: bool| {
            let request = request.replace('|', "\r\n");
            assert_eq!(Heads::new().feed(request.as_bytes()), expected, "{request:?}");
            // Pieces of any size give the same result.
            for size in [1, 2, 3, 7] {
                let mut heads = Heads::new();
                let found = request.as_bytes().chunks(size).fold(false, |found, bytes| found | heads.feed(bytes));
                assert_eq!(found, expected, "{request:?} in pieces of {size}");
            }
        };
        check("POST / HTTP/1.1|Transfer-Encoding: chunked|Content-Length: 5||", true);
        check("POST / HTTP/1.1|content-length:5|Host: x|TRANSFER-ENCODING:chunked||", true);
        check("POST / HTTP/1.1|Content-Length: 5||", false);
        check("POST / HTTP/1.1|Transfer-Encoding: chunked||0||", false);
        check("POST / HTTP/1.1|X-Content-Length: 5|Transfer-Encoding: chunked||", false);
        check("||GET / HTTP/1.1|Host: x||", false);
        // The second of two requests has two lengths, after a request with a body and after one without.
        let both = "POST / HTTP/1.1|Content-Length: 1|Transfer-Encoding: chunked||";
        check(&format!("POST / HTTP/1.1|Content-Length: 5||hello{both}"), true);
        check(&format!("POST / HTTP/1.1|Content-Length: 0||{both}"), true);
        check(&format!("GET / HTTP/1.1||{both}"), true);
        // Inside a body, it is not a head.
        let length = both.replace('|', "\r\n").len();
        check(&format!("POST / HTTP/1.1|Content-Length: {length}||{both}GET / HTTP/1.1||"), false);
        let long = "x".repeat(1000);
        check(&format!("POST /{long} HTTP/1.1|{long}: y|Content-Length: 5|Transfer-Encoding: chunked||"), true);
    }
}

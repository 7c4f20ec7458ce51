//! Tokens: a client's position in the server's order of changes.
//!
//! A sync token is `s<position>_<ephemeral>_<term>`: the client's position in the stored changes, its number in the changes
//! that are only in memory (typing, presence), and the term in which the position was committed. If the number belongs to a
//! start of a process that is not named like the term, as with several processes on one database, `.<start>` follows the
//! number. If messages to the device are left for the next answer, `_<position>` of the last one sent follows. Notes about
//! single rooms come after that ([`Hints`]). They are in the token so that they survive a restart without being stored. A
//! page token is `t<position>_<sub>`: the point right after a place in a room's timeline. Where the spec allows either,
//! [`PageToken::parse`] accepts both.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::store::{Position, RoomNid, TimelinePlace};

/// A client's position in `/sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncToken {
    pub position: Position,
    pub ephemeral: u64,
    /// The start of the process that has given the ephemeral number out.
    pub start: i64,
    pub term: i64,
    /// The position up to which the client has its to-device messages, if that is not `position`.
    pub to_device: Option<Position>,
}

/// The error for a token that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token that this server has given out")]
pub struct InvalidToken;

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}", self.position.0, self.ephemeral)?;
        if self.start != self.term {
            write!(f, ".{:x}", self.start)?;
        }
        write!(f, "_{:x}", self.term)?;
        self.to_device.map_or(Ok(()), |to_device| write!(f, "_{}", to_device.0))
    }
}

impl FromStr for SyncToken {
    type Err = InvalidToken;

    /// Reads a token; [`Hints::of`] reads the rest of it.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.split_once(HINT).map_or(text, |(token, _)| token);
        let mut parts = text.strip_prefix('s').ok_or(InvalidToken)?.splitn(4, '_');
        let mut part = || parts.next().ok_or(InvalidToken);
        let position = self::position(part()?)?;
        let ephemeral = part()?;
        let (ephemeral, start) = match ephemeral.split_once('.') {
            Some((ephemeral, start)) => (ephemeral, Some(start)),
            None => (ephemeral, None),
        };
        let term = number(part()?)?;
        let to_device = part().ok().map(self::position).transpose()?;
        // The client has no message from after its position. All up to this number are deleted, so a larger one would delete
        // messages that were never sent.
        if to_device.is_some_and(|to_device| to_device > position) {
            return Err(InvalidToken);
        }
        Ok(Self { position, ephemeral: decimal(ephemeral)?, start: start.map_or(Ok(term), number)?, term, to_device })
    }
}

/// The number of a term or of a start, in the one form in which we write it.
fn number(text: &str) -> Result<i64, InvalidToken> {
    let number = i64::from_str_radix(text, 16).map_err(|_| InvalidToken)?;
    if format!("{number:x}") == text { Ok(number) } else { Err(InvalidToken) }
}

/// The character that begins each hint of a token. It needs no escaping in a query.
const HINT: char = '~';

/// The maximum number of rooms in one hint of a token. A token is part of a URL, which must stay short.
pub const MAX_HINTED_ROOMS: usize = 100;

/// The part of a sync token that is about single rooms; empty in nearly all tokens.
///
/// Written as `~<letter><room>.<room>…`, with the short IDs of rooms, which have no meaning outside this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Rooms that the client lacks, because they could not be read or did not fit into the answer. They are sent whole
    /// once that is possible.
    pub left_out: BTreeSet<RoomNid>,
    /// Rooms in which a user was typing, as far as the client was last told.
    pub typing: BTreeSet<RoomNid>,
}

impl Hints {
    /// Reads the hints of a token.
    ///
    /// # Errors
    /// If this server did not write them.
    pub fn of(token: &str) -> Result<Self, InvalidToken> {
        let mut hints = Self::default();
        for hint in token.split(HINT).skip(1) {
            if let Some(rooms) = hint.strip_prefix('d') {
                hints.left_out = Self::rooms(rooms)?;
            } else if let Some(rooms) = hint.strip_prefix('t') {
                hints.typing = Self::rooms(rooms)?;
            } else {
                return Err(InvalidToken);
            }
        }
        Ok(hints)
    }

    /// Notes whether anybody types in a room, as the client was just told. `None`: it was told nothing.
    pub fn note_typing(&mut self, room: RoomNid, anybody: Option<bool>) {
        match anybody {
            // A client that sees typing in more rooms at once may show it for too long after a restart.
            Some(true) if self.typing.len() < MAX_HINTED_ROOMS => _ = self.typing.insert(room),
            Some(false) => _ = self.typing.remove(&room),
            Some(true) | None => {}
        }
    }

    fn rooms(text: &str) -> Result<BTreeSet<RoomNid>, InvalidToken> {
        let rooms = text.split('.').map(|room| room.parse().map(RoomNid).map_err(|_| InvalidToken));
        let rooms = rooms.take(MAX_HINTED_ROOMS + 1).collect::<Result<BTreeSet<_>, _>>()?;
        if rooms.len() > MAX_HINTED_ROOMS { Err(InvalidToken) } else { Ok(rooms) }
    }
}

impl fmt::Display for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, rooms) in [('d', &self.left_out), ('t', &self.typing)] {
            for (index, room) in rooms.iter().enumerate() {
                match index {
                    0 => write!(f, "{HINT}{letter}{}", room.0)?,
                    _ => write!(f, ".{}", room.0)?,
                }
            }
        }
        Ok(())
    }
}

/// A number in the one form in which we write it: without `+`, `-0` and leading zeros.
fn decimal<N: FromStr + fmt::Display>(text: &str) -> Result<N, InvalidToken> {
    text.parse().ok().filter(|number: &N| number.to_string() == text).ok_or(InvalidToken)
}

fn position(text: &str) -> Result<Position, InvalidToken> {
    let position: i64 = decimal(text)?;
    if position < 0 { Err(InvalidToken) } else { Ok(Position(position)) }
}

/// A point between two events of a timeline: after the event with this place, whether there is one or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken(pub TimelinePlace);

impl PageToken {
    /// Parses a page token or a sync token.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let Some(text) = text.strip_prefix('t') else {
            return text.parse::<SyncToken>().map(|token| Self(TimelinePlace::on_line(token.position)));
        };
        let (pos, sub) = text.split_once('_').ok_or(InvalidToken)?;
        let sub = decimal(sub).ok().filter(|sub| *sub <= 0).ok_or(InvalidToken)?;
        Ok(Self(TimelinePlace { pos: position(pos)?, sub }))
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}_{}", self.0.pos.0, self.0.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_way_to_the_client_and_back() {
        let token = SyncToken { position: Position(42), ephemeral: 7, start: 0x1f, term: 0x1f, to_device: None };
        assert_eq!(token.to_string(), "s42_7_1f");
        assert_eq!("s42_7_1f".parse(), Ok(token));
        let token = SyncToken { to_device: Some(Position(40)), ..token };
        assert_eq!(token.to_string(), "s42_7_1f_40");
        assert_eq!("s42_7_1f_40".parse(), Ok(token));
        let token = SyncToken { start: 0x2e, ..token };
        assert_eq!(token.to_string(), "s42_7.2e_1f_40");
        assert_eq!("s42_7.2e_1f_40".parse(), Ok(token));
        assert_eq!(PageToken::parse("s42_7_1f"), Ok(PageToken(TimelinePlace::on_line(Position(42)))));
        for sub in [0, -1, i64::MIN] {
            let token = PageToken(TimelinePlace { pos: Position(41), sub });
            assert_eq!(token.to_string(), format!("t41_{sub}"));
            assert_eq!(PageToken::parse(&token.to_string()), Ok(token));
        }
    }

    #[test]
    fn hints_survive_the_way_to_the_client_and_back() {
        let rooms = |rooms: &[i64]| rooms.iter().map(|room| RoomNid(*room)).collect::<BTreeSet<_>>();
        let check = |left_out: &[i64], typing: &[i64], text: &str| {
            let hints = Hints { left_out: rooms(left_out), typing: rooms(typing) };
            assert_eq!(hints.to_string(), text);
            assert_eq!(Hints::of(&format!("s42_7_1f_40{text}")), Ok(hints));
            let token = format!("s42_7_1f_40{text}").parse::<SyncToken>().unwrap();
            assert_eq!((token.position, token.to_device), (Position(42), Some(Position(40))));
        };
        check(&[], &[], "");
        check(&[3, 12], &[], "~d3.12");
        check(&[], &[7], "~t7");
        check(&[3], &[7, 8], "~d3~t7.8");
        let many = (0..=MAX_HINTED_ROOMS).map(|room| room.to_string()).collect::<Vec<_>>().join(".");
        for text in ["~", "~x1", "~d", "~d1.", "~d1.x", "~dd1", &format!("~d{many}")] {
            assert_eq!(Hints::of(&format!("s1_2_3{text}")), Err(InvalidToken), "{text}");
        }
    }

    #[test]
    fn what_we_did_not_write_is_refused() {
        let sync = ["", "s", "s1", "s1_2", "s-1_0_1", "s1_2_zz", "s1_2._3", "s1_2.zz_3", "s1_.2_3", "x5"];
        // Messages to the device from after the position, which were never sent.
        let ahead = ["s42_7_1f_43", "s42_7.2e_1f_9223372036854775807", "s42_7_1f_43~d3", "s0_0_1_1"];
        let forms = ["s+5_0_1", "s-0_0_1", "s05_0_1", "s5_+0_1", "s5_00_1", "s5_0_1_+4", "s5_0_1_04", "s5_0_1_-0"];
        let numbers = ["s5_0_+1f", "s5_0_01f", "s5_0_1F", "s5_0.01_1f"];
        let page_forms = ["t+5_0", "t-0_0", "t05_0", "t5_+0", "t5_-0", "t5_00", "t5_-01"];
        let pages = ["p41", "t", "t41", "t_0", "t41_", "t-1_0", "t41_1", "t41_-", "t1_2_3", "t99999999999999999999_0"];
        for text in sync.into_iter().chain(ahead).chain(forms).chain(numbers).chain(page_forms).chain(pages) {
            assert_eq!(text.parse::<SyncToken>(), Err(InvalidToken), "{text}");
            assert_eq!(PageToken::parse(text), Err(InvalidToken), "{text}");
        }
    }
}

//! Tokens: where a client is in the order of everything.
//!
//! A sync token is `s<position>_<ephemeral>_<incarnation>`: how far the client has seen what is stored, how far what is only
//! in memory (typing, presence), and which start of the server said so. Where messages to the device are left for the next
//! answer, `_<position>` of the last one follows. What is to be remembered about single rooms follows after that ([`Hints`]):
//! a token carries it, so that it outlives a restart, and nothing is stored for it. A page token is `p<position>`: a place between two
//! events. Where the spec lets a client use either, [`Place::parse`] takes both.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::store::{Position, RoomNid};

/// Where a client's `/sync` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncToken {
    pub position: Position,
    pub ephemeral: u64,
    pub incarnation: i64,
    /// Up to where the client has its messages to the device, if that is not `position`.
    pub to_device: Option<Position>,
}

/// Not a token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token that this server has given out")]
pub struct InvalidToken;

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}_{:x}", self.position.0, self.ephemeral, self.incarnation)?;
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
        Ok(Self {
            position: position(part()?)?,
            ephemeral: part()?.parse().map_err(|_| InvalidToken)?,
            incarnation: i64::from_str_radix(part()?, 16).map_err(|_| InvalidToken)?,
            to_device: part().ok().map(position).transpose()?,
        })
    }
}

/// Begins each hint of a token. Needs no escaping in a query.
const HINT: char = '~';

/// Rooms that one hint of a token names. A token is part of an address, which must not become long.
pub const MAX_HINTED_ROOMS: usize = 100;

/// The part of a sync token that is about single rooms; empty in nearly all tokens.
///
/// Written as `~<letter><room>.<room>…`, with the short ids of rooms, which mean nothing outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Rooms that the client has not got, because they could not be read or did not fit into the answer. They are given
    /// whole when they can be.
    pub left_out: BTreeSet<RoomNid>,
    /// Rooms in which somebody typed when the client was last told.
    pub typing: BTreeSet<RoomNid>,
}

impl Hints {
    /// The hints of a token.
    ///
    /// # Errors
    /// When we have not written them.
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

fn position(text: &str) -> Result<Position, InvalidToken> {
    let position: i64 = text.parse().map_err(|_| InvalidToken)?;
    if position < 0 { Err(InvalidToken) } else { Ok(Position(position)) }
}

/// A place between two events of a timeline: after the event at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub Position);

impl Place {
    /// From a page token or a sync token.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if let Some(text) = text.strip_prefix('p') {
            return position(text).map(Self);
        }
        text.parse::<SyncToken>().map(|token| Self(token.position))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_way_to_the_client_and_back() {
        let token = SyncToken { position: Position(42), ephemeral: 7, incarnation: 0x1f, to_device: None };
        assert_eq!(token.to_string(), "s42_7_1f");
        assert_eq!("s42_7_1f".parse(), Ok(token));
        let token = SyncToken { to_device: Some(Position(40)), ..token };
        assert_eq!(token.to_string(), "s42_7_1f_40");
        assert_eq!("s42_7_1f_40".parse(), Ok(token));
        assert_eq!(Place::parse("s42_7_1f"), Ok(Place(Position(42))));
        assert_eq!(Place::parse("p41"), Ok(Place(Position(41))));
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
        for text in ["", "s", "s1", "s1_2", "s-1_0_1", "p-1", "p", "x5", "s1_2_zz", "p99999999999999999999", "t1_2_3"] {
            assert_eq!(text.parse::<SyncToken>(), Err(InvalidToken), "{text}");
            assert_eq!(Place::parse(text), Err(InvalidToken), "{text}");
        }
    }
}

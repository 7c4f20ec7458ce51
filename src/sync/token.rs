//! Tokens: where a client is in the order of everything.
//!
//! A sync token is `s<position>_<ephemeral>_<incarnation>`: how far the client has seen what is stored, how far what is only
//! in memory (typing, presence), and which start of the server said so. Where messages to the device are left for the next
//! answer, `_<position>` of the last one follows. A page token is `p<position>`: a place between two
//! events. Where the spec lets a client use either, [`Place::parse`] takes both.

use std::{fmt, str::FromStr};

use crate::store::Position;

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

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
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
    fn what_we_did_not_write_is_refused() {
        for text in ["", "s", "s1", "s1_2", "s-1_0_1", "p-1", "p", "x5", "s1_2_zz", "p99999999999999999999", "t1_2_3"] {
            assert_eq!(text.parse::<SyncToken>(), Err(InvalidToken), "{text}");
            assert_eq!(Place::parse(text), Err(InvalidToken), "{text}");
        }
    }
}

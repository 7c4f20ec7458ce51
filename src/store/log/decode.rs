//! Reading the stored form of an entry, which [`mod@super::encode`] describes.
//!
//! Promise: a damaged blob is an error, and so is one under another key; neither is ever another entry. The result of
//! [`decode`] encodes to the same bytes again.

use sabha_federation::varint::{Malformed, Reader, checksum, unzigzag};

use super::{
    LogEntry, Touch, WordKind,
    encode::{CHECKSUM_BYTES, IdKind, KIND_BITS, LONG_STEP, LastIds, PLAIN_FLAGS, VERSION, is_plain, kind},
};
use crate::store::{DeviceNid, EventNid, KeyNid, Position, RoomNid, ServerNid, UserNid};

/// Errors of reading a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer release, or damaged in its first byte.
    #[error("the entry of the commit log has the unknown format version {0}")]
    UnknownVersion(u8),
    #[error("the entry of the commit log is damaged: {0}")]
    Corrupt(&'static str),
}

impl From<Malformed> for DecodeError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::Corrupt(reason)
    }
}

/// The entry in the blob of the row at `pos`.
///
/// # Errors
/// Fails if these are not exactly the bytes that [`encode`](super::encode()) gave for this position. Memory is allocated only for what the
/// blob has room for.
pub fn decode(pos: Position, blob: &[u8]) -> Result<LogEntry, DecodeError> {
    let version = *blob.first().ok_or(DecodeError::Corrupt("it is empty"))?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion(version));
    }
    let (content, stored) = blob
        .split_last_chunk::<CHECKSUM_BYTES>()
        .filter(|(content, _)| !content.is_empty())
        .ok_or(DecodeError::Corrupt("it is shorter than its checksum"))?;
    if checksum::<CHECKSUM_BYTES>(&[&pos.0.to_le_bytes(), content]) != *stored {
        return Err(DecodeError::Corrupt("its checksum is wrong"));
    }

    let mut parser = Parser { reader: Reader::new(&content[1..]), last_ids: LastIds::default() };
    let at_ms = parser.signed()?;
    let bytes_before = parser.reader.varint()?;
    let after = match parser.reader.varint()? {
        0 => None,
        span => pos.0.checked_sub_unsigned(span),
    };
    let after = Position(after.ok_or(DecodeError::Corrupt("it spans impossible positions"))?);

    let mut touches = Vec::new();
    let mut last = after;
    while !parser.reader.is_empty() {
        let (at, touch) = parser.touch(last)?;
        // A write has at least one position, so the first touch is after the batch before.
        if at > pos || at == after {
            return Err(DecodeError::Corrupt("a touch is outside the positions of its entry"));
        }
        touches.push((at, touch));
        last = at;
    }
    Ok(LogEntry { after, pos, at_ms, bytes_before, touches })
}

/// The numbers at the beginning of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) at_ms: i64,
    pub(super) bytes_before: u64,
}

/// The most bytes of a blob that [`head`] needs: the version, and two numbers.
pub(super) const HEAD_BYTES: i32 = 21;

/// Reads the head from the first bytes of a blob. They have no checksum, so damage may give other numbers.
pub(super) fn head(blob: &[u8]) -> Result<Head, DecodeError> {
    let (version, content) = blob.split_first().ok_or(DecodeError::Corrupt("it is empty"))?;
    if *version != VERSION {
        return Err(DecodeError::UnknownVersion(*version));
    }
    let mut reader = Reader::new(content);
    Ok(Head { at_ms: unzigzag(reader.varint()?), bytes_before: reader.varint()? })
}

struct Parser<'a> {
    reader: Reader<'a>,
    last_ids: LastIds,
}

impl Parser<'_> {
    /// A number of a smaller type.
    fn number<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.reader.varint()?).map_err(|_| DecodeError::Corrupt("a number is too large"))
    }

    fn signed(&mut self) -> Result<i64, DecodeError> {
        Ok(unzigzag(self.reader.varint()?))
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.reader.varint()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Corrupt("a flag is neither set nor unset")),
        }
    }

    /// A code above some flags.
    fn code(packed: u64, flags: u32) -> Result<u8, DecodeError> {
        u8::try_from(packed >> flags).map_err(|_| DecodeError::Corrupt("a membership is too large"))
    }

    fn id(&mut self, kind: IdKind) -> Result<i64, DecodeError> {
        let difference = self.signed()?;
        let last = &mut self.last_ids[kind as usize];
        *last = last.wrapping_add(difference);
        Ok(*last)
    }

    fn room(&mut self) -> Result<RoomNid, DecodeError> {
        self.id(IdKind::Room).map(RoomNid)
    }

    fn event(&mut self) -> Result<EventNid, DecodeError> {
        self.id(IdKind::Event).map(EventNid)
    }

    fn user(&mut self) -> Result<UserNid, DecodeError> {
        self.id(IdKind::User).map(UserNid)
    }

    fn device(&mut self) -> Result<DeviceNid, DecodeError> {
        self.id(IdKind::Device).map(DeviceNid)
    }

    fn server(&mut self) -> Result<ServerNid, DecodeError> {
        self.id(IdKind::Server).map(ServerNid)
    }

    fn tokens(&mut self) -> Result<Vec<[u8; 32]>, DecodeError> {
        let count: usize = self.number()?;
        if count > self.reader.len() / 32 {
            return Err(DecodeError::Corrupt("it names more tokens than it has room for"));
        }
        Ok((0..count).map(|_| self.reader.bytes()).collect::<Result<_, _>>()?)
    }

    /// The next touch and its position. `last` is the position of the touch before it.
    fn touch(&mut self, last: Position) -> Result<(Position, Touch), DecodeError> {
        let first = self.reader.byte()?;
        let step = match u64::from(first >> KIND_BITS) {
            LONG_STEP => self.reader.varint()?.checked_add(LONG_STEP),
            step => Some(step),
        };
        let at = step.and_then(|step| last.0.checked_add_unsigned(step));
        let at = Position(at.ok_or(DecodeError::Corrupt("a position is out of range"))?);
        Ok((at, self.fields(first & !(u8::MAX << KIND_BITS), at)?))
    }

    /// Reads the fields in the order in which they were written: the fields of a struct are evaluated as they stand.
    fn fields(&mut self, kind: u8, at: Position) -> Result<Touch, DecodeError> {
        Ok(match kind {
            kind::WORD => {
                let kind = match self.reader.byte()? {
                    0 => WordKind::User,
                    1 => WordKind::EventType,
                    2 => WordKind::StateKey,
                    3 => WordKind::Server,
                    _ => return Err(DecodeError::Corrupt("a kind of word is unknown")),
                };
                Touch::Word { kind, nid: self.id(IdKind::Word)? }
            }
            kind::PLAIN_EVENT => Touch::Event { room: self.room()?, event: self.event()?, sub: 0, flags: PLAIN_FLAGS },
            kind::EVENT => {
                let (room, event) = (self.room()?, self.event()?);
                let (sub, flags) = (self.signed()?, self.signed()?);
                if is_plain(sub, flags) {
                    return Err(DecodeError::Corrupt("a plain event is in the long form"));
                }
                Touch::Event { room, event, sub, flags }
            }
            kind::STATE => {
                let packed = self.reader.varint()?;
                let (room, key) = (self.room()?, KeyNid(self.id(IdKind::Key)?));
                let mut event = |bit: u64| if packed & bit == 0 { Ok(None) } else { self.event().map(Some) };
                let (event, before) = (event(1)?, event(2)?);
                let membership = match packed >> 2 {
                    0 => None,
                    code => Some(Self::code(code - 1, 0)?),
                };
                Touch::State { room, key, event, before, membership }
            }
            kind::REDACTED => Touch::Redacted { room: self.room()?, event: self.event()?, by: self.event()? },
            kind::MEMBER => {
                let packed = self.reader.varint()?;
                let (membership, forgotten) = (Self::code(packed, 1)?, packed & 1 == 1);
                Touch::Member { room: self.room()?, user: self.user()?, membership, forgotten }
            }
            kind::REMOTE_MEMBER => {
                let joined = self.flag()?;
                Touch::RemoteMember { room: self.room()?, user: self.user()?, joined }
            }
            kind::TXN => Touch::Txn { device: self.device()?, event: self.event()? },
            kind::RECEIPT => {
                let private = self.flag()?;
                Touch::Receipt { room: self.room()?, user: self.user()?, private }
            }
            kind::ACCOUNT_DATA => {
                let (kind, room) = (self.reader.byte()?, self.room()?);
                Touch::AccountData { user: self.user()?, room, kind }
            }
            kind::DEVICE_LIST => Touch::DeviceList { user: self.user()? },
            kind::DEVICE => {
                let gone = self.flag()?;
                Touch::Device { user: self.user()?, device: self.device()?, gone }
            }
            kind::KEY_COUNTS => Touch::KeyCounts { user: self.user()?, device: self.device()? },
            kind::TO_DEVICE => Touch::ToDevice {
                user: self.user()?,
                device: self.device()?,
                messages: self.number()?,
                bytes: self.number()?,
            },
            kind::TO_DEVICE_GONE => Touch::ToDeviceGone {
                device: self.device()?,
                upto: Position(at.0.wrapping_sub(self.signed()?)),
                messages: self.number()?,
                bytes: self.number()?,
            },
            kind::SESSIONS => Touch::Sessions { user: self.user()?, tokens: self.tokens()? },
            kind::ACCOUNT => Touch::Account { user: self.user()? },
            kind::PROFILE => Touch::Profile { user: self.user()? },
            kind::ALIAS => Touch::Alias { room: self.room()? },
            kind::DIRECTORY => Touch::Directory { room: self.room()? },
            kind::JOB => Touch::Job,
            kind::LEFTOVER => Touch::Leftover,
            kind::LEASE => Touch::Lease { epoch: self.signed()?, incarnation: self.signed()? },
            kind::GRAPH => Touch::Graph { room: self.room()? },
            kind::DUE => Touch::Due { kind: self.reader.byte()? },
            kind::FED_ITEM => Touch::FedItem { server: self.server()? },
            kind::REMOTE_DEVICES => Touch::RemoteDevices { user: self.user()? },
            kind::JUMP => Touch::Jump { room: self.room()? },
            _ => return Err(DecodeError::Corrupt("a kind of touch is unknown")),
        })
    }
}

//! Messages from device to device.
//!
//! Promise: a message that was answered with 200 stays until its device presents a later sync token ([`acknowledged`]),
//! and is not delivered after that. A repeated transaction ID sends nothing again. A device that never fetches its
//! messages loses old ones when it has more than `limits.to_device_per_device` or [`MAX_INBOX_BYTES`]: those of the
//! senders with the most waiting messages ([`overflow`]). A full inbox never refuses a new message, because that would
//! stop a message to a whole room.
//!
//! Sending is in [`send`], and what memory knows of each device's messages in [`inboxes`]. This module delivers and deletes
//! the waiting messages.

mod acknowledged;
mod commits;
mod inboxes;
mod overflow;
mod send;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use self::inboxes::Inbox;
pub(super) use self::inboxes::Inboxes;
pub use self::send::{MAX_MESSAGE_BYTES, MAX_MESSAGES, MAX_NAME_BYTES, SendToDeviceError};
use super::Keys;
use crate::store::{
    DeviceNid, Error, Position,
    to_device::{self, MessageRow},
};

/// Maximum bytes of waiting messages of a device. A message counts fully for each device, although several devices
/// share one body. A room key takes one or two kilobytes, so this lasts for a long holiday in busy rooms.
pub const MAX_INBOX_BYTES: u64 = 32 * 1024 * 1024;

/// Maximum bytes of messages in one answer; the rest follows in the next one. An answer has at least one message.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// Messages deleted in one commit. Other writers wait for it.
const DELETED_PER_COMMIT: usize = 500;

#[derive(Serialize)]
struct Event<'a> {
    sender: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    content: &'a RawValue,
}

impl Keys {
    /// Returns whether no message waits that the device has not acknowledged, as far as memory knows. `since` is the
    /// position up to which it has its messages.
    pub fn has_no_messages(&self, device: DeviceNid, since: Position) -> bool {
        let inboxes = &self.memory.inboxes;
        let is_told = |inbox: Inbox| {
            inbox.newest <= since || inboxes.acknowledged.find(device).is_some_and(|upto| inbox.newest <= upto)
        };
        inboxes.find(device).is_some_and(is_told)
    }

    /// The messages for the device in (`since`, `upto`], oldest first, as complete events, at most about `limit`. The
    /// second value is the position up to which the list is complete: `upto`, or an earlier one if there are more.
    /// Needs no query while no messages wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn to_device_messages(
        &self,
        device: DeviceNid,
        since: Position,
        upto: Position,
        limit: usize,
    ) -> Result<(Vec<Box<RawValue>>, Position), Error> {
        // An earlier request has acknowledged these, so they count as deleted.
        let since = self.memory.inboxes.acknowledged.find(device).map_or(since, |acknowledged| acknowledged.max(since));
        if self.inbox(device).await?.newest <= since {
            return Ok((Vec::new(), upto));
        }
        let limit = limit.max(1);
        let mut reader = self.db.read().await?;
        let sizes = to_device::sizes(&mut reader.conn(), device, since, upto, limit + 1).await?;
        let next = answer_upto(&sizes, limit).unwrap_or(upto);
        // One request sent all messages of one position, so `MAX_MESSAGES` bounds them.
        let rows = to_device::messages(&mut reader.conn(), device, since, next, limit + MAX_MESSAGES).await?;
        Ok((rows.iter().map(render).collect::<Result<_, _>>()?, next))
    }
}

/// The position at which the answer ends, if not all messages fit. A sync token stands between positions, so the
/// messages of one position go out together.
fn answer_upto(sizes: &[(Position, u64)], limit: usize) -> Option<Position> {
    let (first, _) = *sizes.first()?;
    let mut bytes = 0;
    let too_many = sizes.iter().enumerate().find(|(index, (_, size))| {
        bytes += size;
        *index == limit || (*index > 0 && bytes > MAX_ANSWER_BYTES)
    });
    let (_, (position, _)) = too_many?;
    Some(if *position == first { first } else { Position(position.0 - 1) })
}

fn render(row: &MessageRow) -> Result<Box<RawValue>, Error> {
    let damaged = |error| Error::damaged("to-device message", error);
    let content = serde_json::from_str(&row.json).map_err(damaged)?;
    to_raw_value(&Event { sender: &row.user_id, event_type: &row.event_type, content }).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_in_messages_and_bytes_and_ends_between_positions() {
        let check = |sizes: &[(i64, u64)], limit: usize, expected: Option<i64>| {
            let placed: Vec<_> = sizes.iter().map(|(position, bytes)| (Position(*position), *bytes)).collect();
            assert_eq!(answer_upto(&placed, limit), expected.map(Position), "{sizes:?}, {limit}");
        };
        let half = MAX_ANSWER_BYTES / 2;
        check(&[], 2, None);
        check(&[(3, 1), (5, 1)], 2, None);
        check(&[(3, 1), (5, 1), (9, 1)], 2, Some(8));
        check(&[(3, 1), (5, 1), (5, 1)], 2, Some(4));
        check(&[(5, 1), (5, 1)], 1, Some(5));
        check(&[(3, half), (5, half)], 9, None);
        check(&[(3, half), (5, half), (7, 1)], 9, Some(6));
        check(&[(3, 3 * half), (5, 1)], 9, Some(4));
        check(&[(3, 3 * half)], 9, None);
    }
}

//! Evicting messages from a full inbox: old messages of the senders with the most waiting messages go.
//!
//! Most inboxes that fill up belong to devices that nobody uses any more. But a stranger may fill one on purpose, to
//! push out the room keys in it. So the largest senders lose their messages, and those of other senders stay. The
//! reasons and the cost are in `docs/decisions/0016-who-fills-an-inbox-pays.md`.

use super::{DELETED_PER_COMMIT, inboxes::Inbox};
use crate::{
    keys::Keys,
    store::{
        Conn, DeviceNid, Error, Position, Transaction,
        to_device::{self, FromSender, MessagePlace, Removed},
    },
};

/// Senders whose messages are evicted at once. The next message evicts the rest.
const MAX_SENDERS: usize = 32;

/// Deletes messages of a device.
struct DropMessages {
    device: DeviceNid,
    places: Vec<MessagePlace>,
}

impl Keys {
    /// Evicts messages so that `messages` more, of `bytes` in all, fit into the device's inbox.
    pub(super) async fn make_room(&self, device: DeviceNid, (messages, bytes): (u64, u64)) -> Result<(), Error> {
        let (limit, limit_bytes) = (self.to_device_per_device as u64, self.to_device_bytes);
        let is_full = |inbox: Inbox| inbox.count + messages > limit || inbox.bytes + bytes > limit_bytes;
        if !is_full(self.inbox(device).await?) {
            return Ok(());
        }
        // Two concurrent senders must not both make room for the messages of both.
        let _turn = self.overflow.lock().await;
        // Acknowledged messages do not count.
        self.delete_acknowledged_of(device).await?;
        // The cached bounds may be too high, so the database says what really has to go.
        let mut reader = self.db.read().await?;
        let senders = to_device::senders(&mut reader.conn(), device).await?;
        let mut places = Vec::new();
        // Evict a little more than needed, or every further message would have to make room again.
        for (amount, wanted, limit, slack) in [
            (messages_of as fn(&FromSender) -> u64, messages, limit, limit / 16),
            (bytes_of as fn(&FromSender) -> u64, bytes, limit_bytes, limit_bytes / 16),
        ] {
            let waiting: u64 = senders.iter().map(amount).sum();
            if waiting.saturating_add(wanted) <= limit {
                continue;
            }
            let excess = (waiting + wanted - limit).saturating_add(slack).min(waiting);
            for (sender, share) in shares(&senders, amount, excess) {
                let (conn, most) = (&mut reader.conn(), self.to_device_per_device);
                let mut left = share;
                for (place, size) in to_device::oldest_of_sender(conn, device, sender.sender, most).await? {
                    if left == 0 {
                        break;
                    }
                    let one = FromSender { sender: sender.sender, messages: 1, bytes: size };
                    left = left.saturating_sub(amount(&one));
                    places.push(place);
                }
            }
        }
        drop(reader);
        places.sort_unstable();
        places.dedup();
        let mut dropped = 0;
        for places in places.chunks(DELETED_PER_COMMIT) {
            let places = places.to_vec();
            dropped += self.db.committer().transact(DropMessages { device, places }).await?.messages;
        }
        if dropped > 0 {
            tracing::warn!(device_nid = device.0, messages = dropped, "dropped messages of a device that fetches none");
        }
        Ok(())
    }
}

fn messages_of(sender: &FromSender) -> u64 {
    sender.messages
}

fn bytes_of(sender: &FromSender) -> u64 {
    sender.bytes
}

/// Divides `excess` among the senders: the largest are reduced to one common level.
fn shares(senders: &[FromSender], amount: fn(&FromSender) -> u64, excess: u64) -> Vec<(FromSender, u64)> {
    let mut largest: Vec<FromSender> = senders.to_vec();
    largest.sort_unstable_by_key(|sender| (std::cmp::Reverse(amount(sender)), sender.sender));
    largest.truncate(MAX_SENDERS);
    // Reduces the first `count` senders to the amount of the next one, or to the level that is exactly enough.
    for count in 1..=largest.len() {
        let sum: u64 = largest[..count].iter().map(amount).sum();
        let next = largest.get(count).map_or(0, amount);
        if sum.saturating_sub(next * count as u64) >= excess || count == largest.len() {
            let level = sum.saturating_sub(excess) / count as u64;
            return largest[..count].iter().map(|sender| (*sender, amount(sender).saturating_sub(level))).collect();
        }
    }
    Vec::new()
}

impl Transaction for DropMessages {
    type Output = Removed;

    fn rows(&self) -> usize {
        self.places.len()
    }

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Removed, Error> {
        let removed = to_device::delete(conn, self.device, &self.places).await?;
        // Others before these stay.
        conn.touch(removed.touch(self.device, Position::BEFORE_ALL));
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::UserNid;

    #[test]
    fn whoever_sent_most_bears_the_excess() {
        let check = |amounts: &[u64], excess: u64, expected: &[(i64, u64)]| {
            let senders: Vec<FromSender> = (1..)
                .zip(amounts)
                .map(|(sender, messages)| FromSender { sender: UserNid(sender), messages: *messages, bytes: 0 })
                .collect();
            let found: Vec<_> = shares(&senders, messages_of, excess)
                .into_iter()
                .map(|(sender, share)| (sender.sender.0, share))
                .collect();
            assert_eq!(found, expected, "{amounts:?}, {excess}");
        };
        check(&[], 5, &[]);
        check(&[100], 5, &[(1, 5)]);
        check(&[3, 100, 5], 90, &[(2, 90)]);
        check(&[50, 100], 50, &[(2, 50)]);
        check(&[50, 100], 60, &[(2, 55), (1, 5)]);
        check(&[10, 10, 10], 30, &[(1, 10), (2, 10), (3, 10)]);
        check(&[10, 10, 10], 3, &[(1, 1), (2, 1), (3, 1)]);
    }
}

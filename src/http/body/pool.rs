//! A budget for the texts of bodies, of which no sender has more than a share. Nobody waits: a body that finds no memory is
//! refused.

use std::{collections::HashMap, sync::Mutex};

use super::{RETRY, Sender};
use crate::{http::ApiError, store::ids::lock};

/// The memory budget for bodies of one kind.
#[derive(Debug)]
pub(super) struct Pool {
    all_bytes: usize,
    share_bytes: usize,
    /// The bytes that every sender may hold even when the budget is used up.
    always_bytes: usize,
    pub(super) held: Mutex<Held>,
}

/// The bytes that are held at the moment, by kind of sender and by sender.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) of_known: usize,
    pub(super) of_strangers: usize,
    pub(super) of_unproven: usize,
    pub(super) shares: HashMap<Sender, usize>,
}

impl Pool {
    pub(super) fn new(all_bytes: usize, share_bytes: usize, always_bytes: usize) -> Self {
        Self { all_bytes, share_bytes, always_bytes, held: Mutex::default() }
    }

    pub(super) fn take(&self, sender: Sender, more: usize) -> Result<(), ApiError> {
        let mut held = lock(&self.held);
        let share = held.shares.get(&sender).copied().unwrap_or_default() + more;
        if share > self.share_bytes {
            return Err(ApiError::limit_exceeded(RETRY));
        }
        let all = held.all(sender);
        if *all + more > self.all_bytes && share > self.always_bytes {
            return Err(too_much());
        }
        *all += more;
        held.shares.insert(sender, share);
        Ok(())
    }

    pub(super) fn give_back(&self, sender: Sender, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut held = lock(&self.held);
        *held.all(sender) -= bytes;
        if let Some(share) = held.shares.get_mut(&sender) {
            *share -= bytes;
            if *share == 0 {
                held.shares.remove(&sender);
            }
        }
    }
}

pub(super) fn too_much() -> ApiError {
    ApiError::unavailable("The server receives too much at this moment. Please try again.")
}

impl Held {
    fn all(&mut self, sender: Sender) -> &mut usize {
        match sender {
            Sender::User(_) | Sender::Appservice => &mut self.of_known,
            Sender::Stranger(_) => &mut self.of_strangers,
            Sender::Unproven(_) => &mut self.of_unproven,
        }
    }
}

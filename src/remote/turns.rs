//! Turns for requests to other servers. Anybody can ask us for a profile elsewhere, without an account, and a server
//! can be slow on purpose. So requests of users have their own limits, in total and for each server, which leave
//! sockets for the rest.

use std::{collections::HashMap, sync::Mutex};

use ruma::{OwnedServerName, ServerName};

use crate::store::ids::lock;

/// Maximum number of users' requests at a time.
const MAX_TURNS: usize = 128;

/// Maximum number of these to one server. A healthy server answers hundreds a second in as many turns.
const MAX_TURNS_PER_SERVER: usize = 8;

/// The turns in use.
#[derive(Debug, Default)]
pub struct Turns {
    /// The number of turns by server, without servers that have none. Locked for a few lines without `.await`.
    taken: Mutex<HashMap<OwnedServerName, usize>>,
}

/// The right to send one request. Ends when dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    server: OwnedServerName,
}

impl Turns {
    /// Takes a turn for this server. Returns `None` if too many requests are running; waiting would only make their
    /// queue longer.
    pub fn take(&self, server: &ServerName) -> Option<Turn<'_>> {
        let mut taken = lock(&self.taken);
        let all: usize = taken.values().sum();
        let of_server = taken.get(server).copied().unwrap_or(0);
        if all >= MAX_TURNS || of_server >= MAX_TURNS_PER_SERVER {
            return None;
        }
        taken.insert(server.to_owned(), of_server + 1);
        Some(Turn { turns: self, server: server.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.turns.taken);
        match taken.get_mut(&self.server) {
            Some(of_server) if *of_server > 1 => *of_server -= 1,
            _ => {
                taken.remove(&self.server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(n: usize) -> OwnedServerName {
        ServerName::parse(format!("s{n}.test")).unwrap()
    }

    #[test]
    fn one_server_cannot_take_the_turns_of_others() {
        let turns = Turns::default();
        let mut held: Vec<_> = (0..MAX_TURNS_PER_SERVER).map(|_| turns.take(&server(0)).unwrap()).collect();
        assert!(turns.take(&server(0)).is_none());
        assert!(turns.take(&server(1)).is_some());
        held.pop();
        assert!(turns.take(&server(0)).is_some());
        drop(held);
        assert!(lock(&turns.taken).is_empty());
    }

    #[test]
    fn all_together_have_a_bound() {
        let turns = Turns::default();
        let held: Vec<_> = (0..MAX_TURNS).map(|n| turns.take(&server(n)).unwrap()).collect();
        assert!(turns.take(&server(MAX_TURNS)).is_none());
        drop(held);
        assert!(turns.take(&server(MAX_TURNS)).is_some());
    }
}

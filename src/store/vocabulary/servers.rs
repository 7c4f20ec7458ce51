//! Other servers. Each has a short id from the first of its users that is stored; this server has none but
//! [`ServerNid::OURS`].
//!
//! They live in memory as users do: a server that is stored and that nobody holds can be evicted.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use ruma::{OwnedServerName, ServerName, UserId};

use super::{Mark, read, write};
use crate::store::{
    Database, Error, ServerNid, Write,
    log::{Touch, WordKind},
    on,
    rows::{Text, inserts},
    statements,
};

statements! {
    FIND_SERVER = "SELECT server_nid FROM server WHERE name = $1";
}

inserts! {
    SERVER: ServerColumns = "server" (server_nid: ServerNid, name: Text) key 1 Keep, followed by Word;
}

/// Another server, with its short id.
#[derive(Debug)]
pub struct KnownServer {
    pub nid: ServerNid,
    pub name: OwnedServerName,
    stored: Arc<Mark>,
}

impl KnownServer {
    /// Adds the row to `write`, unless it is known to be stored.
    pub(super) fn write_if_new(&self, write: &mut Write) {
        if !self.stored.is_stored() {
            let row = ServerColumns { server_nid: self.nid, name: self.name.as_str().into() }.row();
            write.add_word(row, Touch::Word { kind: WordKind::Server, nid: self.nid.0 }, Arc::clone(&self.stored));
        }
    }

    /// Returns whether the server was forgotten before it was stored: it may have another short id by now.
    pub(super) fn is_forgotten(&self) -> bool {
        self.stored.is_void()
    }
}

/// The servers in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<OwnedServerName, Arc<KnownServer>>,
    /// The servers that are not stored yet.
    new: HashMap<ServerNid, Arc<KnownServer>>,
}

impl Known {
    fn get(&self, name: &ServerName) -> Option<Arc<KnownServer>> {
        self.by_name.get(name).cloned()
    }

    fn add(&mut self, nid: ServerNid, name: &ServerName, stored: bool) -> Arc<KnownServer> {
        let mark = Arc::new(Mark::new(stored));
        let server = Arc::new(KnownServer { nid, name: name.to_owned(), stored: mark });
        if !stored {
            self.new.insert(nid, Arc::clone(&server));
        }
        self.by_name.insert(name.to_owned(), Arc::clone(&server));
        server
    }
}

impl Servers {
    /// The server of a user whose row has this short id; `None` if it is this server.
    pub(super) fn of_stored_user(&self, nid: ServerNid, user_id: &UserId) -> Option<Arc<KnownServer>> {
        if nid == ServerNid::OURS {
            return None;
        }
        let mut known = write(&self.0);
        // Its row was stored before that of the user, or with it.
        Some(known.get(user_id.server_name()).unwrap_or_else(|| known.add(nid, user_id.server_name(), true)))
    }

    /// Notes that a server is stored from now on.
    pub(super) fn stored(&self, nid: ServerNid) {
        if let Some(server) = write(&self.0).new.remove(&nid) {
            server.stored.store();
        }
    }

    /// Forgets the servers that are not stored.
    pub(super) fn forget_new(&self) {
        let Known { by_name, new } = &mut *write(&self.0);
        for (_, server) in new.drain() {
            server.stored.give_up();
            by_name.remove(&server.name);
        }
    }

    /// The number of servers in memory.
    pub(super) fn count(&self) -> usize {
        read(&self.0).by_name.len()
    }

    /// Evicts servers whom nobody holds, if there are more than `kept`. One that is not stored yet must stay: another
    /// lookup would give it a second short id.
    pub(super) fn forget(&self, kept: usize) {
        let by_name = &mut write(&self.0).by_name;
        if by_name.len() > kept {
            by_name.retain(|_, server| Arc::strong_count(server) > 1 || !server.stored.is_stored());
        }
    }
}

impl Database {
    /// The server with this name, with a new short id if there was none.
    pub async fn server(&self, name: &ServerName) -> Result<Arc<KnownServer>, Error> {
        let Servers(known) = &self.vocabulary().servers;
        if let Some(server) = read(known).get(name) {
            return Ok(server);
        }
        let openings = self.committer().ids().openings();
        let mut reader = self.read().await?;
        let row: Option<(i64,)> = on!(&mut reader.conn(), db =>
            sqlx::query_as(FIND_SERVER.text()).bind(name.as_str()).fetch_optional(&mut **db).await)?;
        let mut known = write(known);
        if let Some(server) = known.get(name) {
            return Ok(server);
        }
        let nid = match row {
            Some((nid,)) => ServerNid(nid),
            None => {
                self.committer().ids().ensure_since(openings)?;
                self.committer().ids().server()?
            }
        };
        Ok(known.add(nid, name, row.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};

    use super::*;
    use crate::store::{
        tests::{NewDatabase, count_rows, failing},
        vocabulary::{User, Users},
    };

    #[tokio::test]
    async fn a_server_is_stored_with_the_first_of_its_users() {
        for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
            let alice = db.user(user_id!("@alice:sabha.test"), true).await.unwrap();
            let carol = db.user(user_id!("@carol:remote.test"), false).await.unwrap();
            let dave = db.user(user_id!("@dave:remote.test"), false).await.unwrap();
            assert!(alice.is_local() && !carol.is_local() && !dave.is_local());
            let server = db.server(server_name!("remote.test")).await.unwrap();
            assert_ne!(server.nid, ServerNid::OURS);
            for user in [&carol, &dave] {
                assert!(Arc::ptr_eq(user.server.as_ref().unwrap(), &server));
            }
            let rows = |users: &[&Arc<User>]| {
                let mut write = Write::default();
                users.iter().for_each(|user| user.write_if_new(&mut write));
                write
            };
            assert_eq!(rows(&[&alice]).rows.len(), 1, "this server has no row");
            db.committer().write(failing(rows(&[&carol]))).await.unwrap_err();
            assert_eq!(rows(&[&carol]).rows.len(), 2, "the next write must carry them again");
            db.committer().write(rows(&[&alice, &carol])).await.unwrap();
            assert_eq!((rows(&[&carol]).rows.len(), rows(&[&dave]).rows.len()), (0, 1));
            assert_eq!((count_rows(&db, "server").await, count_rows(&db, "matrix_user").await), (1, 2));
            let vocabulary = db.vocabulary();
            assert!(read(&vocabulary.servers.0).new.is_empty(), "none is on its way any more");

            // Empty memory reads the same users, who have the same server.
            *write(&vocabulary.users) = Users::default();
            *write(&vocabulary.servers.0) = Known::default();
            let carol_again = db.user_by_nid(carol.nid).await.unwrap();
            let alice_again = db.find_user(&alice.user_id).await.unwrap().unwrap();
            assert_eq!(carol_again.server.as_ref().map(|server| server.nid), Some(server.nid));
            assert!(alice_again.is_local());
            assert_eq!(rows(&[&carol_again, &alice_again]).rows.len(), 0);
            *write(&vocabulary.servers.0) = Known::default();
            assert_eq!(db.server(&server.name).await.unwrap().nid, server.nid);
        }
    }

    #[test]
    fn only_servers_that_can_be_read_again_are_forgotten() {
        let servers = Servers::default();
        let add = |name: &ServerName, nid: i64, stored: bool| write(&servers.0).add(ServerNid(nid), name, stored);
        let held = add(server_name!("held.test"), 1, true);
        drop(add(server_name!("stored.test"), 2, true));
        drop(add(server_name!("new.test"), 3, false));
        let left = |kept: usize| {
            servers.forget(kept);
            let mut left: Vec<i64> = read(&servers.0).by_name.values().map(|server| server.nid.0).collect();
            left.sort_unstable();
            left
        };
        assert_eq!(left(3), [1, 2, 3], "there is room for them");
        assert_eq!(left(2), [1, 3]);
        drop(held);
        assert_eq!(left(1), [3]);
        servers.stored(ServerNid(3));
        assert_eq!(left(0), [0; 0]);
    }
}

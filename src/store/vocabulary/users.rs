//! Users, local and remote, with their short ids.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedUserId, UserId};

use super::{Mark, read, servers::KnownServer, write};
use crate::store::{
    Database, Error, ServerNid, UserNid, Write,
    device_keys::{USERS_PER_STATEMENT, in_32},
    log::{Touch, WordKind},
    on,
    rows::{Text, inserts},
    statements,
};

statements! {
    FIND_USER = "SELECT user_nid, server_nid FROM matrix_user WHERE user_id = $1";
    FIND_USERS_32 = concat!("SELECT user_nid, server_nid, user_id FROM matrix_user WHERE user_id IN ", in_32!());
    FIND_USER_BY_NID = "SELECT user_id, server_nid FROM matrix_user WHERE user_nid = $1";
}

inserts! {
    USER: UserColumns = "matrix_user" (
        user_nid: UserNid, user_id: Text, server_nid: ServerNid
    ) key 1 Keep, followed by Word;
}

/// A user, local or remote, with its short id.
#[derive(Debug)]
pub struct User {
    pub nid: UserNid,
    pub user_id: OwnedUserId,
    /// The user's server; `None` if it is this one.
    pub server: Option<Arc<KnownServer>>,
    pub(super) stored: Arc<Mark>,
}

impl User {
    /// Returns whether the user is one of this server.
    pub fn is_local(&self) -> bool {
        self.server.is_none()
    }

    /// The touch of a commit that stores the user.
    pub(crate) fn touch(&self) -> Touch {
        Touch::Word { kind: WordKind::User, nid: self.nid.0 }
    }

    /// Adds the row to `write`, and that of the user's server, unless they are known to be stored.
    pub fn write_if_new(&self, write: &mut Write) {
        if let Some(server) = &self.server {
            server.write_if_new(write);
        }
        if !self.stored.is_stored() {
            let server_nid = self.server.as_ref().map_or(ServerNid::OURS, |server| server.nid);
            let row = UserColumns { user_nid: self.nid, user_id: self.user_id.as_str().into(), server_nid }.row();
            write.add_word(row, self.touch(), Arc::clone(&self.stored));
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) by_id: HashMap<OwnedUserId, Arc<User>>,
    pub(super) by_nid: HashMap<UserNid, Arc<User>>,
}

impl Users {
    pub(super) fn add(
        &mut self,
        nid: UserNid,
        user_id: &UserId,
        server: Option<Arc<KnownServer>>,
        stored: bool,
    ) -> Arc<User> {
        if let Some(user) = self.by_id.get(user_id) {
            return Arc::clone(user);
        }
        let stored = Arc::new(Mark::new(stored));
        let user = Arc::new(User { nid, user_id: user_id.to_owned(), server, stored });
        self.by_id.insert(user_id.to_owned(), Arc::clone(&user));
        self.by_nid.insert(nid, Arc::clone(&user));
        user
    }

    /// Forgets users who are not stored yet.
    pub(super) fn forget_new(&mut self) {
        let by_nid = &mut self.by_nid;
        self.by_id.retain(|_, user| {
            user.stored.give_up();
            if !user.stored.is_stored() {
                by_nid.remove(&user.nid);
            }
            user.stored.is_stored()
        });
    }

    /// Evicts users whom nobody holds, if there are more than `kept`. A user who is not stored yet must stay: another
    /// lookup would give them a second short id.
    pub(super) fn forget(&mut self, kept: usize) {
        if self.by_id.len() <= kept {
            return;
        }
        let by_nid = &mut self.by_nid;
        self.by_id.retain(|_, user| {
            // The two maps hold one reference each.
            let keep = Arc::strong_count(user) > 2 || !user.stored.is_stored();
            if !keep {
                by_nid.remove(&user.nid);
            }
            keep
        });
    }
}

impl Database {
    /// The user, if an event or an account has ever named it.
    pub async fn find_user(&self, user_id: &UserId) -> Result<Option<Arc<User>>, Error> {
        let users = &self.vocabulary().users;
        if let Some(user) = read(users).by_id.get(user_id) {
            return Ok(Some(Arc::clone(user)));
        }
        let mut reader = self.read().await?;
        let row: Option<(i64, i64)> = on!(&mut reader.conn(), db =>
            sqlx::query_as(FIND_USER.text()).bind(user_id.as_str()).fetch_optional(&mut **db).await)?;
        Ok(row.map(|(nid, server)| {
            let server = self.vocabulary().servers.of_stored_user(ServerNid(server), user_id);
            write(users).add(UserNid(nid), user_id, server, true)
        }))
    }

    /// Those of the users whom an event or an account has ever named, in no order.
    pub async fn find_users<'a>(
        &self,
        user_ids: impl Iterator<Item = &'a OwnedUserId>,
    ) -> Result<Vec<Arc<User>>, Error> {
        let (mut found, mut others): (Vec<Arc<User>>, Vec<&OwnedUserId>) = Default::default();
        for user_id in user_ids {
            match read(&self.vocabulary().users).by_id.get(user_id) {
                Some(user) => found.push(Arc::clone(user)),
                None => others.push(user_id),
            }
        }
        if others.is_empty() {
            return Ok(found);
        }
        let mut reader = self.read().await?;
        for chunk in others.chunks(USERS_PER_STATEMENT) {
            let rows: Vec<(i64, i64, String)> = on!(&mut reader.conn(), db => {
                let mut query = sqlx::query_as(FIND_USERS_32.text());
                for index in 0..USERS_PER_STATEMENT {
                    // No user ID is empty, so an empty one finds nothing.
                    query = query.bind(chunk.get(index).map_or("", |user_id| user_id.as_str()));
                }
                query.fetch_all(&mut **db).await
            })?;
            for (nid, server, user_id) in rows {
                let user_id = UserId::parse(&user_id).map_err(|error| Error::damaged("user ID", error))?;
                let server = self.vocabulary().servers.of_stored_user(ServerNid(server), &user_id);
                found.push(write(&self.vocabulary().users).add(UserNid(nid), &user_id, server, true));
            }
        }
        Ok(found)
    }

    /// The user, with a new short id if there was none.
    pub async fn user(&self, user_id: &UserId, local: bool) -> Result<Arc<User>, Error> {
        let openings = self.committer().ids().openings();
        if let Some(user) = self.find_user(user_id).await? {
            return Ok(user);
        }
        loop {
            let server = if local { None } else { Some(self.server(user_id.server_name()).await?) };
            let mut users = write(&self.vocabulary().users);
            if server.as_ref().is_some_and(|server| server.is_forgotten()) {
                continue;
            }
            // Under the lock: a user who is made while the new ones are forgotten is among them, or gets no short id.
            self.committer().ids().ensure_since(openings)?;
            let nid = self.committer().ids().user()?;
            return Ok(users.add(nid, user_id, server, false));
        }
    }

    /// The user with this short id, which comes from the database.
    ///
    /// # Errors
    /// [`Error::Damaged`] if there is none.
    pub async fn user_by_nid(&self, nid: UserNid) -> Result<Arc<User>, Error> {
        let users = &self.vocabulary().users;
        if let Some(user) = read(users).by_nid.get(&nid) {
            return Ok(Arc::clone(user));
        }
        let mut reader = self.read().await?;
        let row: Option<(String, i64)> = on!(&mut reader.conn(), db =>
            sqlx::query_as(FIND_USER_BY_NID.text()).bind(nid.0).fetch_optional(&mut **db).await)?;
        let (user_id, server) = row.ok_or_else(|| Error::damaged("user", format!("no row for {}", nid.0)))?;
        let user_id = UserId::parse(&user_id).map_err(|error| Error::damaged("user ID", error))?;
        let server = self.vocabulary().servers.of_stored_user(ServerNid(server), &user_id);
        Ok(write(users).add(nid, &user_id, server, true))
    }
}

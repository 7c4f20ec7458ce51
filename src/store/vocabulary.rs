//! The vocabulary: Matrix identifiers that have a short id, kept in memory once they have been seen.
//!
//! A new word gets its short id at once; its row travels with the first write that uses it. Until that write has been
//! committed, every further write that uses the word carries the row again, so a failed write leaves no dangling id.
//!
//! Only one process makes words at a time. When another one begins to, the words that are not stored are forgotten, and a
//! write that still has one is refused.
//!
//! Memory is a cache with the database behind it. Users and event types that are stored and that nobody holds can be
//! evicted and read again ([`Database::forget_words`]), and so can [`servers`]; pairs of type and state key, of which a
//! room may have any number, are in [`keys`].

pub mod keys;
mod mark;
pub mod servers;

use std::{
    collections::HashMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use ruma::{OwnedUserId, UserId};

pub(crate) use self::mark::Mark;
use self::{
    keys::Keys,
    servers::{KnownServer, Servers},
};
use super::{
    Database, Error, KeyNid, Position, ServerNid, TypeNid, UserNid, Write,
    log::{LogEntry, Memory, Touch, WordKind},
    on,
    rows::{Text, inserts},
    statements,
};
use crate::memory::budget::{Budget, Part};

statements! {
    FIND_USER = "SELECT user_nid, server_nid FROM matrix_user WHERE user_id = $1";
    FIND_USER_BY_NID = "SELECT user_id, server_nid FROM matrix_user WHERE user_nid = $1";
    FIND_TYPE = "SELECT type_nid FROM event_type WHERE type = $1";
}

inserts! {
    USER: UserColumns = "matrix_user" (
        user_nid: UserNid, user_id: Text, server_nid: ServerNid
    ) key 1 Keep, followed by Word;
    EVENT_TYPE: EventTypeColumns = "event_type" (type_nid: TypeNid, r#type: Text) key 1 Keep, followed by Word;
}

/// A user, local or remote, with its short id.
#[derive(Debug)]
pub struct User {
    pub nid: UserNid,
    pub user_id: OwnedUserId,
    /// The user's server; `None` if it is this one.
    pub server: Option<Arc<KnownServer>>,
    stored: Arc<Mark>,
}

/// An event type, with its short id.
#[derive(Debug)]
pub struct EventType {
    pub nid: TypeNid,
    pub event_type: Arc<str>,
    stored: Arc<Mark>,
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

impl EventType {
    /// Adds the row to `write`, unless it is known to be stored.
    pub fn write_if_new(&self, write: &mut Write) {
        if !self.stored.is_stored() {
            let row = EventTypeColumns { type_nid: self.nid, r#type: Arc::clone(&self.event_type) }.row();
            write.add_word(row, Touch::Word { kind: WordKind::EventType, nid: self.nid.0 }, Arc::clone(&self.stored));
        }
    }
}

/// The memory of a user, a server or an event type, in two maps. Those that somebody holds stay, however many there are.
const WORD_BYTES: usize = 300;

/// The number of users, of servers and of event types before they have their share of the memory budget, and in tools
/// without a budget: 2 MB each.
const FIRST_WORDS: usize = 7_000;

/// All words that this process has met.
#[derive(Debug)]
pub struct Vocabulary {
    users: Arc<RwLock<Users>>,
    servers: Servers,
    types: Arc<RwLock<Types>>,
    keys: Keys,
    /// The number of users, of servers and of event types above which those that nobody holds are evicted.
    kept: AtomicUsize,
}

impl Default for Vocabulary {
    fn default() -> Self {
        let (users, servers, types, keys) = Default::default();
        Self { users, servers, types, keys, kept: AtomicUsize::new(FIRST_WORDS) }
    }
}

#[derive(Debug, Default)]
struct Users {
    by_id: HashMap<OwnedUserId, Arc<User>>,
    by_nid: HashMap<UserNid, Arc<User>>,
}

impl Users {
    fn add(&mut self, nid: UserNid, user_id: &UserId, server: Option<Arc<KnownServer>>, stored: bool) -> Arc<User> {
        if let Some(user) = self.by_id.get(user_id) {
            return Arc::clone(user);
        }
        let stored = Arc::new(Mark::new(stored));
        let user = Arc::new(User { nid, user_id: user_id.to_owned(), server, stored });
        self.by_id.insert(user_id.to_owned(), Arc::clone(&user));
        self.by_nid.insert(nid, Arc::clone(&user));
        user
    }
}

#[derive(Debug, Default)]
struct Types {
    by_name: HashMap<Arc<str>, Arc<EventType>>,
    /// The types that are not stored yet.
    new: HashMap<TypeNid, Arc<EventType>>,
}

impl Memory for Vocabulary {
    /// Notes which words are stored from now on. A word that is not in memory is read when it is looked up.
    fn apply(&self, entry: &LogEntry) {
        for (_, touch) in &entry.touches {
            let Touch::Word { kind, nid } = *touch else { continue };
            match kind {
                WordKind::User => {
                    if let Some(user) = read(&self.users).by_nid.get(&UserNid(nid)) {
                        user.stored.store();
                    }
                }
                WordKind::EventType => {
                    if let Some(known) = write(&self.types).new.remove(&TypeNid(nid)) {
                        known.stored.store();
                    }
                }
                WordKind::Server => self.servers.stored(ServerNid(nid)),
                WordKind::StateKey => self.keys.stored(KeyNid(nid)),
            }
        }
    }

    /// Forgets the words that are not stored. Those that are stored stay as they are for ever.
    fn forget(&self, _: Position) {
        // The servers first: a user who is made after them finds out.
        self.servers.forget_new();
        write(&self.users).forget_new();
        let Types { by_name, new } = &mut *write(&self.types);
        for (_, known) in new.drain() {
            known.stored.give_up();
            by_name.remove(&known.event_type);
        }
        self.keys.forget_new();
    }
}

impl Users {
    /// Forgets users who are not stored yet.
    fn forget_new(&mut self) {
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
    fn forget(&mut self, kept: usize) {
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

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Database {
    /// Limits the words in memory to their shares of the budget.
    pub fn limit_words(&self, budget: &Budget) {
        let vocabulary = self.vocabulary();
        vocabulary.keys.limit(budget);
        // A third for each of users, servers and event types, as nobody knows which of them a flood will bring.
        let kept = usize::try_from(budget.share(Part::Words)).unwrap_or(usize::MAX) / WORD_BYTES / 3;
        vocabulary.kept.store(kept, Ordering::Relaxed);
        let (users, types) = (Arc::clone(&vocabulary.users), Arc::clone(&vocabulary.types));
        let servers = vocabulary.servers.clone();
        budget.watch(Part::Words, move || {
            let words = read(&users).by_id.len() + servers.count() + read(&types).by_name.len();
            (words * WORD_BYTES) as u64
        });
    }

    /// Evicts users, servers and event types if there are many; called now and then, so that memory stays bounded.
    pub fn forget_words(&self) {
        let kept = self.vocabulary().kept.load(Ordering::Relaxed);
        // In this order: users hold their servers.
        write(&self.vocabulary().users).forget(kept);
        self.vocabulary().servers.forget(kept);
        let types = &mut write(&self.vocabulary().types).by_name;
        if types.len() > kept {
            types.retain(|_, known| Arc::strong_count(known) > 1 || !known.stored.is_stored());
        }
    }

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

    /// The event type, with a new short id if there was none.
    pub async fn event_type(&self, event_type: &str) -> Result<Arc<EventType>, Error> {
        let types = &self.vocabulary().types;
        if let Some(known) = read(types).by_name.get(event_type) {
            return Ok(Arc::clone(known));
        }
        let openings = self.committer().ids().openings();
        let mut reader = self.read().await?;
        let row: Option<(i64,)> = on!(&mut reader.conn(), db =>
            sqlx::query_as(FIND_TYPE.text()).bind(event_type).fetch_optional(&mut **db).await)?;
        let mut types = write(types);
        if let Some(known) = types.by_name.get(event_type) {
            return Ok(Arc::clone(known));
        }
        let nid = match row {
            Some((nid,)) => TypeNid(nid),
            None => {
                self.committer().ids().ensure_since(openings)?;
                self.committer().ids().event_type()?
            }
        };
        let event_type: Arc<str> = event_type.into();
        let stored = Arc::new(Mark::new(row.is_some()));
        let known = Arc::new(EventType { nid, event_type: Arc::clone(&event_type), stored });
        if row.is_none() {
            types.new.insert(nid, Arc::clone(&known));
        }
        types.by_name.insert(event_type, Arc::clone(&known));
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::store::{
        StateKey,
        tests::{NewDatabase, failing},
    };

    /// A write of the words that are not known to be stored.
    fn write_new(user: &User, event_type: &EventType, key: &StateKey) -> Write {
        let mut write = Write::default();
        user.write_if_new(&mut write);
        event_type.write_if_new(&mut write);
        key.write_if_new(&mut write);
        write
    }

    #[tokio::test]
    async fn words_are_known_to_be_stored_once_their_write_is() {
        for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
            let user = db.user(user_id!("@alice:sabha.test"), true).await.unwrap();
            let event_type = db.event_type("m.example").await.unwrap();
            let key = db.state_key("m.example", "a").await.unwrap();
            let write = || write_new(&user, &event_type, &key);
            db.committer().write(failing(write())).await.unwrap_err();
            assert_eq!(write().rows.len(), 3, "the next write must carry them again");
            // Another one with the same words is on its way.
            let other = db.committer().submit::<Error>(1, |_| Ok(write())).unwrap();
            db.committer().write(write()).await.unwrap();
            other.wait().await.unwrap();
            assert_eq!(write().rows.len(), 0);
            let vocabulary = db.vocabulary();
            assert!(super::read(&vocabulary.types).new.is_empty(), "none is on its way any more");
            // Empty memory reads the same words.
            *super::write(&vocabulary.users) = Users::default();
            *super::write(&vocabulary.types) = Types::default();
            let user_again = db.find_user(&user.user_id).await.unwrap().unwrap();
            let type_again = db.event_type("m.example").await.unwrap();
            assert_eq!((user_again.nid, type_again.nid), (user.nid, event_type.nid));
            assert_eq!(write_new(&user_again, &type_again, &key).rows.len(), 0);
        }
    }

    #[test]
    fn only_users_who_can_be_read_again_are_forgotten() {
        let mut users = Users::default();
        let held = users.add(UserNid(1), user_id!("@held:example.org"), None, true);
        users.add(UserNid(2), user_id!("@stored:example.org"), None, true);
        users.add(UserNid(3), user_id!("@new:example.org"), None, false);
        users.forget(3);
        assert_eq!(users.by_id.len(), 3, "there is room for them");
        users.forget(2);
        let mut left: Vec<_> = users.by_nid.keys().copied().collect();
        left.sort_unstable();
        assert_eq!((left, users.by_id.len()), (vec![UserNid(1), UserNid(3)], 2));
        drop(held);
        users.forget(1);
        assert_eq!(users.by_nid.keys().copied().collect::<Vec<_>>(), [UserNid(3)]);
    }
}

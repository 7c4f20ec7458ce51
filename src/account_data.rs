//! Account data: JSON that clients store with the account, or with a room of the account.
//!
//! Promises: a change and its position are one commit, which wakes the user's parked `/sync` requests. A `/sync`
//! without changes needs no query. Next: [`tags`] and [`crate::push`], which store their state here.

pub mod ignored;
pub mod tags;

use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use self::ignored::IgnoredLists;
use crate::{
    account::turns::{Turn, Turns},
    config::Limits,
    limit_exceeded::LimitExceeded,
    memory::budget::Budget,
    store::{
        self, Database, Position, RoomNid, Row, UserNid, Write, account_data as rows,
        ids::lock,
        latest::Latest,
        log::{LogEntry, Memory, Touch},
    },
};

/// Means "no room": data of the account itself.
pub const ACCOUNT: RoomNid = RoomNid(0);

/// Maximum length of a type's name, as for event types.
pub const MAX_TYPE_BYTES: usize = 255;

/// The push rules, see [`crate::push`].
pub(crate) const PUSH_RULES: &str = "m.push_rules";

/// The users whom the account ignores, see [`ignored`].
pub(crate) const IGNORED_USER_LIST: &str = "m.ignored_user_list";

/// The rooms that are direct chats.
pub(crate) const DIRECT: &str = "m.direct";

/// The read marker of a room, see [`crate::ephemeral`].
pub(crate) const FULLY_READ: &str = "m.fully_read";

/// The types that have their own endpoints. Clients may read them here, but not write them.
pub const SERVER_MANAGED: [&str; 2] = [FULLY_READ, PUSH_RULES];

/// The types that the commit log tells apart, because the server itself reads them. Their numbers there begin with 1.
const NAMED_KINDS: [&str; 4] = [PUSH_RULES, IGNORED_USER_LIST, DIRECT, FULLY_READ];

/// The number of all other types in the commit log.
const OTHER_KIND: u8 = 0;

/// The service of account data.
pub struct AccountData {
    db: Arc<Database>,
    pub(crate) max_bytes: usize,
    max_per_user: i64,
    max_bytes_per_user: usize,
    turns: Turns,
    pub(crate) memory: Arc<DataMemory>,
}

/// The part of account data in memory, which follows the commits.
pub(crate) struct DataMemory {
    /// The position of each user's last change.
    latest: Mutex<Latest<UserNid>>,
    pub(crate) ignored: IgnoredLists,
}

impl Memory for DataMemory {
    fn apply(&self, entry: &LogEntry) {
        for (at, touch) in &entry.touches {
            let Touch::AccountData { user, kind, .. } = *touch else { continue };
            // In this order: a list that is being read now is kept only if nothing has changed.
            lock(&self.latest).changed(user, *at);
            if is_kind(kind, IGNORED_USER_LIST) {
                self.ignored.remove(user);
            }
        }
    }

    fn forget(&self, upto: Position) {
        lock(&self.latest).restart(upto);
        self.ignored.clear();
    }
}

/// The number of a type in the commit log.
fn kind_of(event_type: &str) -> u8 {
    let named = NAMED_KINDS.iter().position(|named| *named == event_type);
    named.and_then(|index| u8::try_from(index + 1).ok()).unwrap_or(OTHER_KIND)
}

/// Returns whether a number in the commit log stands for this type, which must be one of [`NAMED_KINDS`].
pub(crate) fn is_kind(kind: u8, event_type: &str) -> bool {
    kind == kind_of(event_type)
}

/// One type of account data, as clients see it: `event` is `{"type": …, "content": …}`.
#[derive(Debug)]
pub struct DataEvent {
    /// [`ACCOUNT`] for data of the account itself.
    pub room: RoomNid,
    pub event_type: String,
    pub event: Box<RawValue>,
}

/// Why account data was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error("the type must have 1 to {MAX_TYPE_BYTES} bytes and no control characters")]
    BadType,
    #[error("account data of one type must not be larger than {0} bytes")]
    TooLarge(usize),
    #[error("no more than {0} types of account data are stored for an account")]
    TooMany(i64),
    #[error("all account data of an account must not be larger than {0} bytes")]
    Full(usize),
    #[error(transparent)]
    TooManyWaiting(#[from] LimitExceeded),
    #[error("account data could not be stored")]
    Storage(#[from] store::Error),
}

impl AccountData {
    pub fn new(db: Arc<Database>, limits: &Limits, budget: &Budget) -> Self {
        let latest = Mutex::new(Latest::new(db.committer().published()));
        let memory = Arc::new(DataMemory { latest, ignored: IgnoredLists::new(budget) });
        db.committer().remember(Arc::<DataMemory>::clone(&memory));
        Self {
            db,
            max_bytes: limits.account_data_bytes.bytes(),
            max_per_user: i64::from(limits.account_data_per_user),
            max_bytes_per_user: limits.account_data_bytes_per_user.bytes(),
            turns: Turns::default(),
            memory,
        }
    }

    /// The content of one type.
    pub async fn find(
        &self,
        user: UserNid,
        room: RoomNid,
        event_type: &str,
    ) -> Result<Option<Box<RawValue>>, store::Error> {
        Ok(self.find_version(user, room, event_type).await?.map(|(content, _)| content))
    }

    /// The content of one type with the position of its last change, which identifies this content.
    pub(crate) async fn find_version(
        &self,
        user: UserNid,
        room: RoomNid,
        event_type: &str,
    ) -> Result<Option<(Box<RawValue>, Position)>, store::Error> {
        let mut reader = self.db.read().await?;
        let Some((json, version)) = rows::find_data(&mut reader.conn(), user, room, event_type).await? else {
            return Ok(None);
        };
        let content = RawValue::from_string(json).map_err(|error| store::Error::damaged("account data", error))?;
        Ok(Some((content, version)))
    }

    /// Stores the content of one type.
    ///
    /// # Errors
    /// After [`PutError::Storage`] the content may be stored; storing it again settles it.
    pub async fn put(
        &self,
        user: UserNid,
        room: RoomNid,
        event_type: &str,
        content: Box<RawValue>,
    ) -> Result<(), PutError> {
        let turn = self.turn(user).await?;
        self.update(&turn, room, event_type, |_| Ok(Some(content))).await
    }

    /// Takes the right to [`Self::update`]. Other changes of the user's data wait until it is dropped.
    ///
    /// # Errors
    /// [`PutError::TooManyWaiting`].
    pub async fn turn(&self, user: UserNid) -> Result<Turn<'_>, PutError> {
        Ok(self.turns.take(user).await?)
    }

    /// As [`Self::turn`], but never refused: for a read that many requests need, and for what the server changes by itself
    /// after the user's request is done.
    pub(crate) async fn turn_always(&self, user: UserNid) -> Turn<'_> {
        self.turns.take_always(user).await
    }

    /// Replaces the content of one type with the result of `change`. `None` leaves it as it is.
    ///
    /// # Errors
    /// As [`Self::put`], and the errors of `change`.
    pub async fn update<E: From<PutError>>(
        &self,
        turn: &Turn<'_>,
        room: RoomNid,
        event_type: &str,
        change: impl FnOnce(Option<&RawValue>) -> Result<Option<Box<RawValue>>, E>,
    ) -> Result<(), E> {
        check_type(event_type)?;
        let old = self.find(turn.user, room, event_type).await.map_err(PutError::Storage)?;
        let Some(content) = change(old.as_deref())? else {
            return Ok(());
        };
        let old_bytes = old.map(|old| old.get().len());
        self.check_room_for(turn, old_bytes, content.get().len()).await?;
        let content: Arc<str> = content.get().into();
        let user = turn.user;
        let write = |position| {
            let write = Write::new(vec![Self::row(user, room, event_type, content, position)]);
            Ok(write.touching(Self::touch(user, room, event_type)))
        };
        let committed = self.db.committer().submit(1, write).map_err(PutError::Storage)?;
        committed.wait().await.map_err(PutError::Storage)?;
        Ok(())
    }

    /// Refuses content that is too large, a new type when there are too many, and growth when all types together are
    /// too large. `old_bytes` is the size of the replaced content.
    pub(crate) async fn check_room_for(
        &self,
        turn: &Turn<'_>,
        old_bytes: Option<usize>,
        bytes: usize,
    ) -> Result<(), PutError> {
        if bytes > self.max_bytes {
            return Err(PutError::TooLarge(self.max_bytes));
        }
        let grown = bytes.saturating_sub(old_bytes.unwrap_or(0));
        // Replacing a read marker with another one of its size needs no query.
        if old_bytes.is_some() && grown == 0 {
            return Ok(());
        }
        let mut reader = self.db.read().await?;
        let (types, stored) = rows::totals(&mut reader.conn(), turn.user).await?;
        if old_bytes.is_none() && types >= self.max_per_user {
            return Err(PutError::TooMany(self.max_per_user));
        }
        if stored.saturating_add(grown) > self.max_bytes_per_user {
            return Err(PutError::Full(self.max_bytes_per_user));
        }
        Ok(())
    }

    /// The touch of a commit that stores one type.
    pub(crate) fn touch(user: UserNid, room: RoomNid, event_type: &str) -> Touch {
        Touch::AccountData { user, room, kind: kind_of(event_type) }
    }

    /// The row that stores one type, for a commit with more than account data. Name [`Self::touch`] in it.
    pub(crate) fn row(user: UserNid, room: RoomNid, event_type: &str, json: Arc<str>, position: Position) -> Row {
        let bytes = i64::try_from(json.len()).unwrap_or(i64::MAX);
        rows::AccountDataColumns {
            user_nid: user,
            room_nid: room,
            r#type: event_type.into(),
            json,
            pos: position,
            bytes,
        }
        .row()
    }

    /// Runs `keep`, which caches something of the user's data, if that has not changed since the data was read. `read_at` is a
    /// position that was visible before. A later change finds what was cached and evicts it.
    pub(crate) fn keep_if_unchanged(&self, user: UserNid, read_at: Position, keep: impl FnOnce()) {
        let latest = lock(&self.memory.latest);
        if latest.is_unchanged(&user, read_at) {
            keep();
        }
    }

    /// The position up to which everything is visible.
    pub(crate) fn published(&self) -> Position {
        self.db.committer().published()
    }

    /// Makes a part of memory follow the commits, for something that is cached of account data. It takes its turn after the
    /// changes are noted, as [`Self::keep_if_unchanged`] needs.
    pub(crate) fn remember(&self, memory: Arc<dyn Memory>) {
        self.db.committer().remember(memory);
    }

    /// Returns whether no data of the user has certainly changed after `since`.
    pub(crate) fn is_unchanged(&self, user: UserNid, since: Position) -> bool {
        lock(&self.memory.latest).is_unchanged(&user, since)
    }

    /// The changes in (`since`, `upto`], oldest first. Needs no query when nothing changed.
    pub async fn list_since(
        &self,
        user: UserNid,
        since: Position,
        upto: Position,
    ) -> Result<Vec<DataEvent>, store::Error> {
        if self.is_unchanged(user, since) {
            return Ok(Vec::new());
        }
        let mut reader = self.db.read().await?;
        let rows = rows::data_since(&mut reader.conn(), user, since, upto).await?;
        drop(reader);
        events(rows)
    }

    /// All data of one room, up to `upto`.
    pub async fn list_of_room(
        &self,
        user: UserNid,
        room: RoomNid,
        upto: Position,
    ) -> Result<Vec<DataEvent>, store::Error> {
        let mut reader = self.db.read().await?;
        let rows = rows::data_of_room(&mut reader.conn(), user, room, upto).await?;
        drop(reader);
        events(rows)
    }
}

fn events(rows: Vec<(i64, String, String)>) -> Result<Vec<DataEvent>, store::Error> {
    rows.into_iter()
        .map(|(room, event_type, json)| {
            let content = RawValue::from_string(json).map_err(|error| store::Error::damaged("account data", error))?;
            Ok(DataEvent { room: RoomNid(room), event: render(&event_type, &content)?, event_type })
        })
        .collect()
}

fn check_type(event_type: &str) -> Result<(), PutError> {
    let fits = !event_type.is_empty() && event_type.len() <= MAX_TYPE_BYTES && !event_type.contains(char::is_control);
    if fits { Ok(()) } else { Err(PutError::BadType) }
}

/// The event for account data in `/sync`.
pub(crate) fn render(event_type: &str, content: &RawValue) -> Result<Box<RawValue>, store::Error> {
    #[derive(Serialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        event_type: &'a str,
        content: &'a RawValue,
    }
    to_raw_value(&Event { event_type, content }).map_err(|error| store::Error::damaged("account data", error))
}

//! The cached sessions, and how a revoked one stops working at once.
//!
//! A session that a request is using stays cached, however many there are: its logout must find and cancel it.
//!
//! They follow the commits. A deleted token ends its session. A changed account, such as one with other rights, has its
//! sessions read again; they stay signed in.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::{DefaultHashBuilder, Lifecycle, sync::Cache};

use crate::{
    account::{LocalDevice, TokenHash},
    memory::{
        budget::{Budget, Part},
        cache::{ByBytes, HasBytes},
    },
    store::{
        Position, UserNid,
        latest::Latest,
        log::{LogEntry, Memory, Touch},
    },
};

/// Approximate memory of a session besides its device ID: the session, its cancellation, its place in the cache.
const SESSION_BYTES: usize = 560;

/// Sessions by the hash of their access token.
#[derive(Debug)]
pub struct SessionCache {
    sessions: Arc<Cache<TokenHash, Cached, ByBytes, DefaultHashBuilder, KeepUsed>>,
    /// Counts revocations, so that a reader of the database notices one that happened meanwhile.
    revocations: AtomicU64,
    /// The position of the last change of each account.
    accounts: RwLock<Latest<UserNid>>,
}

/// A session, and a position that was visible before it was read.
#[derive(Debug, Clone)]
struct Cached {
    device: Arc<LocalDevice>,
    /// The session as it was before the account's rights changed: a request may still use it.
    former: Option<Arc<LocalDevice>>,
    read_at: Position,
}

impl HasBytes for Cached {
    fn bytes(&self) -> u64 {
        let of_device = |device: &Arc<LocalDevice>| {
            SESSION_BYTES + device.device_id.as_ref().map_or(0, |device_id| device_id.as_str().len())
        };
        (of_device(&self.device) + self.former.as_ref().map_or(0, of_device)) as u64
    }
}

/// Keeps a session while a request holds it. The cache then has more than its bytes, by at most what the open requests
/// hold anyway.
#[derive(Debug, Clone, Default)]
struct KeepUsed;

impl Lifecycle<TokenHash, Cached> for KeepUsed {
    type RequestState = ();

    fn is_pinned(&self, _: &TokenHash, cached: &Cached) -> bool {
        [Some(&cached.device), cached.former.as_ref()].into_iter().flatten().any(|device| Arc::strong_count(device) > 1)
    }
}

impl SessionCache {
    /// An empty cache, which follows the commits after `started_at`.
    pub fn new(started_at: Position, budget: &Budget) -> Self {
        Self {
            sessions: budget.cache_with(Part::Sessions, KeepUsed),
            revocations: AtomicU64::new(0),
            accounts: RwLock::new(Latest::new(started_at)),
        }
    }

    /// The session, unless its account has changed since it was read.
    pub fn get(&self, hash: &TokenHash) -> Option<Arc<LocalDevice>> {
        let Cached { device, read_at, .. } = self.sessions.get(hash)?;
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.is_unchanged(&device.user.nid, read_at).then_some(device)
    }

    /// The number of revocations so far. Take it before reading a session from the database, and compare it after
    /// [`Self::keep`]. If it has changed, the session may have been revoked meanwhile and must be read again.
    pub fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    /// Caches a session that was read when `read_at` was visible. If two requests have read the same one, both get the
    /// session that a logout will cancel.
    pub fn keep(&self, hash: TokenHash, device: Arc<LocalDevice>, read_at: Position) -> Arc<LocalDevice> {
        let read = Cached { device, former: None, read_at };
        let kept = match self.sessions.get_or_insert_with(&hash, || Ok::<_, std::convert::Infallible>(read.clone())) {
            Ok(kept) => kept,
            Err(never) => match never {},
        };
        if kept.read_at >= read_at {
            return kept.device;
        }
        // The later read wins. A logout cancels both.
        let (device, former) = if kept.device.admin == read.device.admin {
            (kept.device, kept.former)
        } else {
            let device = LocalDevice { admin: read.device.admin, ..LocalDevice::clone(&kept.device) };
            (Arc::new(device), Some(kept.device))
        };
        self.sessions.insert(hash, Cached { device: Arc::clone(&device), former, read_at });
        device
    }

    /// Ends a session that is no longer in the database. Its revocation was counted when it was deleted.
    pub fn remove(&self, hash: &TokenHash) {
        if let Some((_, Cached { device, .. })) = self.sessions.remove(hash) {
            device.revoked.cancel();
        }
    }
}

impl Memory for SessionCache {
    fn apply(&self, entry: &LogEntry) {
        for (at, touch) in &entry.touches {
            match touch {
                Touch::Sessions { tokens, .. } => {
                    // Counted before any removal, so that a request that caches a session after the removal sees the
                    // changed count.
                    self.revocations.fetch_add(1, Ordering::SeqCst);
                    tokens.iter().for_each(|hash| self.remove(hash));
                }
                Touch::Account { user } => {
                    self.accounts.write().unwrap_or_else(PoisonError::into_inner).changed(*user, *at);
                }
                _ => {}
            }
        }
    }

    /// Has every session read again. A request that waits goes on until its end, even if its session has ended.
    fn forget(&self, upto: Position) {
        self.revocations.fetch_add(1, Ordering::SeqCst);
        self.accounts.write().unwrap_or_else(PoisonError::into_inner).restart(upto);
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::store::{
        Conn, Database, DeviceNid, Error, Transaction, Write,
        accounts::{self as rows, AccountColumns},
        committer::insert_rows,
        tests::NewDatabase,
        tokens::{self, AccessTokenColumns},
        vocabulary::User,
    };

    const DEVICE: DeviceNid = DeviceNid(1);
    const KEPT: TokenHash = [1; 32];
    const ENDED: TokenHash = [2; 32];

    /// A change of an account and its sessions.
    enum Change {
        Register,
        Admin,
        SignOut,
    }

    struct Changing(UserNid, Change);

    impl Transaction for Changing {
        type Output = ();

        async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
            let Self(user, change) = self;
            match change {
                Change::Register => {
                    conn.touch(Touch::Account { user: *user });
                    let account = AccountColumns {
                        user_nid: *user,
                        password_hash: None,
                        admin: false,
                        created_at: 0,
                        deactivated_at: None,
                    };
                    insert_rows(conn, &[account.row()]).await
                }
                Change::Admin => rows::set_admin(conn, *user, true).await.map(drop),
                Change::SignOut => tokens::delete_of_device(conn, DEVICE).await,
            }
        }
    }

    /// Uses the session as a request does, and reads it if it is not cached.
    async fn use_session(db: &Database, cache: &SessionCache, hash: TokenHash) -> Arc<LocalDevice> {
        if let Some(device) = cache.get(&hash) {
            return device;
        }
        let read_at = db.committer().published();
        let user = db.find_user(user_id!("@alice:sabha.test")).await.unwrap().unwrap();
        let account = rows::find_account(&mut db.read().await.unwrap().conn(), user.nid).await.unwrap().unwrap();
        cache.keep(hash, device(&user, account.admin), read_at)
    }

    fn device(user: &Arc<User>, admin: bool) -> Arc<LocalDevice> {
        Arc::new(LocalDevice {
            user: Arc::clone(user),
            device_nid: DEVICE,
            device_id: None,
            admin,
            expires_at: None,
            revoked: CancellationToken::new(),
            appservice: None,
        })
    }

    #[tokio::test]
    async fn a_session_in_use_is_found_by_its_logout_however_many_others_there_are() {
        for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
            let user = db.user(user_id!("@alice:sabha.test"), true).await.unwrap();
            for bytes in [0, 1 << 20] {
                let cache = SessionCache::new(Position::BEFORE_ALL, &Budget::new(bytes));
                let used = cache.keep(KEPT, device(&user, false), Position::BEFORE_ALL);
                let of_admin = cache.keep(ENDED, device(&user, false), Position::BEFORE_ALL);
                // Read again after the user has become an administrator, by a request that has ended.
                drop(cache.keep(ENDED, device(&user, true), Position(1)));
                for number in 0..5_000_u64 {
                    let mut hash = [9; 32];
                    hash[..8].copy_from_slice(&number.to_le_bytes());
                    cache.keep(hash, device(&user, false), Position::BEFORE_ALL);
                }
                assert!(cache.sessions.len() < 1_000, "{} sessions in {bytes} bytes", cache.sessions.len());
                for (hash, used) in [(KEPT, used), (ENDED, of_admin)] {
                    cache.remove(&hash);
                    assert!(used.revoked.is_cancelled(), "with {bytes} bytes");
                }
            }
        }
    }

    #[tokio::test]
    async fn cached_sessions_are_like_read_ones_after_each_commit() {
        for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
            let cache = Arc::new(SessionCache::new(db.committer().published(), &Budget::new(64 << 20)));
            db.committer().remember(Arc::<SessionCache>::clone(&cache));
            let user = db.user(user_id!("@alice:sabha.test"), true).await.unwrap();
            let token = AccessTokenColumns {
                token_hash: ENDED.to_vec(),
                user_nid: user.nid,
                device_nid: DEVICE,
                created_at: 0,
                expires_at: None,
                refresh_hash: None,
            };
            let mut write = Write::new(vec![token.row()]);
            user.write_if_new(&mut write);
            db.committer().write(write).await.unwrap();
            let change = async |change| db.committer().transact(Changing(user.nid, change)).await.unwrap();
            change(Change::Register).await;
            let kept = use_session(&db, &cache, KEPT).await;
            let ended = use_session(&db, &cache, ENDED).await;
            assert!(Arc::ptr_eq(&kept, &use_session(&db, &cache, KEPT).await), "it is cached");

            change(Change::Admin).await;
            assert!(cache.get(&KEPT).is_none() && !kept.revoked.is_cancelled(), "it is read again, and signed in");
            let read = use_session(&db, &cache, KEPT).await;
            assert_eq!((kept.admin, read.admin), (false, true));

            let before = cache.revocations();
            change(Change::SignOut).await;
            assert!(ended.revoked.is_cancelled() && cache.get(&ENDED).is_none());
            assert!(cache.revocations() > before, "who has just read it reads again");
            assert!(!read.revoked.is_cancelled());
            cache.remove(&KEPT);
            assert!(kept.revoked.is_cancelled() && read.revoked.is_cancelled(), "a logout ends both");
        }
    }
}

//! The cached sessions, and how a revoked one stops working at once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::sync::Cache;

use super::{LocalDevice, TokenHash};
use crate::store::UserNid;

/// Maximum number of cached sessions. Others are read again when they are used.
const CACHED_SESSIONS: usize = 100_000;

/// Sessions by the hash of their access token.
#[derive(Debug)]
pub struct SessionCache {
    sessions: Cache<TokenHash, Arc<LocalDevice>>,
    /// Counts revocations and changes of admin rights, so that a reader of the database notices one that happened
    /// meanwhile.
    revocations: AtomicU64,
}

impl Default for SessionCache {
    fn default() -> Self {
        Self { sessions: Cache::new(CACHED_SESSIONS), revocations: AtomicU64::new(0) }
    }
}

impl SessionCache {
    pub fn get(&self, hash: &TokenHash) -> Option<Arc<LocalDevice>> {
        self.sessions.get(hash)
    }

    /// The number of revocations so far. Take it before reading a session from the database, and compare it after
    /// [`Self::keep`]. If it has changed, the session may have been revoked meanwhile and must be read again.
    pub fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    /// Caches a session that was read. If two requests have read the same one, both get the session that a logout will
    /// cancel.
    pub fn keep(&self, hash: TokenHash, device: Arc<LocalDevice>) -> Arc<LocalDevice> {
        let admin = device.admin;
        let kept = match self.sessions.get_or_insert_with(&hash, || Ok::<_, std::convert::Infallible>(device)) {
            Ok(device) => device,
            Err(never) => match never {},
        };
        // The latest read wins. A request with an older one finds that the count has changed, and reads again.
        if kept.admin == admin { kept } else { self.replace(hash, &kept, admin) }
    }

    /// Replaces a session with one that has other admin rights. A logout cancels both.
    fn replace(&self, hash: TokenHash, device: &LocalDevice, admin: bool) -> Arc<LocalDevice> {
        let device = Arc::new(LocalDevice { admin, ..device.clone() });
        self.sessions.insert(hash, Arc::clone(&device));
        device
    }

    /// Sets or removes the user's admin rights in the cached sessions.
    pub fn set_admin(&self, user: UserNid, admin: bool) {
        // Counted before any change, as in `revoke`.
        self.revocations.fetch_add(1, Ordering::SeqCst);
        let of_user: Vec<_> = self.sessions.iter().filter(|(_, device)| device.user.nid == user).collect();
        for (hash, device) in of_user {
            self.replace(hash, &device, admin);
        }
    }

    /// Ends the sessions of deleted tokens, given by their hashes.
    pub fn revoke(&self, hashes: &[Vec<u8>]) {
        if hashes.is_empty() {
            return;
        }
        // Counted before any removal, so that a request that caches a session after the removal sees the changed count.
        self.revocations.fetch_add(1, Ordering::SeqCst);
        for hash in hashes {
            if let Ok(hash) = TokenHash::try_from(hash.as_slice()) {
                self.remove(&hash);
            }
        }
    }

    /// Ends a session that is no longer in the database. Its revocation was counted when it was deleted.
    pub fn remove(&self, hash: &TokenHash) {
        if let Some((_, device)) = self.sessions.remove(hash) {
            device.revoked.cancel();
        }
    }
}

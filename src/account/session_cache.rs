//! The sessions in memory, and how a revoked one stops working at once.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::sync::Cache;

use super::{LocalDevice, TokenHash};
use crate::store::UserNid;

/// How many sessions are kept in memory; the others are read again when they are used.
const CACHED_SESSIONS: usize = 100_000;

/// Sessions by the hash of their access token.
#[derive(Debug)]
pub struct SessionCache {
    sessions: Cache<TokenHash, Arc<LocalDevice>>,
    /// Counts revocations and changes of rights, so that a reader of the database notices one that happened meanwhile.
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

    /// Take this before reading a session from the database, and compare it after [`Self::keep`]: when it has moved, the
    /// session may have been revoked in between, and must be read again.
    pub fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    /// Keeps a session that was read. Of two requests that read the same one, both get the one that a logout will cancel.
    pub fn keep(&self, hash: TokenHash, device: Arc<LocalDevice>) -> Arc<LocalDevice> {
        let admin = device.admin;
        let kept = match self.sessions.get_or_insert_with(&hash, || Ok::<_, std::convert::Infallible>(device)) {
            Ok(device) => device,
            Err(never) => match never {},
        };
        // The latest read counts; a reader of something older finds that the count has moved, and reads again.
        if kept.admin == admin { kept } else { self.replace(hash, &kept, admin) }
    }

    /// Puts a session with other rights in the place of one. A logout cancels both.
    fn replace(&self, hash: TokenHash, device: &LocalDevice, admin: bool) -> Arc<LocalDevice> {
        let device = Arc::new(LocalDevice { admin, ..device.clone() });
        self.sessions.insert(hash, Arc::clone(&device));
        device
    }

    /// The user has become an admin, or is none any more.
    pub fn set_admin(&self, user: UserNid, admin: bool) {
        // Counted before anything is changed, as in `revoke`.
        self.revocations.fetch_add(1, Ordering::SeqCst);
        let of_user: Vec<_> = self.sessions.iter().filter(|(_, device)| device.user.nid == user).collect();
        for (hash, device) in of_user {
            self.replace(hash, &device, admin);
        }
    }

    /// The tokens with these hashes were deleted: whoever holds their sessions learns of it now.
    pub fn revoke(&self, hashes: &[Vec<u8>]) {
        if hashes.is_empty() {
            return;
        }
        // Counted before anything is removed: who keeps a session after the removal sees the count moved.
        self.revocations.fetch_add(1, Ordering::SeqCst);
        for hash in hashes {
            if let Ok(hash) = TokenHash::try_from(hash.as_slice()) {
                self.remove(&hash);
            }
        }
    }

    /// Ends a session that the database no longer knows. Its revocation has been counted when it was deleted.
    pub fn remove(&self, hash: &TokenHash) {
        if let Some((_, device)) = self.sessions.remove(hash) {
            device.revoked.cancel();
        }
    }
}

//! Passwords: Argon2id, away from the threads that serve requests.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version, password_hash::phc::PasswordHash,
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{Accounts, tokens::random_text};

/// Hashes one password at a time per permit: each takes memory and tens of milliseconds of CPU on purpose.
#[derive(Clone)]
pub struct Hashing {
    argon2: Argon2<'static>,
    permits: Arc<Semaphore>,
}

impl Hashing {
    /// The cost that OWASP recommends for Argon2id: 19 MiB, two passes.
    pub fn recommended() -> Self {
        Self::with_cost(19 * 1024, 2)
    }

    /// The cheapest possible, for tests that make many accounts.
    pub fn cheap() -> Self {
        Self::with_cost(8, 1)
    }

    fn with_cost(memory_kib: u32, passes: u32) -> Self {
        let params = Params::new(memory_kib, passes, 1, None).expect("both costs are within Argon2's bounds");
        Self { argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params), permits: Arc::new(Semaphore::new(2)) }
    }

    /// The hash in the PHC string format, with its salt and costs.
    pub async fn hash(&self, password: Zeroizing<String>) -> String {
        let argon2 = self.argon2.clone();
        self.blocking(move || {
            argon2
                .hash_password(password.as_bytes())
                .expect("a fresh salt of the right length and any password can be hashed")
                .to_string()
        })
        .await
    }

    /// Whether the password belongs to the stored hash. A hash that cannot be read fits no password.
    pub async fn verify(&self, password: Zeroizing<String>, stored: String) -> bool {
        let argon2 = self.argon2.clone();
        self.blocking(move || match PasswordHash::new(&stored) {
            Ok(hash) => argon2.verify_password(password.as_bytes(), &hash).is_ok(),
            Err(error) => {
                tracing::error!(%error, "a stored password hash cannot be read");
                false
            }
        })
        .await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
        .expect("hashing does not panic")
    }
}

/// The shortest password that we take.
pub const MIN_PASSWORD_BYTES: usize = 8;

/// The longest password that we hash.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// A password that cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes")]
pub struct WeakPassword;

/// Whether a password may be set.
pub fn check_strength(password: &str) -> Result<(), WeakPassword> {
    if (MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES).contains(&password.len()) { Ok(()) } else { Err(WeakPassword) }
}

impl Accounts {
    /// The hash of a password that somebody wants to have from now on.
    pub(super) async fn hash_new_password(&self, password: Zeroizing<String>) -> Result<String, WeakPassword> {
        check_strength(&password)?;
        Ok(self.hashing.hash(password).await)
    }

    /// Whether the password belongs to the hash. Takes as long when there is no hash to compare with.
    pub(super) async fn verify_password(&self, password: Zeroizing<String>, stored: Option<&str>) -> bool {
        let nobodys = self.nobodys_hash.get_or_init(|| self.hashing.hash(Zeroizing::new(random_text(32)))).await;
        if password.len() > MAX_PASSWORD_BYTES {
            return false;
        }
        let fits = self.hashing.verify(password, stored.unwrap_or(nobodys).to_owned()).await;
        fits && stored.is_some()
    }
}

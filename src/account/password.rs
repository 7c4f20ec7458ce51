//! Passwords: Argon2id, outside of the threads that serve requests.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version, password_hash::phc::PasswordHash,
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{Accounts, session::tokens::random_text};

/// Passwords hashed at the same time.
const AT_ONCE: usize = 2;

/// Maximum number of passwords being hashed or waiting. The last one waits about a second, which people accept at a
/// login. Each holds a request, and with more of them everyone would only wait longer.
const QUEUE: usize = 64;

/// The time after which a client that found the queue full should retry.
pub const BUSY_RETRY: Duration = Duration::from_secs(2);

/// The error when too many passwords wait to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be hashed")]
pub struct HashingBusy;

/// Hashes passwords, one at a time per permit: each takes memory and tens of milliseconds of CPU on purpose.
#[derive(Clone)]
pub struct Hashing {
    argon2: Argon2<'static>,
    permits: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Hashing {
    /// The cost that OWASP recommends for Argon2id: 19 MiB, two passes.
    pub fn recommended() -> Self {
        Self::with_cost(19 * 1024, 2)
    }

    /// The lowest possible cost, for tests that create many accounts.
    pub fn cheap() -> Self {
        Self::with_cost(8, 1)
    }

    fn with_cost(memory_kib: u32, passes: u32) -> Self {
        let params = Params::new(memory_kib, passes, 1, None).expect("both costs are within Argon2's bounds");
        Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(QUEUE)),
        }
    }

    /// Keeps the costs, and sets another limit on waiting passwords.
    #[must_use]
    pub fn with_queue(self, places: usize) -> Self {
        Self { queue: Arc::new(Semaphore::new(places)), ..self }
    }

    /// The hash in the PHC string format, with its salt and costs.
    ///
    /// # Errors
    /// [`HashingBusy`] when too many others wait.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, HashingBusy> {
        let argon2 = self.argon2.clone();
        self.blocking(move || {
            argon2
                .hash_password(password.as_bytes())
                .expect("a fresh salt of the right length and any password can be hashed")
                .to_string()
        })
        .await
    }

    /// Returns whether the password matches the stored hash. A malformed hash matches no password.
    ///
    /// # Errors
    /// [`HashingBusy`] when too many others wait.
    pub async fn verify(&self, password: Zeroizing<String>, stored: String) -> Result<bool, HashingBusy> {
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

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HashingBusy> {
        let _place = self.queue.try_acquire().map_err(|_| HashingBusy)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let hashing = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        Ok(hashing.await.expect("hashing does not panic"))
    }
}

/// The shortest password that may be set.
pub const MIN_PASSWORD_BYTES: usize = 8;

/// The longest password that we hash.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// A password that cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has {MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes")]
pub struct WeakPassword;

/// Why a new password was not hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NewPasswordError {
    #[error(transparent)]
    Weak(#[from] WeakPassword),
    #[error(transparent)]
    Busy(#[from] HashingBusy),
}

/// Checks whether a password may be set.
pub fn check_strength(password: &str) -> Result<(), WeakPassword> {
    if (MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES).contains(&password.len()) { Ok(()) } else { Err(WeakPassword) }
}

impl Accounts {
    /// Hashes a password that a user wants to set.
    pub(super) async fn hash_new_password(&self, password: Zeroizing<String>) -> Result<String, NewPasswordError> {
        check_strength(&password)?;
        Ok(self.hashing.hash(password).await?)
    }

    /// Returns whether the password matches the hash. Takes equally long without a hash.
    ///
    /// # Errors
    /// [`HashingBusy`] when too many others wait.
    pub(super) async fn verify_password(
        &self,
        password: Zeroizing<String>,
        stored: Option<&str>,
    ) -> Result<bool, HashingBusy> {
        let hash_of_nobody = || self.hashing.hash(Zeroizing::new(random_text(32)));
        let nobodys = self.nobodys_hash.get_or_try_init(hash_of_nobody).await?;
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(false);
        }
        let fits = self.hashing.verify(password, stored.unwrap_or(nobodys).to_owned()).await?;
        Ok(fits && stored.is_some())
    }
}

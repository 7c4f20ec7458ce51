//! Registration with a shared secret, as in [Synapse]: with the secret of the configuration, a client can create
//! accounts and admins, but gets no other access.
//!
//! Promises: the secret is never sent, only a MAC made with it. A MAC is valid for one nonce, one name, one password
//! and one admin flag. A nonce is valid for a minute and for one attempt, also a failed one. MACs are compared in
//! constant time.
//!
//! [Synapse]: https://element-hq.github.io/synapse/latest/admin_api/register_api.html

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use ruma::OwnedUserId;
use sha1::Sha1;
use zeroize::Zeroizing;

use super::{
    Accounts, NewSession, Session, millis,
    register::{Permit, RegisterError, Registration},
    session::tokens::random_text,
};
use crate::{config::Secret, store::ids::lock};

/// Lifetime of a nonce, which the client's next request uses.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);

/// Maximum number of valid nonces. With more, the oldest goes. Requests for nonces are limited by address.
const MAX_NONCES: usize = 1024;

const NONCE_LENGTH: usize = 64;

/// The secret, and the nonces that were given out.
pub(super) struct SharedSecret {
    secret: Secret,
    /// The nonces with their expiry times, oldest first.
    nonces: Mutex<VecDeque<(String, i64)>>,
}

/// The account to create, as the client describes it.
pub struct Wanted {
    pub nonce: String,
    pub username: String,
    pub password: Zeroizing<String>,
    pub admin: bool,
    /// Part of the MAC's input if the client sends one. It has no other effect.
    pub user_type: Option<String>,
    pub displayname: Option<String>,
    /// HMAC-SHA1 in hexadecimal.
    pub mac: String,
    /// The first session, if the account starts with one.
    pub session: Option<NewSession>,
}

/// Why no account was created.
#[derive(Debug, thiserror::Error)]
pub enum SharedSecretError {
    #[error("the nonce is unknown, has expired or was used")]
    Nonce,
    #[error("the MAC is wrong")]
    Mac,
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl SharedSecret {
    pub fn new(secret: Secret) -> Self {
        Self { secret, nonces: Mutex::default() }
    }

    fn nonce(&self, now: i64) -> String {
        let nonce = random_text(NONCE_LENGTH);
        let mut nonces = lock(&self.nonces);
        nonces.retain(|(_, expires_at)| now < *expires_at);
        if nonces.len() >= MAX_NONCES {
            nonces.pop_front();
        }
        nonces.push_back((nonce.clone(), now + millis(NONCE_LIFETIME)));
        nonce
    }

    fn check(&self, wanted: &Wanted, now: i64) -> Result<(), SharedSecretError> {
        let mut nonces = lock(&self.nonces);
        let found = nonces.iter().position(|(nonce, _)| *nonce == wanted.nonce);
        let taken = found.and_then(|place| nonces.remove(place));
        drop(nonces);
        if taken.is_none_or(|(_, expires_at)| expires_at <= now) {
            return Err(SharedSecretError::Nonce);
        }
        let mut mac =
            Hmac::<Sha1>::new_from_slice(self.secret.expose().as_bytes()).expect("HMAC takes a key of any length");
        let rank = if wanted.admin { "admin" } else { "notadmin" };
        mac.update(wanted.nonce.as_bytes());
        for part in
            [wanted.username.as_str(), wanted.password.as_str(), rank].into_iter().chain(wanted.user_type.as_deref())
        {
            mac.update(b"\0");
            mac.update(part.as_bytes());
        }
        // A text with a NUL could move the boundary between two parts.
        let has_nul = [&wanted.username, &*wanted.password].iter().any(|part| part.contains('\0'));
        let given = from_hex(&wanted.mac).filter(|_| !has_nul).ok_or(SharedSecretError::Mac)?;
        mac.verify_slice(&given).map_err(|_| SharedSecretError::Mac)
    }
}

impl Accounts {
    /// Returns whether the configuration has a shared secret.
    pub fn has_shared_secret(&self) -> bool {
        self.shared_secret.is_some()
    }

    /// Creates a nonce for the next minute; `None` without a shared secret.
    pub fn shared_secret_nonce(&self) -> Option<String> {
        Some(self.shared_secret.as_ref()?.nonce(self.clock.now_ms()))
    }

    /// Creates an account for a client that knows the shared secret, in any registration mode.
    ///
    /// # Errors
    /// [`SharedSecretError`]. The nonce is used up, also when the MAC is wrong or the name is taken.
    pub async fn register_by_shared_secret(
        &self,
        wanted: Wanted,
    ) -> Result<(OwnedUserId, Option<Session>), SharedSecretError> {
        let secret = self.shared_secret.as_ref().ok_or(SharedSecretError::Nonce)?;
        secret.check(&wanted, self.clock.now_ms())?;
        let registration = Registration {
            username: Some(wanted.username),
            password: Some(wanted.password),
            admin: wanted.admin,
            displayname: wanted.displayname,
            session: wanted.session,
            permit: Permit::Free,
        };
        Ok(self.register(registration).await?)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "complement";

    fn wanted(nonce: &str, change: impl FnOnce(&mut Wanted)) -> Wanted {
        let mut wanted = Wanted {
            nonce: nonce.to_owned(),
            username: "alice".to_owned(),
            password: Zeroizing::new("wonderland".to_owned()),
            admin: false,
            user_type: None,
            displayname: None,
            mac: String::new(),
            session: None,
        };
        change(&mut wanted);
        wanted
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn mac(parts: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(parts.as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    #[test]
    fn the_mac_is_made_as_synapse_makes_it() {
        let shared = SharedSecret::new(Secret::try_from(SECRET.to_owned()).expect("not empty"));
        // From `printf 'thisisanonce\0pepper_roni\0pizza\0admin' | openssl sha1 -hmac complement`.
        lock(&shared.nonces).push_back(("thisisanonce".to_owned(), 1));
        let known = Wanted {
            username: "pepper_roni".to_owned(),
            password: Zeroizing::new("pizza".to_owned()),
            ..wanted("thisisanonce", |wanted| {
                wanted.admin = true;
                wanted.mac = "825afac9facbadc7f2bc09866f0183f97b0d04c5".to_owned();
            })
        };
        assert!(shared.check(&known, 0).is_ok());
    }

    #[test]
    fn a_mac_counts_for_exactly_what_it_was_made_for() {
        let shared = SharedSecret::new(Secret::try_from(SECRET.to_owned()).expect("not empty"));
        let check = |change: fn(&mut Wanted), made_over: &str, expected: bool| {
            let nonce = shared.nonce(0);
            let mac = mac(&format!("{nonce}\0{made_over}"));
            let wanted = wanted(&nonce, |wanted| {
                wanted.mac = mac;
                change(wanted);
            });
            assert_eq!(shared.check(&wanted, 0).is_ok(), expected, "{made_over}");
        };
        check(|_| {}, "alice\0wonderland\0notadmin", true);
        check(|wanted| wanted.mac.make_ascii_uppercase(), "alice\0wonderland\0notadmin", true);
        check(|wanted| wanted.admin = true, "alice\0wonderland\0admin", true);
        check(|wanted| wanted.user_type = Some("bot".to_owned()), "alice\0wonderland\0notadmin\0bot", true);
        check(|wanted| wanted.admin = true, "alice\0wonderland\0notadmin", false);
        check(|_| {}, "alice\0wonderland\0admin", false);
        check(|_| {}, "bob\0wonderland\0notadmin", false);
        check(|wanted| wanted.user_type = Some("bot".to_owned()), "alice\0wonderland\0notadmin", false);
        check(|wanted| wanted.username = "a\0b".to_owned(), "a\0b\0wonderland\0notadmin", false);
        check(|wanted| wanted.mac.truncate(20), "alice\0wonderland\0notadmin", false);
        check(|wanted| wanted.mac.clear(), "alice\0wonderland\0notadmin", false);
        check(|wanted| wanted.mac = "zz".repeat(20), "alice\0wonderland\0notadmin", false);
    }

    #[test]
    fn a_nonce_is_taken_once_and_for_a_minute() {
        let shared = SharedSecret::new(Secret::try_from(SECRET.to_owned()).expect("not empty"));
        let attempt = |nonce: &str, now| {
            let mac = mac(&format!("{nonce}\0alice\0wonderland\0notadmin"));
            shared.check(&wanted(nonce, |wanted| wanted.mac = mac), now)
        };
        let nonce = shared.nonce(0);
        assert!(attempt(&nonce, 59_999).is_ok());
        assert!(matches!(attempt(&nonce, 59_999), Err(SharedSecretError::Nonce)));
        assert!(matches!(attempt(&shared.nonce(0), 60_000), Err(SharedSecretError::Nonce)));
        assert!(matches!(attempt("never given out", 0), Err(SharedSecretError::Nonce)));
        let first = shared.nonce(0);
        (0..MAX_NONCES).for_each(|_| drop(shared.nonce(0)));
        assert_eq!(lock(&shared.nonces).len(), MAX_NONCES);
        assert!(matches!(attempt(&first, 0), Err(SharedSecretError::Nonce)));
    }
}

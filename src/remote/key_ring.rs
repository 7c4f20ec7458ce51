//! The keys of other servers, by time: fetched once for all who wait, kept for ever, and used only for the time for which
//! they are valid.
//!
//! Promises: a key comes from its own server over TLS, or from a notary that the operator trusts, and the answer that
//! contained it is signed with it. A known key is never replaced. At most one request for the keys of a server runs at a
//! time, with a pause after one that was of no use, so that nobody can make us flood a server by naming it as an origin. A
//! known key is returned without waiting, also while a request to its server runs.
//!
//! Reading order: [`KeyRing::at`]; `slot` holds what is known of one server; `fetch` are the requests; `notary` answers
//! other servers that ask us. The rules for several answers of a server are in [`sabha_federation::known_keys`].

mod fetch;
mod notary;
mod slot;

use std::sync::Arc;

use http::StatusCode;
use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId};
use sabha_federation::{
    KnownKey, PublicKey, PublishedKeys, PublishedKeysError, ServerSigner, Source, published_keys::MAX_VALIDITY_MS,
};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

pub use self::notary::{MAX_SERVERS, WantedAnswer};
use self::{
    fetch::{Fetcher, OnBehalf},
    slot::Slot,
};
use super::discovery::Discovery;
use crate::{
    clock::Clock,
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    outbound::{Outbound, OutboundError},
    report::Report,
    store::{
        self, Database,
        ids::lock,
        server_keys::{self as rows, ServerKeyAnswer, ServerKeyRow, StoreKeys},
    },
};

/// Why a key was not found.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the server does not publish this key, or not for that time")]
    Unknown,
    #[error("the server was asked for its keys a moment ago, without success")]
    AskedBefore,
    #[error("the server was not asked for its keys")]
    Unreachable(#[from] OutboundError),
    #[error("the server answered {0} when it was asked for its keys")]
    Refused(StatusCode),
    #[error("the server's keys are not believed")]
    NotBelieved(#[from] PublishedKeysError),
    #[error("the database failed while looking for a server's keys")]
    Storage(#[from] store::Error),
}

impl KeyError {
    /// Returns whether the server has given an answer that settles it. Otherwise it may have the key: asking later, or
    /// elsewhere, can find it.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Unknown | Self::NotBelieved(_) => true,
            Self::Refused(status) => matches!(*status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND),
            Self::AskedBefore | Self::Unreachable(_) | Self::Storage(_) => false,
        }
    }
}

/// The key ring.
pub struct KeyRing {
    db: Arc<Database>,
    clock: Clock,
    signer: Arc<ServerSigner>,
    fetcher: Fetcher,
    /// Servers that are asked for a key that its own server did not show.
    notaries: Vec<OwnedServerName>,
    servers: Arc<GrowingCache<OwnedServerName, Slot>>,
    /// The turns of requests to us as a notary.
    answering: Semaphore,
}

impl KeyRing {
    pub fn new(
        db: Arc<Database>,
        clock: Clock,
        signer: Arc<ServerSigner>,
        (outbound, discovery): (Arc<Outbound>, Arc<Discovery>),
        notaries: &[OwnedServerName],
        budget: &Budget,
    ) -> Self {
        let notaries = notaries.iter().filter(|notary| **notary != *signer.server_name()).cloned().collect();
        let servers = budget.growing_cache(Part::ServerKeys);
        let answering = Semaphore::new(notary::MAX_ANSWERING);
        Self { db, clock, signer, fetcher: Fetcher::new(outbound, discovery), notaries, servers, answering }
    }

    /// Finds a key with which this server signs now.
    ///
    /// # Errors
    /// As for [`Self::at`].
    pub async fn find(&self, server: &ServerName, key_id: &ServerSigningKeyId) -> Result<PublicKey, KeyError> {
        self.at(server, key_id, Some(self.clock.now_ms())).await
    }

    /// Finds a key with which this server signed at this moment; `None` is any moment.
    ///
    /// A key that is unknown, or not known to be valid for so long, is asked for: at its server, then at the trusted
    /// notaries.
    ///
    /// # Errors
    /// When neither shows such a key. [`KeyError::is_definite`] tells whether asking again is of use.
    pub async fn at(
        &self,
        server: &ServerName,
        key_id: &ServerSigningKeyId,
        at_ms: Option<i64>,
    ) -> Result<PublicKey, KeyError> {
        if *server == *self.signer.server_name() {
            return self.signer.key_at(key_id, at_ms).ok_or(KeyError::Unknown);
        }
        let slot = self.slot(server);
        if let Some(key) = slot.at(key_id, at_ms) {
            return Ok(key);
        }
        // No key is ever known to be valid for so long.
        if at_ms.is_some_and(|at_ms| at_ms > self.clock.now_ms().saturating_add(MAX_VALIDITY_MS)) {
            return Err(KeyError::Unknown);
        }
        let _one_at_a_time = slot.asking.lock().await;
        let mut error = match self.find_or_ask(server, &slot, key_id, at_ms).await {
            Ok(key) => return Ok(key),
            // The notaries were asked then, too.
            Err(error @ (KeyError::AskedBefore | KeyError::Storage(_))) => return Err(error),
            Err(error) => error,
        };
        // A notary would show its own keys by nobody but itself.
        let notaries = if self.notaries.iter().any(|notary| *notary == *server) { &[][..] } else { &self.notaries };
        for notary in notaries {
            if let Err(unheard) = self.ask_notary(notary, server, &slot, key_id, at_ms).await {
                debug!(%server, %notary, error = %Report(&unheard), "no keys of another server from a notary");
                // This notary may have it.
                if error.is_definite() && !unheard.is_definite() {
                    error = unheard;
                }
            }
            if let Some(key) = slot.at(key_id, at_ms) {
                return Ok(key);
            }
        }
        Err(error)
    }

    fn slot(&self, server: &ServerName) -> Arc<Slot> {
        self.servers.get_or_default(&server.to_owned(), slot::SERVER_BYTES)
    }

    /// Finds the key in the database, or asks its server. The caller holds the lock of the slot.
    async fn find_or_ask(
        &self,
        server: &ServerName,
        slot: &Arc<Slot>,
        key_id: &ServerSigningKeyId,
        at_ms: Option<i64>,
    ) -> Result<PublicKey, KeyError> {
        self.load(server, slot).await?;
        // The key may have been loaded now, or fetched by another request while this one waited.
        if let Some(key) = slot.at(key_id, at_ms) {
            return Ok(key);
        }
        self.ask_server(server, slot, OnBehalf::Us, |_| slot.at(key_id, at_ms).is_some()).await?;
        slot.at(key_id, at_ms).ok_or(KeyError::Unknown)
    }

    /// Reads the stored keys, unless the slot has them. The caller holds the lock of the slot.
    async fn load(&self, server: &ServerName, slot: &Arc<Slot>) -> Result<(), store::Error> {
        if lock(&slot.known).is_loaded {
            return Ok(());
        }
        let mut reader = self.db.read().await?;
        let rows = rows::keys_of(&mut reader.conn(), server.as_str()).await?;
        let keys = rows.into_iter().filter_map(|row| {
            let key_id = OwnedServerSigningKeyId::try_from(row.key_id).ok()?;
            let key = PublicKey::from_bytes(&row.public_key)?;
            Some((key_id, KnownKey { key, valid_until_ms: row.valid_until, expired_ms: row.expired_at }))
        });
        let bytes = {
            let mut known = lock(&slot.known);
            known.keys = keys.collect();
            known.is_loaded = true;
            known.bytes()
        };
        self.servers.has_grown(&server.to_owned(), slot, bytes);
        Ok(())
    }

    /// Asks the server for its keys, unless that was of no use a moment ago. The caller holds the lock of the slot, and has
    /// loaded it.
    async fn ask_server(
        &self,
        server: &ServerName,
        slot: &Arc<Slot>,
        on_behalf: OnBehalf,
        is_of_use: impl Fn(&PublishedKeys) -> bool,
    ) -> Result<PublishedKeys, KeyError> {
        if !lock(&slot.known).begin_asking(self.clock.now_ms()) {
            return Err(KeyError::AskedBefore);
        }
        let answer = self.fetcher.ask_server(server, on_behalf).await;
        let published = answer.and_then(|answer| Ok(PublishedKeys::parse(server, &answer, self.clock.now_ms())?));
        match published {
            Ok(published) => {
                self.learn(server, slot, &published, Source::Server).await;
                // Before the lock, which it may take.
                let is_of_use = is_of_use(&published);
                lock(&slot.known).was_answered(self.clock.now_ms(), is_of_use);
                Ok(published)
            }
            Err(error) => {
                debug!(%server, error = %Report(&error), "no keys of another server");
                lock(&slot.known).has_failed(self.clock.now_ms(), error.is_definite());
                Err(error)
            }
        }
    }

    /// Asks a notary for the keys of a server, and takes in its answers.
    async fn ask_notary(
        &self,
        notary: &ServerName,
        server: &ServerName,
        slot: &Arc<Slot>,
        key_id: &ServerSigningKeyId,
        at_ms: Option<i64>,
    ) -> Result<(), KeyError> {
        for answer in self.fetcher.ask_notary(notary, server, key_id, at_ms).await? {
            let now_ms = self.clock.now_ms();
            let published = PublishedKeys::parse(server, answer.get().as_bytes(), now_ms)?;
            if !self.is_signed_by(notary, &published, now_ms).await? {
                return Err(PublishedKeysError::NotSigned.into());
            }
            self.learn(server, slot, &published, Source::Notary).await;
        }
        Ok(())
    }

    async fn is_signed_by(
        &self,
        notary: &ServerName,
        published: &PublishedKeys,
        now_ms: i64,
    ) -> Result<bool, KeyError> {
        let slot = self.slot(notary);
        // No notary is asked for keys of notaries, so nobody waits here for somebody who waits for this.
        let _one_at_a_time = slot.asking.lock().await;
        let mut error = None;
        for key_id in published.signers(notary) {
            match self.find_or_ask(notary, &slot, &key_id, Some(now_ms)).await {
                Ok(key) if published.is_signed_by(notary, &key_id, key) => return Ok(true),
                Ok(_) => {}
                Err(unknown) => error = Some(unknown),
            }
        }
        error.map_or(Ok(false), Err)
    }

    /// Takes in an answer, and stores what it changes. If that fails, the next start sends one more request.
    async fn learn(&self, server: &ServerName, slot: &Arc<Slot>, published: &PublishedKeys, source: Source) {
        let now_ms = self.clock.now_ms();
        let (keys, contradicted, bytes) = {
            let mut known = lock(&slot.known);
            let learned = known.keys.learn(published, source, now_ms);
            let row = |key_id: &OwnedServerSigningKeyId| {
                let key = known.keys.get(key_id)?;
                Some(ServerKeyRow {
                    key_id: key_id.to_string(),
                    public_key: key.key.as_bytes().to_vec(),
                    valid_until: key.valid_until_ms,
                    expired_at: key.expired_ms,
                })
            };
            let keys: Vec<_> = learned.changed.iter().filter_map(row).collect();
            (keys, learned.contradicted, known.bytes())
        };
        self.servers.has_grown(&server.to_owned(), slot, bytes);
        for key_id in contradicted {
            debug!(%server, %key_id, "another server uses the ID of a known key for another key, which is not believed");
        }
        let store = StoreKeys {
            server_name: server.as_str().into(),
            keys,
            answer: ServerKeyAnswer { json: published.to_json().into(), valid_until: published.valid_until_ms },
            is_present: source == Source::Server && published.valid_until_ms > now_ms,
        };
        if let Err(error) = self.db.committer().transact(store).await {
            warn!(%server, error = %Report(&error), "the keys of another server were not stored");
        }
    }
}

#[cfg(test)]
mod tests;

//! The keys of other servers: fetched once for all waiting requests, stored in the database, and used only while valid.
//!
//! Promises: a key comes from its own server over TLS, and the answer that contained it is signed with it. At most one
//! request for the keys of a server runs at a time, with a pause after each, so that nobody can make us flood a server
//! by naming it as an origin. A known key is returned without waiting, also while a request to its server runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId};
use sabha_federation::{PublicKey, PublishedKeys, PublishedKeysError};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::discovery::Discovery;
use crate::{
    account::millis,
    clock::Clock,
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    outbound::{Limits, Outbound, OutboundError, Use},
    report::Report,
    store::{
        self, Database,
        ids::lock,
        server_keys::{self as rows, ReplaceKeys, ServerKeyRow},
    },
};

/// Limits of fetching the keys of one server. Meanwhile a request waits to be authenticated.
const FETCH_LIMITS: Limits = Limits { time: Duration::from_secs(10), body_bytes: 64 * 1024, redirects: 0 };

/// Maximum number of concurrent key requests. Any sender of a request decides which server we ask, so they must not
/// take all sockets.
const MAX_FETCHES: usize = 64;

/// Approximate memory of a server without keys, and of each key besides its name. Evicted keys are read from the database
/// again.
const SERVER_BYTES: u64 = 300;
const KEY_BYTES: usize = 280;

/// After an answer, the server is not asked again for this time, for any key.
const PAUSE_AFTER_ANSWER: Duration = Duration::from_secs(30);

/// The pause after the first failure. It doubles with each further failure, up to the second value.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);
const MAX_PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(120);

/// The time after which expired keys are deleted. Until then they tell an operator which keys a server had.
pub const FORGET_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why a key was not found.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the server does not publish this key now")]
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

/// The key ring.
pub struct KeyRing {
    db: Arc<Database>,
    clock: Clock,
    outbound: Arc<Outbound>,
    discovery: Arc<Discovery>,
    fetches: Semaphore,
    servers: Arc<GrowingCache<OwnedServerName, Slot>>,
}

/// The entry of one server.
#[derive(Default)]
struct Slot {
    /// Locked for a few lines without `.await`.
    known: Mutex<Known>,
    /// Held while the server is asked, so that other requests wait for the same answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// Whether the stored keys were loaded from the database.
    is_loaded: bool,
    /// The keys, each with the time until which it is valid.
    keys: BTreeMap<OwnedServerSigningKeyId, (PublicKey, i64)>,
    /// The time before which the server is not asked.
    ask_again_at_ms: i64,
    /// Failures since the last answer.
    failures: u32,
}

impl Known {
    fn bytes(&self) -> u64 {
        let keys: usize = self.keys.keys().map(|key_id| KEY_BYTES + key_id.as_str().len()).sum();
        SERVER_BYTES + keys as u64
    }
}

impl Slot {
    fn find(&self, key_id: &ServerSigningKeyId, now_ms: i64) -> Option<PublicKey> {
        let known = lock(&self.known);
        known.keys.get(key_id).filter(|(_, valid_until_ms)| now_ms < *valid_until_ms).map(|(key, _)| *key)
    }
}

impl KeyRing {
    pub fn new(
        db: Arc<Database>,
        clock: Clock,
        outbound: Arc<Outbound>,
        discovery: Arc<Discovery>,
        budget: &Budget,
    ) -> Self {
        let servers = budget.growing_cache(Part::ServerKeys);
        Self { db, clock, outbound, discovery, fetches: Semaphore::new(MAX_FETCHES), servers }
    }

    /// Finds a key with which this server signs now.
    ///
    /// # Errors
    /// When the server does not publish the key, or could not be reached.
    pub async fn find(&self, server: &ServerName, key_id: &ServerSigningKeyId) -> Result<PublicKey, KeyError> {
        let slot = self.servers.get_or_default(&server.to_owned(), SERVER_BYTES);
        if let Some(key) = slot.find(key_id, self.clock.now_ms()) {
            return Ok(key);
        }
        let _one_at_a_time = slot.asking.lock().await;
        if !lock(&slot.known).is_loaded {
            let stored = self.load(server).await?;
            let bytes = {
                let mut known = lock(&slot.known);
                known.keys = stored;
                known.is_loaded = true;
                known.bytes()
            };
            self.servers.has_grown(&server.to_owned(), &slot, bytes);
        }
        // The key may have been loaded now, or fetched by another request while this one waited.
        let now_ms = self.clock.now_ms();
        if let Some(key) = slot.find(key_id, now_ms) {
            return Ok(key);
        }
        {
            let known = lock(&slot.known);
            if now_ms < known.ask_again_at_ms {
                return Err(if known.failures == 0 { KeyError::Unknown } else { KeyError::AskedBefore });
            }
        }
        self.refresh(server, &slot).await?;
        slot.find(key_id, self.clock.now_ms()).ok_or(KeyError::Unknown)
    }

    async fn load(
        &self,
        server: &ServerName,
    ) -> Result<BTreeMap<OwnedServerSigningKeyId, (PublicKey, i64)>, store::Error> {
        let mut reader = self.db.read().await?;
        let rows = rows::keys_of(&mut reader.conn(), server.as_str()).await?;
        let keys = rows.into_iter().filter_map(|row| {
            let key_id = OwnedServerSigningKeyId::try_from(row.key_id).ok()?;
            Some((key_id, (PublicKey::from_bytes(&row.public_key)?, row.valid_until)))
        });
        Ok(keys.collect())
    }

    /// Fetches the server's keys, and records the result or the failure.
    async fn refresh(&self, server: &ServerName, slot: &Arc<Slot>) -> Result<(), KeyError> {
        let fetched = self.fetch(server).await;
        let now_ms = self.clock.now_ms();
        let published = {
            let mut known = lock(&slot.known);
            match fetched {
                Ok(published) => {
                    known.failures = 0;
                    known.ask_again_at_ms = now_ms.saturating_add(millis(PAUSE_AFTER_ANSWER));
                    let valid_until_ms = published.valid_until_ms;
                    known.keys =
                        published.current.iter().map(|(id, key)| (id.clone(), (*key, valid_until_ms))).collect();
                    published
                }
                Err(error) => {
                    // Cached keys stay valid until they expire.
                    let pause = PAUSE_AFTER_FAILURE.saturating_mul(1 << known.failures.min(16));
                    known.failures = known.failures.saturating_add(1);
                    known.ask_again_at_ms = now_ms.saturating_add(millis(pause.min(MAX_PAUSE_AFTER_FAILURE)));
                    debug!(%server, error = %Report(&error), "no keys of another server");
                    return Err(error);
                }
            }
        };
        let bytes = lock(&slot.known).bytes();
        self.servers.has_grown(&server.to_owned(), slot, bytes);
        self.remember(server, &published).await;
        Ok(())
    }

    async fn fetch(&self, server: &ServerName) -> Result<PublishedKeys, KeyError> {
        let asking = async {
            // The semaphore is never closed.
            let _permit = self.fetches.acquire().await;
            let route = self.discovery.route(server).await;
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = Uri::from_static("/_matrix/key/v2/server");
            self.outbound.send(Use::Keys, &route, request, FETCH_LIMITS).await
        };
        let timed_out = OutboundError::TimedOut(FETCH_LIMITS.time);
        let response = tokio::time::timeout(FETCH_LIMITS.time, asking).await.unwrap_or(Err(timed_out))?;
        if response.status() != StatusCode::OK {
            return Err(KeyError::Refused(response.status()));
        }
        Ok(PublishedKeys::parse(server, response.body(), self.clock.now_ms())?)
    }

    /// Stores the keys for the next start. If this fails, the next start sends one more request.
    async fn remember(&self, server: &ServerName, published: &PublishedKeys) {
        let row = |(key_id, key): (&OwnedServerSigningKeyId, &PublicKey)| ServerKeyRow {
            key_id: key_id.to_string(),
            public_key: key.as_bytes().to_vec(),
            valid_until: published.valid_until_ms,
        };
        let keys = published.current.iter().map(row).collect();
        let replace = ReplaceKeys { server_name: server.to_string(), keys };
        if let Err(error) = self.db.committer().transact(replace).await {
            warn!(%server, error = %Report(&error), "the keys of another server were not stored");
        }
    }
}

/// Deletes the keys that expired before `before_ms`, in small steps.
///
/// # Errors
/// When the database fails. Keys that were already deleted stay deleted.
pub async fn forget_ended(db: &Database, before_ms: i64) -> Result<(), store::Error> {
    /// Servers handled in one transaction, which every other write waits for.
    const BATCH: i64 = 100;
    loop {
        let mut reader = db.read().await?;
        let servers = rows::servers_with_ended_keys(&mut reader.conn(), before_ms, BATCH).await?;
        drop(reader);
        if servers.is_empty() {
            return Ok(());
        }
        db.committer().transact(rows::ForgetEnded { servers, before_ms }).await?;
    }
}

//! Answers to servers whose notary we are: the stored answers of others about their keys, with our signature.
//!
//! Server-server API, [Querying keys through another
//! server](https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server).
//!
//! Promise: whatever is asked, each server gets at most one request from us, and none soon after one that was of no use. A
//! server that is gone keeps its last answer, which its old events need.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{OwnedServerName, OwnedServerSigningKeyId};
use sabha_federation::{PublishedKeys, published_keys};
use serde_json::value::RawValue;
use tokio::{task::JoinSet, time::timeout};
use tracing::{debug, warn};

use super::{KeyError, KeyRing, fetch::OnBehalf};
use crate::{
    report::Report,
    store::{
        self,
        server_keys::{self as rows, SERVERS_PER_STATEMENT},
    },
};

/// Maximum number of servers that a request may name. Servers ask for those of one room's events, in portions.
pub const MAX_SERVERS: usize = 100;

/// Maximum size of the answers together. Those of a hundred usual servers have less than half of it. The others are left out,
/// and can be asked for in another request. A parsed answer takes up to 75 times its size, for as long as servers are asked.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// The number of requests that are answered at a time; the others wait. Each holds parsed answers while it asks.
pub(super) const MAX_ANSWERING: usize = 4;

/// The time for asking the servers themselves. What has not come until then is answered from what is stored.
const ASKING_TIME: Duration = Duration::from_secs(20);

/// The wanted answer of a server.
#[derive(Clone, Debug)]
pub struct WantedAnswer {
    /// The wanted keys, each with the time until which it must be valid, in milliseconds since 1970. None: all keys.
    pub keys: BTreeMap<OwnedServerSigningKeyId, i64>,
    /// The time until which an answer with all keys must be valid.
    pub until_ms: i64,
}

impl WantedAnswer {
    /// Returns whether a server's answer has all that is wanted. A retired key is not valid for any longer.
    fn is_met_by(&self, published: &PublishedKeys) -> bool {
        let is_met = |(key_id, until_ms): (&OwnedServerSigningKeyId, &i64)| {
            let is_current = published.current.contains_key(key_id) && published.valid_until_ms >= *until_ms;
            is_current || published.old.contains_key(key_id)
        };
        if self.keys.is_empty() { published.valid_until_ms >= self.until_ms } else { self.keys.iter().all(is_met) }
    }
}

impl KeyRing {
    /// The answers of these servers, except ours, with our signature. An answer that has not all that is wanted is better
    /// than none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn answers(
        self: &Arc<Self>,
        mut wanted: BTreeMap<OwnedServerName, WantedAnswer>,
    ) -> Result<Vec<Box<RawValue>>, store::Error> {
        let _turn = self.answering.acquire().await;
        wanted.remove(self.signer.server_name());
        let (mut found, mut bytes) = self.stored(&wanted, MAX_ANSWER_BYTES).await?;
        let mut asking = JoinSet::new();
        for (server, wanted) in wanted {
            let is_met = found.get(&server).is_some_and(|answer| wanted.is_met_by(answer));
            if !is_met {
                let ring = Arc::clone(self);
                asking.spawn(async move { (server.clone(), ring.asked_for_others(server, wanted).await) });
            }
        }
        let collecting = async {
            while let Some(ended) = asking.join_next().await {
                let Ok((server, Some(answer))) = ended else { continue };
                bytes += answer.to_json().len();
                if bytes > MAX_ANSWER_BYTES {
                    debug!("a notary asks no further: its answer has its maximum size");
                    return;
                }
                found.insert(server, answer);
            }
        };
        // Those that are not finished end with the set.
        let _: Result<(), _> = timeout(ASKING_TIME, collecting).await;
        Ok(self.countersigned(found.into_values()))
    }

    /// The stored answers of these servers, up to this size, and the size that they have.
    async fn stored(
        &self,
        wanted: &BTreeMap<OwnedServerName, WantedAnswer>,
        most_bytes: usize,
    ) -> Result<(BTreeMap<OwnedServerName, PublishedKeys>, usize), store::Error> {
        let servers: Vec<&OwnedServerName> = wanted.keys().collect();
        let now_ms = self.clock.now_ms();
        let mut found = BTreeMap::new();
        let mut bytes = 0;
        for servers in servers.chunks(SERVERS_PER_STATEMENT) {
            let names: Vec<&str> = servers.iter().map(|server| server.as_str()).collect();
            let mut reader = self.db.read().await?;
            let mut answers = rows::answers_of(&mut reader.conn(), &names).await?;
            drop(reader);
            for server in servers {
                let Some(answer) = answers.remove(server.as_str()) else { continue };
                bytes += answer.json.len();
                if bytes > most_bytes {
                    return Ok((found, bytes));
                }
                match PublishedKeys::parse(server, answer.json.as_bytes(), now_ms) {
                    Ok(mut published) => {
                        // As it was limited when it came: otherwise one that is valid for ever would never be fetched again.
                        published.valid_until_ms = published.valid_until_ms.min(answer.valid_until);
                        found.insert((*server).clone(), published);
                    }
                    Err(error) => warn!(%server, error = %Report(&error), "a stored answer with keys is damaged"),
                }
            }
        }
        Ok((found, bytes))
    }

    /// The new answer of a server, if it gives one.
    async fn asked_for_others(&self, server: OwnedServerName, wanted: WantedAnswer) -> Option<PublishedKeys> {
        let slot = self.slot(&server);
        let _one_at_a_time = slot.asking.lock().await;
        let asking = async {
            self.load(&server, &slot).await?;
            // Anyone may ask a notary, so not even an answer of use allows the next request at once.
            match self.ask_server(&server, &slot, OnBehalf::Others, |_| false).await {
                // Perhaps by another one who has waited for the lock.
                Err(KeyError::AskedBefore) => {
                    let wanted = BTreeMap::from([(server.clone(), wanted)]);
                    Ok(self.stored(&wanted, MAX_ANSWER_BYTES).await?.0.remove(&server))
                }
                answer => answer.map(Some),
            }
        };
        asking.await.unwrap_or_else(|error: KeyError| {
            debug!(%server, error = %Report(&error), "no keys of another server for those who asked us as a notary");
            None
        })
    }

    fn countersigned(&self, answers: impl Iterator<Item = PublishedKeys>) -> Vec<Box<RawValue>> {
        let mut bytes = 0;
        let mut signed = Vec::new();
        for answer in answers {
            let answer = answer.to_json();
            bytes += answer.len();
            if bytes > MAX_ANSWER_BYTES {
                debug!("a notary's answer was cut off at its maximum size");
                break;
            }
            match published_keys::countersign(&self.signer, &answer) {
                Ok(answer) => signed.push(answer),
                Err(error) => debug!(error = %Report(&error), "an answer with keys cannot be signed"),
            }
        }
        signed
    }
}

//! Push rules: the events that an account wants to be notified of.
//!
//! The rules are stored as the account data `m.push_rules`. An account that never changed them has the server's
//! defaults. Next: [`rules`], their changes and the evaluation of events; [`unread`], the counts for `/sync`.

pub mod rules;
pub mod unread;

use std::sync::Arc;

use ruma::{RoomId, push::Ruleset};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::{
    account::turns::Turn,
    account_data::{ACCOUNT, AccountData, PUSH_RULES, PutError, is_kind, render},
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    store::{
        self, Position, UserNid,
        log::{LogEntry, Memory, Touch},
        vocabulary::User,
    },
};

pub use rules::RuleError;
use rules::{carry_over, compiled::CompiledRules, evaluate::Evaluator};
use unread::{JudgedRooms, Stored, Tallies};

/// The size of the server's own rules, with their names and actions.
const DEFAULTS_BYTES: u64 = 6 * 1024;

/// The rules of one user.
pub struct UserRules {
    pub ruleset: Arc<Ruleset>,
    pub compiled: CompiledRules,
    /// The position of their last change, or zero if there never was one. Rules that were read at different times are
    /// the same if their versions are equal.
    version: Position,
    /// A digest of all rules, also of those that the user has not changed.
    digest: [u8; 32],
    bytes: u64,
}

impl HasBytes for UserRules {
    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The cached rules of active users, mostly of 10 kB; the largest that users may have take a few hundred kB. Others are
/// read again when they are used.
struct Rulesets(Arc<ByteCache<UserNid, Arc<UserRules>>>);

impl Memory for Rulesets {
    fn apply(&self, entry: &LogEntry) {
        for (_, touch) in &entry.touches {
            if let Touch::AccountData { user, kind, .. } = touch
                && is_kind(*kind, PUSH_RULES)
            {
                self.0.remove(user);
            }
        }
    }

    fn forget(&self, _: Position) {
        self.0.clear();
    }
}

/// The service of push rules.
pub struct Push {
    data: Arc<AccountData>,
    rulesets: Arc<Rulesets>,
    evaluator: Evaluator,
    judged: JudgedRooms,
    tallies: Tallies,
    stored: Stored,
}

/// Why push rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Refused(#[from] RuleError),
    #[error(transparent)]
    Data(#[from] PutError),
}

impl Push {
    pub fn new(data: Arc<AccountData>, budget: &Budget) -> Self {
        let rulesets = Arc::new(Rulesets(budget.cache(Part::PushRules)));
        data.remember(Arc::<Rulesets>::clone(&rulesets));
        Self {
            data,
            rulesets,
            evaluator: Evaluator::new(budget),
            judged: JudgedRooms::new(budget),
            tallies: Tallies::new(budget),
            stored: Stored::new(budget),
        }
    }

    /// The rules of a local user: the server's defaults with the user's changes.
    pub async fn ruleset(&self, user: &User) -> Result<Arc<Ruleset>, store::Error> {
        Ok(Arc::clone(&self.rules(user).await?.ruleset))
    }

    /// The rules of a local user, both as clients see them and compiled.
    async fn rules(&self, user: &User) -> Result<Arc<UserRules>, store::Error> {
        if let Some(rules) = self.rulesets.0.get(&user.nid) {
            return Ok(rules);
        }
        // One reader at a time, and after a change that is on its way.
        let _turn = self.data.turn_always(user.nid).await;
        if let Some(rules) = self.rulesets.0.get(&user.nid) {
            return Ok(rules);
        }
        let read_at = self.data.published();
        let stored = self.data.find_version(user.nid, ACCOUNT, PUSH_RULES).await?;
        let (content, version) =
            stored.map_or((None, Position::BEFORE_ALL), |(content, version)| (Some(content), version));
        let ruleset = Arc::new(rules::merged(&user.user_id, content.as_deref())?);
        let compiled = CompiledRules::new(&ruleset);
        let stored_bytes = content.map_or(DEFAULTS_BYTES, |content| 2 * content.get().len() as u64);
        let bytes = compiled.bytes() as u64 + stored_bytes;
        let digest = Sha256::digest(rules::content(&ruleset)?.get()).into();
        let rules = Arc::new(UserRules { ruleset, compiled, version, digest, bytes });
        self.data.keep_if_unchanged(user.nid, read_at, || self.rulesets.0.insert(user.nid, Arc::clone(&rules)));
        Ok(rules)
    }

    /// The content of the user's `m.push_rules`.
    pub async fn content(&self, user: &User) -> Result<Box<RawValue>, store::Error> {
        rules::content(&*self.ruleset(user).await?)
    }

    /// The user's `m.push_rules` event, for `/sync`.
    pub async fn ruleset_event(&self, user: &User) -> Result<Box<RawValue>, store::Error> {
        render(PUSH_RULES, &self.content(user).await?)
    }

    /// Changes the user's rules: all of `change`, or nothing.
    pub async fn change(
        &self,
        user: &User,
        change: impl FnOnce(&mut Ruleset) -> Result<(), RuleError>,
    ) -> Result<(), ChangeError> {
        let turn = self.data.turn(user.nid).await?;
        self.change_in(&turn, user, change).await
    }

    async fn change_in(
        &self,
        turn: &Turn<'_>,
        user: &User,
        change: impl FnOnce(&mut Ruleset) -> Result<(), RuleError>,
    ) -> Result<(), ChangeError> {
        self.data
            .update(turn, ACCOUNT, PUSH_RULES, |stored| {
                let mut ruleset = rules::merged(&user.user_id, stored).map_err(PutError::Storage)?;
                change(&mut ruleset)?;
                let content = rules::content(&ruleset).map_err(PutError::Storage)?;
                Ok::<_, ChangeError>(Some(content))
            })
            .await
    }

    /// Copies the user's rules for the room `old` to its replacement `new`.
    pub async fn carry_over(&self, user: &User, old: &RoomId, new: &RoomId) -> Result<(), ChangeError> {
        let ruleset = self.ruleset(user).await.map_err(PutError::Storage)?;
        // Most users have no rule for the room, and need no write.
        if carry_over::copies(&ruleset, old, new).is_empty() {
            return Ok(());
        }
        let turn = self.data.turn_always(user.nid).await;
        self.change_in(&turn, user, |ruleset| {
            let copies = carry_over::copies(ruleset, old, new);
            carry_over::add(ruleset, copies)
        })
        .await
    }
}

#[cfg(test)]
mod tests;

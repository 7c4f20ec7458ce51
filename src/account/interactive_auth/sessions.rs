//! The sessions of interactive authentication: the stages that each has passed, and for which operation.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Mutex,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    account::{millis, session::tokens::random_text},
    store::{UserNid, ids::lock},
};

/// Maximum number of sessions, counted separately for users and for people who register. With more, the oldest go. So a
/// flood of registrations can push out other registrations, but no session of a logged-in user.
const MAX_SESSIONS: usize = 10_000;

/// Maximum number of sessions of one user: more than they have windows open. With more, their oldest goes.
const MAX_PER_USER: usize = 20;

/// Maximum number of sessions of strangers from one network: a school class may register behind one address.
const MAX_PER_NETWORK: usize = 100;

/// Length of a session's name, which cannot be guessed.
const NAME_LENGTH: usize = 24;

/// One thing to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The caller's password.
    Password,
    /// Nothing; the client shows that it knows the procedure.
    Dummy,
    /// A registration token with uses left.
    RegistrationToken,
    /// A stage that this server does not support. It is in no flow.
    Unsupported,
}

/// Stages that together complete the authentication.
pub type Flow = &'static [Stage];

/// The proofs of a complete flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// The token, if there was a stage for one. The caller must use it up.
    pub registration_token: Option<String>,
}

/// The progress of a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// A flow is complete, and the session was deleted.
    Passed(Passed),
    Open,
}

#[derive(Debug)]
struct Session {
    owner: Option<UserNid>,
    holder: Holder,
    operation: Operation,
    began_at: i64,
    completed: Vec<Stage>,
    passed: Passed,
}

/// The hash of an operation's name. The name may be long, and only needs to be compared.
type Operation = [u8; 32];

fn digest(operation: &str) -> Operation {
    Sha256::digest(operation.as_bytes()).into()
}

/// The owner of a session for the limits on sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    User(UserNid),
    /// People who register from this network. `None` stands for all whose address is unknown.
    Network(Option<IpAddr>),
}

impl Holder {
    fn most(self) -> usize {
        match self {
            Self::User(_) => MAX_PER_USER,
            Self::Network(Some(_)) => MAX_PER_NETWORK,
            Self::Network(None) => MAX_SESSIONS,
        }
    }
}

/// Sessions by name, and their names in the order of their start: of all, and of each holder.
#[derive(Debug, Default)]
struct Pool {
    sessions: HashMap<String, Session>,
    /// All names in order, including sessions that have ended.
    order: VecDeque<(i64, String)>,
    held: HashMap<Holder, VecDeque<String>>,
}

impl Pool {
    fn remove(&mut self, name: &str) -> Option<Session> {
        let session = self.sessions.remove(name)?;
        if let Some(names) = self.held.get_mut(&session.holder) {
            names.retain(|other| other != name);
            if names.is_empty() {
                self.held.remove(&session.holder);
            }
        }
        Some(session)
    }

    /// Makes room for a new session. Removes those that began before `oldest`, the holder's oldest if they have their
    /// maximum, and the oldest of all if the pool is full.
    fn make_room(&mut self, oldest: i64, holder: Holder) {
        while let Some(name) = self.held.get(&holder).filter(|names| names.len() >= holder.most()) {
            let Some(name) = name.front().cloned() else { break };
            self.remove(&name);
        }
        while let Some((began_at, name)) = self.order.front() {
            if self.sessions.contains_key(name) && *began_at > oldest && self.sessions.len() < MAX_SESSIONS {
                break;
            }
            if let Some((_, name)) = self.order.pop_front() {
                self.remove(&name);
            }
        }
        // A live session at the front keeps the names of later ones that have ended in the list.
        if self.order.len() >= 2 * MAX_SESSIONS {
            self.order.retain(|(_, name)| self.sessions.contains_key(name));
        }
    }
}

/// All sessions of this process.
#[derive(Debug)]
pub struct InteractiveAuth {
    lifetime_ms: i64,
    /// The lock protects both pools, of strangers and of users.
    pools: Mutex<[Pool; 2]>,
}

impl InteractiveAuth {
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime_ms: millis(lifetime), pools: Mutex::default() }
    }

    /// Begins a session and returns its name. `network` is the network of a stranger's request.
    pub fn begin(&self, owner: Option<UserNid>, network: Option<IpAddr>, operation: &str, now: i64) -> String {
        let name = random_text(NAME_LENGTH);
        let holder = owner.map_or(Holder::Network(network), Holder::User);
        let session = Session {
            owner,
            holder,
            operation: digest(operation),
            began_at: now,
            completed: Vec::new(),
            passed: Passed::default(),
        };
        let mut pools = lock(&self.pools);
        let pool = &mut pools[usize::from(owner.is_some())];
        pool.make_room(now - self.lifetime_ms, holder);
        pool.sessions.insert(name.clone(), session);
        pool.held.entry(holder).or_default().push_back(name.clone());
        pool.order.push_back((now, name.clone()));
        name
    }

    /// Returns whether this is a live session of this owner for this operation.
    pub fn is_open(&self, name: &str, owner: Option<UserNid>, operation: &str, now: i64) -> bool {
        let operation = digest(operation);
        let pools = lock(&self.pools);
        pools[usize::from(owner.is_some())].sessions.get(name).is_some_and(|session| {
            session.owner == owner && session.operation == operation && now < session.began_at + self.lifetime_ms
        })
    }

    /// The owner of the session, if it is alive.
    pub(super) fn owner(&self, name: &str, now: i64) -> Option<Option<UserNid>> {
        let pools = lock(&self.pools);
        let session = pools.iter().find_map(|pool| pool.sessions.get(name))?;
        (now < session.began_at + self.lifetime_ms).then_some(session.owner)
    }

    /// The stages that were passed.
    pub fn completed(&self, name: &str) -> Vec<Stage> {
        let pools = lock(&self.pools);
        let session = pools.iter().find_map(|pool| pool.sessions.get(name));
        session.map(|session| session.completed.clone()).unwrap_or_default()
    }

    /// Ends the session if one of the flows is complete.
    pub(super) fn look(&self, name: &str, flows: &[Flow]) -> Progress {
        let mut pools = lock(&self.pools);
        for pool in pools.iter_mut() {
            let complete = |session: &Session| {
                flows.iter().any(|flow| !flow.is_empty() && flow.iter().all(|stage| session.completed.contains(stage)))
            };
            if pool.sessions.get(name).is_some_and(complete)
                && let Some(session) = pool.remove(name)
            {
                return Progress::Passed(session.passed);
            }
        }
        Progress::Open
    }

    /// Records a passed stage, and ends the session if this completes one of the flows.
    pub(super) fn pass(
        &self,
        name: &str,
        stage: Stage,
        registration_token: Option<String>,
        flows: &[Flow],
    ) -> Progress {
        self.remember(name, stage, registration_token);
        self.look(name, flows)
    }

    /// Records a passed stage. The client asks later whether a flow is complete.
    pub(super) fn remember(&self, name: &str, stage: Stage, registration_token: Option<String>) {
        let mut pools = lock(&self.pools);
        if let Some(session) = pools.iter_mut().find_map(|pool| pool.sessions.get_mut(name)) {
            if !session.completed.contains(&stage) {
                session.completed.push(stage);
            }
            if registration_token.is_some() {
                session.passed.registration_token = registration_token;
            }
        }
    }
}

#[cfg(test)]
mod tests;

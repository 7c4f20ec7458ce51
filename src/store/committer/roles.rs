//! The roles of a process: it leads and writes, or follows the log of the process that does.
//!
//! A process on SQLite, and one that is alone on PostgreSQL, leads from its start to its end. Of several processes on one
//! PostgreSQL ([`Role::Follow`]), the one with the lease leads.
//!
//! A leader that loses the lease steps down: it refuses what is queued, and throws away all that memory knew beyond the
//! database. A follower applies the log up to the slot's position before it takes the lease. So a new leader knows
//! everything that was ever committed, and goes on with the next position.

use std::sync::Arc;

use super::{
    Committer, Ended, Health,
    connection::{Failure, Pauses, WriterConn},
    run::contained,
};
use crate::{
    report::Report,
    store::{
        Error, Position, Write,
        conn::late,
        ids::lock,
        log::{
            LogEntry, Touch,
            feed::LogEnd,
            follow::{LogPlace, Page},
            lease::{self, LeaseWatch, Taken},
        },
        terms,
    },
};

/// The part that a process may play for its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It is the only process: it leads, keeps others away, and ends when another one has taken the database over.
    #[default]
    Lead,
    /// It is one of several processes on one PostgreSQL: it follows the one that leads, or leads itself.
    Follow,
}

/// A process that follows, and how far it has come.
struct Following {
    watch: LeaseWatch,
    place: Option<LogPlace>,
    /// The epoch up to which the terms are known.
    epoch: Option<i64>,
}

/// The end of one look at the log.
enum Interrupted {
    /// The connection is of no more use. The next look goes on where this one ended.
    Database(Error),
    Ended(Ended),
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<Ended> for Interrupted {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl Committer {
    /// Leads and follows in turn, until the committer ends.
    pub(super) async fn serve(&self, conn: &mut WriterConn) -> Ended {
        let mut given_up = None;
        loop {
            if self.health() == Health::Following {
                if let Err(ended) = self.follow(conn, given_up).await {
                    return ended;
                }
                tracing::info!(position = self.published().0, "leading from here on");
            }
            given_up = match self.lead(conn).await {
                Ok(()) => {
                    conn.hand_over(&self.0).await;
                    Some(conn.epoch)
                }
                Err(Ended::Fenced) if self.0.role == Role::Follow => {
                    tracing::warn!("another process has taken the lease");
                    None
                }
                Err(ended) => {
                    if ended == Ended::Stopped && self.0.role == Role::Follow {
                        conn.hand_over(&self.0).await;
                    }
                    return ended;
                }
            };
            if let Err(ended) = self.step_down().await {
                return ended;
            }
        }
    }

    /// Waits for a write. Asks meanwhile whether this process still leads, and shows those that follow that it is there.
    pub(super) async fn wait_for_writes(&self, conn: &mut WriterConn) -> Result<(), Ended> {
        let shared = &self.0;
        if !shared.current.can_end() {
            shared.wake.notified().await;
            return Ok(());
        }
        tokio::select! {
            () = shared.wake.notified() => return Ok(()),
            () = shared.current.wanted() => {}
            () = tokio::time::sleep(conn.patience.beat) => {}
        }
        let asked_at = shared.clock.uptime();
        match self.reporting(conn.beat(shared), 0).await {
            Ok(()) => {
                shared.current.confirm(asked_at);
                // The beat does not tell whether the disk is still full.
                if self.health() == Health::Waiting {
                    shared.pulse.set(Health::Working);
                }
                Ok(())
            }
            Err(Failure::Fenced) => Err(Ended::Fenced),
            Err(Failure::Stopped | Failure::Lost(_) | Failure::Refused(_)) => Err(Ended::Unsettled),
        }
    }

    /// Refuses everything that is queued, and forgets everything that is not in the database.
    async fn step_down(&self) -> Result<(), Ended> {
        self.0.pulse.set(Health::Following);
        lock(&self.0.queue).follow();
        loop {
            let (batch, has_ended) = self.take();
            batch.into_iter().for_each(|queued| self.0.refuse(queued, Error::NotLeader));
            // Writes that were being built must be gone before the positions get another meaning.
            if has_ended.is_some() {
                break;
            }
            self.0.wake.notified().await;
        }
        self.0.ids.close();
        contained(|| self.0.memory.forget(self.published()))?;
        self.0.feed.cursors().forget_places();
        Ok(())
    }

    /// Follows the process that leads, until this one has taken the lease.
    async fn follow(&self, conn: &mut WriterConn, given_up: Option<i64>) -> Result<(), Ended> {
        let shared = &self.0;
        let mut complete = shared.memory_is_complete.subscribe();
        tokio::select! {
            // The sender is in `self`, so this only ends with what is waited for.
            _ = complete.wait_for(|complete| *complete) => {}
            () = shared.stop.cancelled() => return Err(Ended::Stopped),
        }
        let (look_every, limit) = (conn.patience.look, conn.patience.commit);
        let watch = LeaseWatch::new(conn.patience.silence, given_up);
        let mut following = Following { watch, place: None, epoch: None };
        // Set while the database does not answer.
        let mut pauses = None;
        loop {
            let failure = match tokio::time::timeout(limit, self.look(conn, &mut following)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => None,
                Ok(Err(Interrupted::Ended(ended))) => return Err(ended),
                Ok(Err(Interrupted::Database(error))) => Some(error),
                Err(_) => Some(late(limit).into()),
            };
            if let Some(error) = failure {
                conn.lose();
                if pauses.is_none() {
                    tracing::warn!(error = %Report(&error), "commits of another process not followed, trying again");
                } else {
                    tracing::debug!(error = %Report(&error), "the database is still away");
                }
                if pauses.get_or_insert_with(Pauses::new).wait(shared).await.is_err() {
                    return Err(Ended::Stopped);
                }
                continue;
            }
            pauses = None;
            tokio::select! {
                () = shared.hint.notified() => {}
                () = shared.current.wanted() => {}
                () = tokio::time::sleep(look_every) => {}
                () = shared.stop.cancelled() => return Err(Ended::Stopped),
            }
        }
    }

    /// Applies the log up to the slot's position, and takes the lease if it may. Returns whether it has taken it.
    async fn look(&self, conn: &mut WriterConn, following: &mut Following) -> Result<bool, Interrupted> {
        conn.reach().await?;
        let shared = &self.0;
        let log_bytes = conn.log_bytes.take();
        let mut db = conn.conn(&shared.counters);
        let asked_at = shared.clock.uptime();
        let slot = lease::read(&mut db).await?;
        if slot.pos < self.published() {
            return Err(Ended::SetBack.into());
        }
        // Before any position of a new term is visible.
        if following.epoch != Some(slot.epoch) {
            shared.terms.set(terms::list(&mut db).await?);
            following.epoch = Some(slot.epoch);
        }
        let visible = self.published();
        let mut place = match (following.place, log_bytes) {
            (Some(place), _) => place,
            (None, Some(bytes)) => LogPlace::new(visible, bytes),
            (None, None) => LogPlace::at(&mut db, visible).await?,
        };
        loop {
            let is_last = match place.page(&mut db, slot.pos).await? {
                Page::Entries(entries, is_last) => {
                    for entry in entries {
                        self.take_over(entry)?;
                    }
                    is_last
                }
                Page::Missing => {
                    tracing::warn!(
                        position = slot.pos.0,
                        "the commit log does not reach back: forgetting what memory has"
                    );
                    let end = LogEnd::find_upto(&mut db, slot.pos).await?;
                    place = LogPlace::new(slot.pos, end.bytes);
                    contained(|| shared.memory.forget(slot.pos))?;
                    shared.feed.skip_to(end);
                    true
                }
            };
            following.place = Some(place);
            if is_last {
                break;
            }
        }
        if slot.pos > self.published() {
            self.show(slot.pos, None);
        }
        shared.current.confirm(asked_at);
        if !following.watch.may_take(slot, shared.clock.uptime()) {
            return Ok(false);
        }
        let number = new_term_number();
        let taken = lease::take(&mut db, slot, number, shared.clock.now_ms()).await?;
        if let Some(taken) = taken {
            conn.begin_term(&taken);
            self.begin_term(taken);
            return Ok(true);
        }
        Ok(false)
    }

    /// Makes a commit of another process known in this one.
    fn take_over(&self, entry: Arc<LogEntry>) -> Result<(), Ended> {
        let span = tracing::debug_span!("committer.follow");
        span.in_scope(|| contained(|| self.0.memory.follow(&entry)))?;
        self.show(entry.pos, Some(entry));
        Ok(())
    }

    fn show(&self, position: Position, entry: Option<Arc<LogEntry>>) {
        self.0.show(position);
        if let Some(entry) = entry {
            self.0.feed.append(entry);
        }
        if let Some(tell) = self.0.on_published.0.get() {
            tell();
        }
    }

    /// Takes writes from now on, after the last position of the term before.
    pub(in crate::store) fn begin_term(&self, Taken { term, blocks }: Taken) {
        self.0.terms.add(term);
        self.0.ids.open(blocks);
        lock(&self.0.queue).open(term.after);
        self.0.pulse.set(Health::Working);
        let lease = Touch::Lease { epoch: term.epoch, incarnation: term.number };
        // The log says where the term begins. A server that stops already need not say it.
        let _ = self.submit::<Error>(1, |_| Ok(Write::default().touching(lease)));
    }

    /// Lets other processes write: this one follows, until one of them has the lease and gives it up.
    pub(in crate::store) fn follow_others(&self) {
        lock(&self.0.queue).follow();
        self.0.ids.close();
        self.0.pulse.set(Health::Following);
    }

    /// Gives the lease to another process, after what is queued. If there is no other one, this process takes it again after
    /// a while. Does nothing in a process that is alone or does not lead.
    pub fn hand_over(&self) {
        if self.0.role == Role::Follow {
            lock(&self.0.queue).follow();
            self.0.wake.notify_one();
        }
    }

    /// Says that another process may have committed. A process that follows looks at once.
    pub fn hint(&self) {
        self.0.hint.notify_one();
    }

    /// Lets memory follow other processes. Call it when all parts of memory are there.
    pub(in crate::store) fn memory_is_complete(&self) {
        self.0.memory_is_complete.send_replace(true);
    }

    /// Returns whether another process writes.
    pub fn is_following(&self) -> bool {
        self.health() == Health::Following
    }

    /// Returns whether several processes may share the database.
    pub fn is_shared(&self) -> bool {
        self.0.role == Role::Follow
    }

    /// Waits until this process may write, or the committer has ended. Cancel safe.
    pub async fn leading(&self) {
        self.0.pulse.wait_for(|health| *health != Health::Following).await;
    }

    /// Waits until another process writes, or is to. For ever if the committer ends before. Cancel safe.
    pub async fn following(&self) {
        self.0.pulse.wait_for(|health| *health == Health::Following).await;
    }

    /// Waits until this process leads no more in the term with this number, even if it leads in a later one by now. For ever
    /// if the committer ends before. Cancel safe.
    pub async fn term_over(&self, number: i64) {
        // A term is known before its process leads.
        let is_over = |health: &Health| *health == Health::Following || self.0.terms.current() != number;
        self.0.pulse.wait_for(is_over).await;
    }

    /// Waits until a position is visible in this process, which shares its database with others. Cancel safe.
    pub async fn reached(&self, position: Position) {
        // The sender is in `self`, so the wait ends only with the position.
        let _ = self.0.visible.subscribe().wait_for(|visible| *visible >= position).await;
    }
}

/// A number for a new term: any that no other term has. 0 stands for nobody.
pub(in crate::store) fn new_term_number() -> i64 {
    i64::from(rand::random::<u32>()) + 1
}

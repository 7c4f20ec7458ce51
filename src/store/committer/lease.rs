//! The writing connection of a process that shares its database with others: it takes the lease, keeps it and gives it up.

use super::{
    Role, Shared,
    connection::{Engine, Failure, Pauses, WriterConn, connect, within},
};
use crate::{
    report::Report,
    store::{
        Error, Position,
        log::lease::{self, Taken},
        terms,
    },
};

impl WriterConn {
    /// Connects again if the connection was lost, and leaves the slot as it is.
    pub(super) async fn reach(&mut self) -> Result<(), Error> {
        if let Engine::Postgres { conn: conn @ None, options } = &mut self.engine {
            *conn = Some(Box::new(connect(options, &self.patience).await?));
            self.unlocked = true;
        }
        self.lock_again().await
    }

    /// Writes with the right of this term from now on.
    pub(in crate::store) fn begin_term(&mut self, taken: &Taken) {
        let term = taken.term;
        (self.holder, self.epoch, self.asked_epoch) = (term.number, term.epoch, term.epoch);
        self.log_bytes = None;
    }

    /// Asks whether the lease is still ours, and shows the others that this process is there, if there may be others.
    pub(super) async fn beat(&mut self, shared: &Shared) -> Result<(), Failure> {
        if !self.is_lost() {
            match self.has_lease(shared).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Failure::Fenced),
                Err(error) => tracing::debug!(error = %Report(&error), "beat not answered"),
            }
            self.lose();
        }
        // The new epoch shows it too.
        self.regain(shared).await.map(drop)
    }

    async fn has_lease(&mut self, shared: &Shared) -> Result<bool, Error> {
        let (epoch, limit) = (self.epoch, self.patience.connect);
        let mut conn = self.conn(&shared.counters);
        match shared.role {
            Role::Follow => within(limit, lease::beat(&mut conn, epoch)).await,
            Role::Lead => {
                let position = within(limit, lease::find_position(&mut conn, epoch)).await?;
                // The lock may have been lost with an earlier connection, and keeps a second process away.
                self.lock_again().await?;
                Ok(position.is_some())
            }
        }
    }

    /// Gives the lease up. If that is not answered, the others wait until they take this process for gone.
    pub(super) async fn hand_over(&mut self, shared: &Shared) {
        if self.is_lost() {
            return;
        }
        let (epoch, limit) = (self.epoch, self.patience.connect);
        let mut conn = self.conn(&shared.counters);
        if let Err(error) = within(limit, lease::hand_over(&mut conn, epoch)).await {
            tracing::warn!(error = %Report(&error), "lease not handed over");
            self.lose();
        }
    }

    /// Finds out whether the batch that ends at `last` was stored before another process took the lease: the next term
    /// begins after it then. Waits for the database as long as it takes.
    pub(super) async fn was_stored(&mut self, shared: &Shared, last: Position) -> Result<bool, Failure> {
        let mut pauses = Pauses::new();
        loop {
            match self.next_term(shared).await {
                Ok(next) => return Ok(next.is_some_and(|after| after >= last)),
                Err(error) => tracing::debug!(error = %Report(&error), "the database is still away"),
            }
            self.lose();
            pauses.wait(shared).await?;
        }
    }

    async fn next_term(&mut self, shared: &Shared) -> Result<Option<Position>, Error> {
        self.reach().await?;
        let (epoch, limit) = (self.epoch, self.patience.connect);
        let mut conn = self.conn(&shared.counters);
        within(limit, terms::next_after(&mut conn, epoch)).await
    }
}

//! The followers of the commit log in this server, and the upkeep of the log.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::jobs;
use crate::{
    app::App,
    store::{
        leftovers::Sweeper,
        log::{Consumer, Cursor},
    },
};

/// Starts each follower in its own task, so that one whose work is slow or fails stops no other.
pub(super) fn spawn(app: &App, tasks: &mut JoinSet<()>) {
    // All are registered before the upkeep starts: it forgets the places of followers that it does not know.
    let jobs = jobs::cursor(app);
    let leftovers = cursor(app, Sweeper::new(Arc::clone(&app.db)));
    let runner = app.clone();
    tasks.spawn(async move { jobs::run(&runner, jobs).await });
    let stopping = app.stopping.clone();
    tasks.spawn(async move { leftovers.run(&stopping).await });
    let app = app.clone();
    tasks.spawn(async move {
        let upkeep = app.db.cursors().keep(&app.db, &app.clock);
        app.stopping.run_until_cancelled(upkeep).await.unwrap_or_default();
    });
}

/// The place of a follower in the commit log.
pub(super) fn cursor<C: Consumer>(app: &App, consumer: C) -> Cursor<C> {
    Cursor::new(consumer, Arc::clone(&app.db), app.clock.clone())
}

//! `/sync`, version 3: from the request to the answer.

mod account;
mod answer;
mod budget;
mod caught_up;
mod devices;
mod joined;
mod look;
mod membership;
mod size;
mod state;
mod summary;
mod timeline;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ruma::presence::PresenceState;
use tokio::{sync::OnceCell, time::Instant};
use tracing::{Instrument as _, debug_span};

use self::{
    answer::{answer, empty, next_batch, nothing},
    budget::Budgets,
    caught_up::Lacks,
    look::Look,
};
use super::token::{Hints, SyncToken};
use crate::{
    account::LocalDevice,
    app::App,
    bus::LiveUser,
    filter::SyncFilter,
    shares::large_answers::NoTurn,
    store::{Error, Position},
};

/// The age in positions from which a client's token is moved forward by a look at the end of a request, even without
/// news. Otherwise an idle client's token would grow so old that memory no longer reaches back to it, and its next look
/// would query the database. The shortest memory is the log of changed device lists, with 4096 entries.
const FAR_BEHIND: i64 = 2048;

/// A client's request.
#[derive(Debug)]
pub struct Request {
    pub filter: Arc<SyncFilter>,
    /// The client's position. `None` if it knows nothing yet.
    pub since: Option<SyncToken>,
    /// The part of the client's token that is about single rooms.
    pub hints: Hints,
    pub full_state: bool,
    /// True if the state is sent as of after the timeline, instead of before it.
    pub state_after: bool,
    /// True for the unstable spelling of `state_after`, which changes the field's name in the answer.
    pub state_after_unstable: bool,
    pub set_presence: PresenceState,
    pub timeout: Duration,
}

/// The reason why a sync has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The caller was signed out while they waited.
    #[error("the access token was revoked")]
    Revoked,
    #[error(transparent)]
    NoTurn(#[from] NoTurn),
    /// More rooms did not fit into the answer than the client's token can name.
    #[error("the rooms have too much state for one answer")]
    TooMuchState,
    #[error("the news could not be read")]
    Storage(#[from] Error),
}

/// Answers a sync: at once if there is news, otherwise as soon as there is, or empty at the end of the timeout.
///
/// # Errors
/// After an error, a client keeps its token and retries; after [`SyncError::TooMuchState`] it should ask for less.
///
/// # Cancellation
/// Safe: the only write is which to-device messages the client's token acknowledges.
pub async fn sync(app: &App, caller: &LocalDevice, request: &Request) -> Result<Bytes, SyncError> {
    // Steps are boxed: a parked request would keep the space of its largest step for as long as it waits.
    let mut deadline = Instant::now() + request.timeout;
    // With a token of another database, such as one from after a restored backup, the client starts over.
    let mut since = match request.since {
        Some(token) if app.db.knows(token.term, token.position).await? => Some(token),
        _ => None,
    };
    if let Some(token) = &mut since {
        let (device, upto) = (caller.device_nid, token.to_device.unwrap_or(token.position));
        // Not even the box is made if memory knows that there is nothing to read.
        if !app.keys.acknowledge_in_memory(device, upto) {
            let acknowledge = app.keys.acknowledge_to_device(device, upto);
            Box::pin(acknowledge).instrument(debug_span!("sync.acknowledge")).await?;
        }
        if token.start != app.db.start() {
            // Numbers of ephemeral changes belong to one start of one process.
            token.ephemeral = 0;
        }
    }
    let (_syncing, changed) = app.ephemeral.touch(&caller.user, &request.set_presence);
    if let Some(number) = changed {
        Box::pin(app.ephemeral.announce(&app.rooms, caller.user.nid, number)).await;
    }
    let find_live = || app.bus.live(caller.user.nid, app.db.committer().published(), app.clock.now_ms());
    let mut live = find_live();
    let (mut stopping, mut place) = (false, None);
    // Whether newer syncs have displaced this one, and whether it has to be answered for that reason.
    let (mut gives_way, mut displaced) = (false, false);
    loop {
        if live.is_retired() {
            live = find_live();
        }
        if !live.watching.initialized() {
            Box::pin(watch(app, &live)).instrument(debug_span!("sync.live")).await?;
        }
        // From here on no wake-up is missed.
        let Some(wake) = live.next_wake() else { continue };
        tokio::pin!(wake);
        let over = stopping || Instant::now() >= deadline;
        // In a block, because a parked request would keep the space of the look.
        {
            let upto = app.db.committer().published();
            let look = Look {
                app,
                caller,
                request,
                since,
                upto,
                // After the position.
                term: app.db.term(),
                ephemeral: app.bus.ephemeral(),
                now_ms: app.clock.now_ms(),
                ignored: OnceCell::new(),
                budgets: Budgets::default(),
                live: &live,
            };
            match look.since.filter(|since| !may_have_news(&look, since)) {
                Some(since) if over && !is_far_behind(look.upto, &since) => {
                    return Ok(Box::pin(empty(&look, &since)).instrument(debug_span!("sync.empty")).await?);
                }
                Some(_) if !over => {}
                _ => {
                    let (answer, has_news) = match debug_span!("sync.caught_up").in_scope(|| caught_up::answer(&look)) {
                        Ok(answer) => answer,
                        Err(lacks) => Box::pin(collect(&look, lacks, deadline)).await?,
                    };
                    if has_news || over {
                        return Ok(answer);
                    }
                }
            }
        }
        let place = place.get_or_insert_with(|| app.parked_syncs.park(caller, &request.filter));
        let park = async {
            loop {
                tokio::select! {
                    // The most frequent end comes first, so that nothing else is asked then.
                    biased;
                    () = &mut wake => return false,
                    () = tokio::time::sleep_until(deadline) => { displaced = gives_way; return false }
                    () = app.stopping.cancelled() => return true,
                    () = caller.revoked.cancelled() => return true,
                    // News that comes until then is told at once.
                    at = place.displaced() => (gives_way, deadline) = (true, deadline.min(at)),
                }
            }
        };
        stopping = park.instrument(debug_span!("sync.park")).await;
        if caller.revoked.is_cancelled() {
            return Err(SyncError::Revoked);
        }
        if let Some(since) = request.since.filter(|_| displaced) {
            if !is_far_behind(app.db.committer().published(), &since) {
                return Ok(nothing(&since, &request.hints));
            }
            // The token must move on, so there is a look, as after the timeout.
            stopping = true;
        }
    }
}

/// Makes the live user watch all rooms that they are joined to, so that everything that concerns them wakes them.
async fn watch(app: &App, live: &Arc<LiveUser>) -> Result<(), Error> {
    let watch = async {
        app.bus.watch_all(live, &app.rooms.joined_rooms(live.user).await?);
        Ok::<_, Error>(())
    };
    live.watching.get_or_try_init(|| watch).await?;
    Ok(())
}

fn may_have_news(look: &Look<'_>, since: &SyncToken) -> bool {
    look.request.full_state
        || since.to_device.is_some()
        // Rooms that were left out may be sent now, and ephemeral state of an earlier start must be ended.
        || !look.request.hints.left_out.is_empty()
        || look.earlier_start().is_some()
        || look.live.latest() > since.position
        || look.live.latest_ephemeral() > since.ephemeral
}

/// Returns whether the client's token is so old that memory will soon no longer reach back to it.
fn is_far_behind(upto: Position, since: &SyncToken) -> bool {
    upto.0 - since.position.0 > FAR_BEHIND
}

/// Builds an answer that memory alone does not have: after a count, or else from everything.
async fn collect(look: &Look<'_>, lacks: Lacks, deadline: Instant) -> Result<(Bytes, bool), SyncError> {
    if let Lacks::Count(room) = lacks {
        let counting = Box::pin(caught_up::answer_after_counting(look, room));
        if let Some(answer) = counting.instrument(debug_span!("sync.caught_up")).await {
            return Ok(answer);
        }
    }
    Box::pin(answer(look, deadline)).instrument(debug_span!("sync.answer")).await
}

#[cfg(test)]
mod tests;

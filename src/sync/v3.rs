//! `/sync`, version 3: from the request to the answer.

mod account;
mod budget;
mod caught_up;
mod devices;
mod joined;
mod membership;
mod size;
mod state;
mod summary;
mod timeline;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ruma::presence::PresenceState;
use sabha_federation::state_log::Membership;
use tokio::{sync::OnceCell, time::Instant};
use tracing::{Instrument as _, debug_span};

use self::{budget::Budgets, caught_up::Lacks, size::Size};
use super::{
    json::Object,
    token::{Hints, SyncToken},
    visit::ToVisit,
};
use crate::{
    account::LocalDevice,
    account_data::ignored::Ignored,
    app::App,
    bus::LiveUser,
    filter::SyncFilter,
    limits::large_answers::NoTurn,
    room::{Room, read::visibility::Sight},
    store::{Error, Position, RoomNid},
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

/// One look for news: the caller, the start and the end.
pub(super) struct Look<'a> {
    app: &'a App,
    caller: &'a LocalDevice,
    request: &'a Request,
    since: Option<SyncToken>,
    upto: Position,
    /// The term that has reached `upto`.
    term: i64,
    ephemeral: u64,
    now_ms: i64,
    ignored: OnceCell<Arc<Ignored>>,
    budgets: Budgets,
    live: &'a LiveUser,
}

impl Look<'_> {
    /// The rooms to look at: all of them for a client that knows nothing or asks for everything.
    async fn to_visit(&self) -> Result<ToVisit, Error> {
        match self.since.filter(|_| !self.request.full_state) {
            Some(since) => {
                let (who, token) = ((&*self.caller.user, self.live), (&since, &self.request.hints));
                ToVisit::since(self.app, who, token, |room| self.wants(room)).await
            }
            None => ToVisit::all(self.app, &self.caller.user, |room| self.wants(room)).await,
        }
    }

    /// The users that the user ignores: the same for the whole answer, and read when first needed.
    async fn ignored(&self) -> Result<&Ignored, Error> {
        // Called for every room: creating the future that reads them would copy all of it each time.
        if let Some(ignored) = self.ignored.get() {
            return Ok(ignored);
        }
        let read = || Box::pin(self.app.account_data.ignored(&self.caller.user));
        Ok(self.ignored.get_or_try_init(read).await?)
    }

    /// Returns whether the filter accepts any part of the room.
    fn wants(&self, room: &Room) -> bool {
        self.request.filter.room.rooms.accepts(&room.room_id)
    }

    /// The position of the client, or zero if it knows nothing.
    fn since_pos(&self) -> Position {
        self.since.map_or(Position::BEFORE_ALL, |token| token.position)
    }

    fn since_ephemeral(&self) -> u64 {
        self.since.map_or(0, |token| token.ephemeral)
    }

    fn is_initial(&self) -> bool {
        self.since.is_none()
    }

    /// The part of the client's token that is about single rooms; `None` for a client that knows nothing.
    fn hints(&self) -> Option<&Hints> {
        self.since.is_some().then_some(&self.request.hints)
    }

    /// Returns whether earlier answers left out this room, because it could not be read or did not fit.
    fn was_left_out(&self, room: RoomNid) -> bool {
        self.hints().is_some_and(|hints| hints.left_out.contains(&room))
    }

    /// The position up to which the client has the room. `None` if it has nothing of the room, or nothing to continue
    /// from.
    fn has_had(&self, sight: &Sight, room: RoomNid) -> Option<Position> {
        let since = self.since.filter(|_| !self.was_left_out(room))?.position;
        (sight.membership_at(since) == Some(Membership::Join)).then_some(since)
    }

    /// The start of the process that last answered the client, if it was another one. The client must be told that everything
    /// that only that start had in memory has ended.
    fn earlier_start(&self) -> Option<i64> {
        self.since.map(|since| since.start).filter(|start| *start != self.app.db.start())
    }
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
    let deadline = Instant::now() + request.timeout;
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
    let (mut stopping, mut superseded, mut place) = (false, false, None);
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
                Some(since) if over && !is_far_behind(&look, &since) => {
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
        let place = place.get_or_insert_with(|| app.parked_syncs.park(caller));
        let park = async {
            tokio::select! {
                // The most frequent end comes first, so that nothing else is asked then.
                biased;
                () = wake => false,
                () = tokio::time::sleep_until(deadline) => false,
                () = app.stopping.cancelled() => true,
                () = caller.revoked.cancelled() => true,
                () = place.superseded() => { superseded = true; true }
            }
        };
        stopping = park.instrument(debug_span!("sync.park")).await;
        if caller.revoked.is_cancelled() {
            return Err(SyncError::Revoked);
        }
        if let Some(since) = request.since.filter(|_| superseded) {
            return Ok(nothing(&since, &request.hints));
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
fn is_far_behind(look: &Look<'_>, since: &SyncToken) -> bool {
    look.upto.0 - since.position.0 > FAR_BEHIND
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

/// Builds the answer with everything new for the client, and returns whether there is any news. An answer that may be
/// large waits for its turn.
async fn answer(look: &Look<'_>, deadline: Instant) -> Result<(Bytes, bool), SyncError> {
    let mut size = Size::new(look, deadline);
    if size::is_foreseen(look) {
        size.may_be_large().await?;
    }
    let mut out = Vec::with_capacity(if look.is_initial() { 64 << 10 } else { 2 << 10 });
    let mut object = Object::begin(&mut out);
    let mut account_data = account::AccountDataNews::load(look).await?;
    if !size.allows(account_data.bytes()) {
        drop(account_data);
        size.may_be_large().await?;
        account_data = account::AccountDataNews::load(look).await?;
    }
    let mut has_news = look.is_initial() || look.request.full_state;
    has_news |= account_data.write_global(look, &mut object).await?;
    let visit = look.to_visit().instrument(debug_span!("sync.visit")).await?;
    let lists = devices::lists(look, &visit, &mut size).await?;
    has_news |= account::write_presence(look, &lists.met, &mut object).await?;
    let left_out = lists.left_out.clone();
    let rooms = membership::RoomNews::load(look, &account_data, visit, left_out).instrument(debug_span!("sync.rooms"));
    let mut rooms = rooms.await?;
    if rooms.has_whole_room() {
        size.may_be_large().await?;
    }
    account_data.complete(look, &rooms.newly_joined).await?;
    has_news |= rooms.write(look, &account_data, &mut size, &mut object).await?;
    has_news |= devices::write_lists(&lists, &mut object);
    let messages = devices::write_messages(look, &mut object).instrument(debug_span!("sync.to_device"));
    let (to_device, next_to_device) = messages.await?;
    has_news |= to_device;
    has_news |= devices::write_counts(look, &mut object).await?;
    object.token("next_batch", format_args!("{}{}", next_batch(look, next_to_device), rooms.hints));
    object.end();
    Ok((out.into(), has_news))
}

/// Builds an answer without news: the client's own token, and the counts of one-time keys, which clients check every
/// time.
///
/// Only a look moves a token. There was no look here, so a later position might skip news.
async fn empty(look: &Look<'_>, since: &SyncToken) -> Result<Bytes, Error> {
    let mut out = Vec::with_capacity(256);
    let mut object = Object::begin(&mut out);
    devices::write_counts(look, &mut object).await?;
    // The numbers are valid in this start of the server: `sync` has ensured that.
    let token = SyncToken { start: look.app.db.start(), term: look.term, ..*since };
    object.token("next_batch", format_args!("{token}{}", look.request.hints));
    object.end();
    Ok(out.into())
}

/// Builds the answer of a request that did not look: the client's token stays the same.
fn nothing(since: &SyncToken, hints: &Hints) -> Bytes {
    let mut out = Vec::with_capacity(64);
    let mut object = Object::begin(&mut out);
    object.token("next_batch", format_args!("{since}{hints}"));
    object.end();
    out.into()
}

fn next_batch(look: &Look<'_>, to_device: Option<Position>) -> SyncToken {
    let Look { app, upto, term, ephemeral, .. } = look;
    SyncToken { position: *upto, ephemeral: *ephemeral, start: app.db.start(), term: *term, to_device }
}

#[cfg(test)]
mod tests;

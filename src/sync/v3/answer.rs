//! The whole answer of one look, and the two answers without news.

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{Instrument as _, debug_span};

use super::{
    Look, SyncError, account, devices, membership,
    size::{self, Size},
};
use crate::{
    store::{Error, Position},
    sync::{
        json::Object,
        token::{Hints, SyncToken},
    },
};

/// Builds the answer with everything new for the client, and returns whether there is any news. An answer that may be
/// large waits for its turn.
pub(super) async fn answer(look: &Look<'_>, deadline: Instant) -> Result<(Bytes, bool), SyncError> {
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
pub(super) async fn empty(look: &Look<'_>, since: &SyncToken) -> Result<Bytes, Error> {
    let mut out = Vec::with_capacity(256);
    let mut object = Object::begin(&mut out);
    devices::write_counts(look, &mut object).await?;
    // The numbers are valid in this start of the server: [`sync`](super::sync()) has ensured that.
    let token = SyncToken { start: look.app.db.start(), term: look.term, ..*since };
    object.token("next_batch", format_args!("{token}{}", look.request.hints));
    object.end();
    Ok(out.into())
}

/// Builds the answer of a request that did not look: the client's token stays the same.
pub(super) fn nothing(since: &SyncToken, hints: &Hints) -> Bytes {
    let mut out = Vec::with_capacity(64);
    let mut object = Object::begin(&mut out);
    object.token("next_batch", format_args!("{since}{hints}"));
    object.end();
    out.into()
}

pub(super) fn next_batch(look: &Look<'_>, to_device: Option<Position>) -> SyncToken {
    let Look { app, upto, term, ephemeral, .. } = look;
    SyncToken { position: *upto, ephemeral: *ephemeral, start: app.db.start(), term: *term, to_device }
}

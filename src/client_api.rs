//! The client-server API. Folders and files are named as in `ruma::api::client`; a file serves one endpoint.
//!
//! A handler only translates: it takes a typed request, calls one service, and returns a typed answer.

mod account;
mod alias;
mod backup;
mod config;
mod context;
mod device;
mod directory;
mod discovery;
mod filter;
mod keys;
mod knock;
mod membership;
mod message;
mod presence;
mod profile;
mod push;
mod read_marker;
mod receipt;
mod redact;
mod relations;
mod room;
mod session;
mod state;
mod sync;
mod tag;
mod thirdparty;
mod to_device;
mod typing;
mod voip;

mod errors;
mod events;
mod large_state;
mod txn;
mod uiaa;
mod with;

use crate::endpoint::Routes;

/// All endpoints of the client-server API.
pub fn routes() -> Routes {
    Routes::default()
        .merge(account::routes())
        .merge(backup::routes())
        .merge(alias::routes())
        .merge(config::routes())
        .merge(context::routes())
        .merge(device::routes())
        .merge(directory::routes())
        .merge(discovery::routes())
        .merge(filter::routes())
        .merge(keys::routes())
        .merge(knock::routes())
        .merge(membership::routes())
        .merge(message::routes())
        .merge(presence::routes())
        .merge(profile::routes())
        .merge(push::routes())
        .merge(read_marker::routes())
        .merge(receipt::routes())
        .merge(sync::routes())
        .merge(session::routes())
        .merge(redact::routes())
        .merge(relations::routes())
        .merge(room::routes())
        .merge(state::routes())
        .merge(tag::routes())
        .merge(thirdparty::routes())
        .merge(to_device::routes())
        .merge(typing::routes())
        .merge(voip::routes())
}

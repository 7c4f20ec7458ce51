//! Push rules and pushers: [`ruma::api::client::push`].

mod delete_pushrule;
mod get_pushers;
mod get_pushrule;
mod get_pushrule_actions;
mod get_pushrule_enabled;
mod get_pushrules_all;
mod get_pushrules_global_scope;
mod set_pushrule;
mod set_pushrule_actions;
mod set_pushrule_enabled;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, delete_pushrule::handle)
        .serve(Action::Other, get_pushers::handle)
        .serve(Action::Other, get_pushrule::handle)
        .serve(Action::Other, get_pushrule_actions::handle)
        .serve(Action::Other, get_pushrule_enabled::handle)
        .serve(Action::Other, get_pushrules_all::handle)
        .serve(Action::Other, get_pushrules_global_scope::handle)
        .serve(Action::Other, set_pushrule::handle)
        .serve(Action::Other, set_pushrule_actions::handle)
        .serve(Action::Other, set_pushrule_enabled::handle)
}

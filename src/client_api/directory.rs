//! The public directory: [`ruma::api::client::directory`].

mod get_public_rooms;
mod get_public_rooms_filtered;
mod get_room_visibility;
mod set_room_visibility;

use crate::{
    endpoint::{Routes, WaitsFor},
    limits::rate_limits::Action,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_public_rooms::handle)
        .serve_waiting(WaitsFor::Server, Action::Other, get_public_rooms_filtered::handle)
        .serve(Action::Other, get_room_visibility::handle)
        .serve(Action::Other, set_room_visibility::handle)
}

//! Tags of rooms: [`ruma::api::client::tag`].

mod create_tag;
mod delete_tag;
mod get_tags;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, create_tag::handle)
        .serve(Action::Other, delete_tag::handle)
        .serve(Action::Other, get_tags::handle)
}

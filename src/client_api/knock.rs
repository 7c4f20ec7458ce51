//! Knocking: [`ruma::api::client::knock`].

mod knock_room;

use crate::http::{Action, Routes};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Join, knock_room::handle)
}

//! Typing notifications: [`ruma::api::client::typing`].

mod create_typing_event;

use crate::http::{Action, Routes};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Send, create_typing_event::handle)
}

//! Other networks: [`ruma::api::client::thirdparty`].

mod get_protocols;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Other, get_protocols::handle)
}

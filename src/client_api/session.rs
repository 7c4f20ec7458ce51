//! Sessions: [`ruma::api::client::session`].

mod appservice_login;
mod get_login_token;
mod get_login_types;
mod login;
mod logout;
mod logout_all;
mod refresh_token;

use crate::{
    endpoint::{Routes, WaitsFor},
    limits::rate_limits::Action,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_login_types::handle)
        .serve_waiting(WaitsFor::Password, Action::Login, login::handle)
        .serve_waiting(WaitsFor::Password, Action::Other, get_login_token::handle)
        .serve(Action::Other, logout::handle)
        .serve(Action::Other, logout_all::handle)
        .serve(Action::Other, refresh_token::handle)
}

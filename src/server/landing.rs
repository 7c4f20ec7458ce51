//! The page at `/`: tells a visitor with a browser that the address is right, and how to use it.

use std::net::SocketAddr;

use axum::{
    Router,
    http::{
        Method,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::app::App;

const PAGE: &str = include_str!("pages/landing.html");
/// The style of all our pages.
const STYLE: &str = include_str!("pages/style.css");

const PATH: &str = "/";

pub(super) const ROUTES: [(Method, &str); 1] = [(Method::GET, PATH)];

/// `GET /`.
pub(super) fn router(app: &App, client_address: Option<SocketAddr>) -> Router {
    let page = Page::new(PAGE, "", app.config.server_name.as_str(), &app.config.client_base_url(client_address));
    Router::new().route(PATH, get(async move || page.into_response()))
}

/// A page without external assets. Its policy names its style and script by their hashes, so that nothing else can run
/// on it, not even text that a bug of ours would let an attacker inject.
#[derive(Clone)]
pub(super) struct Page {
    html: String,
    policy: String,
}

impl Page {
    /// Fills in the page. Names and addresses come from the configuration, but are escaped anyway.
    pub(super) fn new(template: &str, script: &str, server_name: &str, base_url: &str) -> Self {
        let html = template
            .replace("{{style}}", STYLE)
            .replace("{{script}}", script)
            .replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{server_name}}", &escape(server_name))
            .replace("{{base_url}}", &escape(base_url));
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; form-action 'none'; \
             base-uri 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(script),
        );
        Self { html, policy }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let headers: [(HeaderName, String); 5] = [
            (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
            (CONTENT_SECURITY_POLICY, self.policy),
            (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            (REFERRER_POLICY, "no-referrer".to_owned()),
            (CACHE_CONTROL, "no-store".to_owned()),
        ];
        (headers, self.html).into_response()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_text() {
        let page = Page::new("<b title=\"{{server_name}}\">", "", "\"><script>", "");
        assert_eq!(page.html, "<b title=\"&quot;&gt;&lt;script&gt;\">");
    }

    #[test]
    fn pages_name_nothing_outside() {
        let setup = [include_str!("pages/setup.html"), include_str!("pages/setup.js")];
        let stage = [include_str!("pages/stage.html"), include_str!("pages/stage.js")];
        for text in [PAGE, STYLE].into_iter().chain(setup).chain(stage) {
            for outside in ["src=", "@import", "url(", "<link"] {
                assert!(!text.contains(outside), "{outside} in {text}");
            }
        }
    }
}

//! Checks that need more than one key, or the machine. They are the last ones before we listen.

use std::path::Path;

use ruma::RoomVersionId;

use super::authorities;
use super::listeners::{Listener, Resource, Tls};
use super::problem::Problem;
use super::{Config, RegistrationMode};
use crate::appservice::Appservices;

/// Minimum length of a secret in bytes. A patient attacker can guess a shorter one.
const SHORT_SECRET: usize = 16;

impl Config {
    /// Checks what no single value can show.
    ///
    /// # Errors
    /// Every problem found. [`super::load`] fills in their origins.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let name = self.server_name.as_str();
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            // Names are compared byte by byte, but other servers know only the name in DNS.
            let remedy = format!("write \"{}\"", name.to_ascii_lowercase());
            problems.push(Problem::new("server_name", format!("has upper-case letters: `{name}`"), remedy));
        }
        self.check_listeners(&mut problems);
        self.check_addresses_for_others(&mut problems);
        self.check_shared_secret(&mut problems);
        if let Err(error) = Appservices::load(&self.appservices.files, &self.server_name) {
            let wrong = format!("names a file that cannot be used: {}: {}", error.path.display(), error.cause);
            problems.push(Problem::new("appservices.files", wrong, "correct it, or take it from the list"));
        }
        if !is_supported(&self.rooms.default_version) {
            let wrong = format!("is not supported: `{}`", self.rooms.default_version);
            problems.push(Problem::new("rooms.default_version", wrong, "write a version from \"6\" to \"12\""));
        }
        if let Err(error) = self.log.filter.parse::<tracing_subscriber::filter::Targets>() {
            let remedy = "write a level such as \"info\", or levels by module such as \"info,sabha::sync=debug\"";
            problems.push(Problem::new("log.filter", format!("is wrong: {error}"), remedy));
        }
        self.check_authorities(&mut problems);
        self.check_notaries(&mut problems);
        if self.data_dir.as_os_str().is_empty() {
            problems.push(Problem::new("data_dir", "is empty", "write the path of a directory"));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Warnings about allowed values, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.registration.mode == RegistrationMode::Open {
            warnings.push(
                "registration.mode is \"open\": everyone who can reach this server may create accounts".to_owned(),
            );
        }
        if self.shared_secret().is_ok_and(|secret| secret.is_some_and(|secret| secret.expose().len() < SHORT_SECRET)) {
            warnings.push(format!(
                "registration.shared_secret is shorter than {SHORT_SECRET} characters: whoever guesses it makes admins"
            ));
        }
        if !self.rate_limits.enabled {
            warnings.push(
                "rate_limits.enabled is false: anyone may try passwords as fast as this machine allows".to_owned(),
            );
        }
        if self.federation.enabled && self.is_local() {
            warnings.push("federation.enabled is true, but no other server can reach the name localhost".to_owned());
        }
        if self.federation.enabled && !self.listeners.iter().any(|listener| listener.serves(Resource::Federation)) {
            warnings.push("federation.enabled is true, but no listener serves \"federation\"".to_owned());
        }
        if let Some(address) = self.metrics_address().filter(|address| !address.ip().is_loopback()) {
            warnings.push(format!(
                "metrics.address is {address}: everyone who can reach it may read how busy this server is"
            ));
        }
        warnings
    }

    fn check_listeners(&self, problems: &mut Vec<Problem>) {
        if self.listeners.is_empty() {
            problems.push(Problem::new(
                "listeners",
                "is empty",
                "write at least one [[listeners]], or none for 127.0.0.1:8008",
            ));
        }
        for (n, listener) in self.listeners.iter().enumerate() {
            let key = format!("listeners[{n}]");
            match (listener.address, &listener.unix) {
                (None, None) => problems.push(Problem::new(&key, "listens nowhere", "write `address` or `unix`")),
                (Some(_), Some(_)) => {
                    problems.push(Problem::new(&key, "has both `address` and `unix`", "write two [[listeners]]"));
                }
                _ => {}
            }
            if listener.resources.is_empty() {
                let remedy = "leave it out for everything, or write some of \"client\", \"federation\", \"well_known\"";
                problems.push(Problem::new(format!("{key}.resources"), "is empty", remedy));
            }
            if let Some(tls) = &listener.tls {
                check_tls(tls, &key, problems);
            }
            if self.listeners[..n].iter().any(|earlier| same_place(earlier, listener)) {
                problems.push(Problem::new(&key, "is at the same place as an earlier one", "remove one of them"));
            }
        }
        let metrics = self.metrics_address().filter(|address| address.port() != 0);
        if metrics.is_some() && self.listeners.iter().any(|listener| listener.address == metrics) {
            problems.push(Problem::new("metrics.address", "is also a listener's", "write another port"));
        }
    }

    fn check_shared_secret(&self, problems: &mut Vec<Problem>) {
        let key = "registration.shared_secret_file";
        let Some(path) = &self.registration.shared_secret_file else { return };
        if self.registration.shared_secret.is_some() {
            problems.push(Problem::new(key, "is set, and `shared_secret` too", "remove one of them"));
        } else if let Err(error) = self.shared_secret() {
            let wrong = format!("cannot be used: {}: {error}", path.display());
            problems.push(Problem::new(key, wrong, "write the path of a file that holds the secret"));
        }
    }

    fn check_authorities(&self, problems: &mut Vec<Problem>) {
        for (n, path) in self.federation.ca_files.iter().enumerate() {
            if let Err(error) = authorities::add(path, &mut rustls::RootCertStore::empty()) {
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                let remedy = "write the path of a PEM file with certificates of authorities";
                problems.push(Problem::new(
                    format!("federation.ca_files[{n}]"),
                    format!("is wrong: {error}{cause}"),
                    remedy,
                ));
            }
        }
    }

    fn check_notaries(&self, problems: &mut Vec<Problem>) {
        /// Others' requests wait while notaries are asked, one after the other.
        const MOST: usize = 4;
        let notaries = self.federation.trusted_notaries.len();
        if notaries > MOST {
            let wrong = format!("has {notaries} servers, and {MOST} are the most");
            problems.push(Problem::new("federation.trusted_notaries", wrong, "keep those that know most servers"));
        }
    }

    fn check_addresses_for_others(&self, problems: &mut Vec<Problem>) {
        if let Some(base_url) = &self.client.base_url
            && !is_base_url(base_url)
        {
            let remedy = "write the address that clients use, such as \"https://matrix.example.com\"";
            problems.push(Problem::new("client.base_url", format!("is not a web address: `{base_url}`"), remedy));
        }
        if let Some(server) = &self.federation.well_known_server
            && <&ruma::ServerName>::try_from(server.as_str()).is_err()
        {
            let remedy = "write a host with a port, such as \"matrix.example.com:443\"";
            problems.push(Problem::new(
                "federation.well_known_server",
                format!("is not HOST:PORT: `{server}`"),
                remedy,
            ));
        }
    }
}

fn check_tls(tls: &Tls, key: &str, problems: &mut Vec<Problem>) {
    for (name, path) in [("certificate", &tls.certificate), ("key", &tls.key)] {
        let key = format!("{key}.tls.{name}");
        if path.as_os_str().is_empty() {
            problems.push(Problem::new(key, "is missing", "write the path of a PEM file"));
        } else if let Err(error) = readable(path) {
            problems.push(Problem::new(
                key,
                format!("cannot be read: {}: {error}", path.display()),
                "write the path of a PEM file",
            ));
        }
    }
}

fn readable(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path).map(drop)
}

/// Returns whether both listen at the same place. Port 0 is another free port each time.
fn same_place(left: &Listener, right: &Listener) -> bool {
    let free_port = right.address.is_some_and(|address| address.port() == 0);
    !free_port && right.place().is_some() && (left.address, &left.unix) == (right.address, &right.unix)
}

fn is_supported(version: &RoomVersionId) -> bool {
    use RoomVersionId as V;
    [V::V6, V::V7, V::V8, V::V9, V::V10, V::V11, V::V12].contains(version)
}

/// Returns whether the text is `http(s)://HOST[:PORT]`, with an optional path, and without query and login.
fn is_base_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

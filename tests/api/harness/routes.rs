//! The list of the specification's endpoints that the server serves, kept as a text file in git.
//!
//! `tests/spec/routes.txt` lists every stable endpoint by module, so that a route that is added, lost or misspelled
//! shows in review. The endpoints come from `tests/spec/endpoints.tsv`, see `derive.py`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use http::Method;

const ENDPOINTS: &str = include_str!("../../spec/endpoints.tsv");
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/routes.txt");
const REMAKE: &str = "UPDATE_ROUTES";

/// One line of `endpoints.tsv`.
struct Endpoint {
    api: &'static str,
    module: &'static str,
    path: &'static str,
    method: &'static str,
    deprecated: bool,
    auth: &'static str,
}

/// A method and a path without the names of its parameters.
type Route = (String, String);

/// Compares the routes with the committed table, or writes it when `UPDATE_ROUTES=1` is set.
///
/// Paths have axum's form: `/_matrix/client/v3/rooms/{room_id}/members`. Every prefix is a path of its own, so that an
/// `r0` alias does not count as the `v3` endpoint.
///
/// # Panics
/// With the differing lines, when the two differ.
#[track_caller]
pub fn assert_as_committed(served: &[(Method, String)]) {
    let table = table(served);
    if std::env::var(REMAKE).is_ok_and(|value| value == "1") {
        fs::write(SNAPSHOT, &table).expect("tests/spec belongs to this package");
        return;
    }
    let committed = fs::read_to_string(SNAPSHOT).unwrap_or_default();
    if let Some(difference) = difference(&committed, &table) {
        panic!(
            "the routes served are not those in tests/spec/routes.txt:\n{difference}\
             If that is meant, run the test again with {REMAKE}=1 and commit the file."
        );
    }
}

/// Returns the table: every endpoint of the specification, whether it is served, and the other served routes.
pub fn table(served: &[(Method, String)]) -> String {
    let mut besides: BTreeMap<Route, &str> =
        served.iter().map(|(method, path)| (route(method.as_str(), path), path.as_str())).collect();
    let endpoints = endpoints();
    let known: BTreeSet<Route> = endpoints.iter().map(Endpoint::route).collect();
    let is_served: BTreeSet<Route> = besides.keys().filter(|route| known.contains(*route)).cloned().collect();
    besides.retain(|route, _| !known.contains(route));

    let mut text = String::from(
        "Every endpoint of the Matrix specification v1.19 that a homeserver has, and whether this one serves it.\n\
         Made by a test; remake it with UPDATE_ROUTES=1.\n",
    );
    let by_module = |endpoint: &Endpoint| (endpoint.api, endpoint.module);
    for api in endpoints.chunk_by(|a, b| a.api == b.api) {
        text.push_str(&format!("\n# {}: {}\n", api[0].api, count(api, &is_served)));
        for module in api.chunk_by(|a, b| by_module(a) == by_module(b)) {
            text.push_str(&format!("\n## {}: {}\n", module[0].module, count(module, &is_served)));
            for endpoint in module {
                let mark = if is_served.contains(&endpoint.route()) { "yes" } else { "no" };
                let deprecated = if endpoint.deprecated { ", deprecated" } else { "" };
                let Endpoint { method, path, auth, .. } = endpoint;
                line(&mut text, &format!("{mark:<3}  {method:<6} {path}  ({auth}{deprecated})"));
            }
        }
    }
    text.push_str(&format!("\n# Served besides: {}\n\n", besides.len()));
    for ((method, _), path) in besides {
        line(&mut text, &format!("{method:<6} {path}"));
    }
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes everything");
}

fn count(endpoints: &[Endpoint], is_served: &BTreeSet<Route>) -> String {
    let served = endpoints.iter().filter(|endpoint| is_served.contains(&endpoint.route())).count();
    format!("{served} of {}", endpoints.len())
}

/// Lists all endpoints, in the order of the file: by API, module and path.
fn endpoints() -> Vec<Endpoint> {
    let parse = |line: &'static str| {
        let fields: Vec<_> = line.split('\t').collect();
        let [api, module, path, method, status, auth] = fields[..] else {
            panic!("a line of endpoints.tsv has six fields: {line}")
        };
        Endpoint { api, module, path, method, deprecated: status == "deprecated", auth }
    };
    ENDPOINTS.lines().skip(1).map(parse).collect()
}

impl Endpoint {
    fn route(&self) -> Route {
        route(self.method, self.path)
    }
}

/// Returns a route in which `{roomId}` and `{room_id}` are the same parameter, like axum's `{*rest}`.
fn route(method: &str, path: &str) -> Route {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    (method.to_owned(), segments.collect::<Vec<_>>().join("/"))
}

/// Returns the lines that only one of the two has, or `None` when they are the same text.
fn difference(committed: &str, made: &str) -> Option<String> {
    if committed == made {
        return None;
    }
    let lines = |text: &str| text.lines().map(String::from).collect::<BTreeSet<_>>();
    let (old, new) = (lines(committed), lines(made));
    let mut text = String::new();
    old.difference(&new).for_each(|gone| line(&mut text, &format!("- {gone}")));
    new.difference(&old).for_each(|come| line(&mut text, &format!("+ {come}")));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(served: &[(Method, &str)]) -> Vec<String> {
        let served: Vec<_> = served.iter().map(|(method, path)| (method.clone(), (*path).to_owned())).collect();
        table(&served).lines().map(String::from).collect()
    }

    fn has(lines: &[String], line: &str) -> bool {
        lines.iter().any(|there| there == line)
    }

    #[test]
    fn a_route_is_served_whatever_its_parameters_are_called() {
        let lines = lines(&[(Method::GET, "/_matrix/client/v3/rooms/{room_id}/members")]);
        assert!(has(&lines, "yes  GET    /_matrix/client/v3/rooms/{roomId}/members  (access token)"));
        assert!(has(&lines, "no   GET    /_matrix/client/v3/rooms/{roomId}/joined_members  (access token)"));
        assert!(has(&lines, "# Served besides: 0"));
    }

    #[test]
    fn another_method_prefix_or_path_is_another_route() {
        let lines = lines(&[
            (Method::POST, "/_matrix/client/v3/rooms/{roomId}/members"),
            (Method::GET, "/_matrix/client/r0/rooms/{roomId}/members"),
            (Method::GET, "/health"),
        ]);
        assert!(has(&lines, "no   GET    /_matrix/client/v3/rooms/{roomId}/members  (access token)"));
        assert!(has(&lines, "# Served besides: 3"));
        assert!(has(&lines, "GET    /_matrix/client/r0/rooms/{roomId}/members"));
        assert!(has(&lines, "GET    /health"));
    }

    #[test]
    fn counts_are_per_api_and_per_module() {
        let route = (Method::GET, "/_matrix/key/v2/server");
        let lines = lines(&[route.clone(), route]);
        assert!(has(&lines, "# server-server: 1 of 36"));
        assert!(has(&lines, "## Server keys: 1 of 3"));
        assert!(has(&lines, "## Transactions: 0 of 1"));
    }

    #[test]
    fn a_difference_shows_both_sides() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n").as_deref(), Some("- b\n+ c\n"));
    }

    #[test]
    fn the_committed_table_has_every_endpoint() {
        let committed = include_str!("../../spec/routes.txt");
        for Endpoint { method, path, .. } in endpoints() {
            let found = committed.lines().any(|line| line.contains(&format!(" {method:<6} {path}  (")));
            assert!(found, "{method} {path} is missing; remake the table with {REMAKE}=1");
        }
    }
}

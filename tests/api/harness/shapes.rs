//! The shapes of response bodies, as the specification's OpenAPI gives them.
//!
//! `tests/spec/derive.py` writes `client-server.json` and `server-server.json`; here shapes are looked up by request
//! and status, and bodies are checked against them. The rules of one schema are in [`schema`]; [`mistakes`] lists where
//! the OpenAPI itself is wrong.
//!
//! Promise: a body passes only if the specification allows it for that request and that status. Extra fields pass,
//! since a server may add its own; media types and headers are not checked.

mod mistakes;
mod schema;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use http::{Method, StatusCode};
use serde_json::Value;

pub use self::schema::Violation;

const CLIENT_SERVER: &str = include_str!("../../spec/client-server.json");
const SERVER_SERVER: &str = include_str!("../../spec/server-server.json");

/// Appendices to the client-server API, "Standard error response", with the fields that some of its
/// codes add. <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>
const STANDARD_ERROR: &str = r#"{
    "type": "object",
    "required": ["errcode"],
    "properties": {
        "errcode": { "type": "string", "format": "errcode" },
        "error": { "type": "string" },
        "retry_after_ms": { "type": "integer" },
        "soft_logout": { "type": "boolean" }
    }
}"#;

/// The answer that asks for more authentication, also after a failed stage.
/// <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api>
const USER_INTERACTIVE: &str = r#"{
    "type": "object",
    "required": ["flows"],
    "properties": {
        "flows": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["stages"],
                "properties": { "stages": { "type": "array", "items": { "type": "string" } } }
            }
        },
        "params": { "type": "object", "additionalProperties": { "type": "object" } },
        "session": { "type": "string" },
        "completed": { "type": "array", "items": { "type": "string" } },
        "errcode": { "type": "string", "format": "errcode" },
        "error": { "type": "string" }
    }
}"#;

/// Every shape of the client-server and the server-server API.
pub struct Shapes {
    endpoints: Vec<Endpoint>,
    standard_error: Value,
    user_interactive: Value,
}

struct Endpoint {
    /// The endpoint as in the specification: `GET /_matrix/client/v3/rooms/{roomId}/members`.
    name: String,
    method: Method,
    segments: Vec<String>,
    /// Shapes by status. `null` where the specification describes no body.
    responses: BTreeMap<u16, Value>,
}

impl Shapes {
    /// Returns the shapes, parsed once for the whole test run.
    pub fn load() -> &'static Self {
        static SHAPES: OnceLock<Shapes> = OnceLock::new();
        SHAPES.get_or_init(|| {
            let parse = |text| serde_json::from_str(text).expect("the schema above is JSON");
            Self {
                endpoints: [CLIENT_SERVER, SERVER_SERVER].into_iter().flat_map(endpoints).collect(),
                standard_error: parse(STANDARD_ERROR),
                user_interactive: parse(USER_INTERACTIVE),
            }
        })
    }

    /// Returns whether the answer with this status has a JSON body. Errors always have one.
    pub fn expects_json(&self, method: &Method, path: &str, status: StatusCode) -> bool {
        if status.is_redirection() || method == Method::OPTIONS || method == Method::HEAD {
            return false;
        }
        let listed = self.find(method, path).and_then(|endpoint| endpoint.responses.get(&status.as_u16()));
        status.is_client_error() || status.is_server_error() || !listed.is_some_and(is_media)
    }

    /// Checks `body` against the specification of this request's answer.
    ///
    /// `path` is the path of a request (a query string is ignored) or a template of the specification. Answers without
    /// a JSON body cannot be checked here, see [`Self::expects_json`].
    ///
    /// # Errors
    /// Everything in the body that the specification does not allow, or a single violation at the root when the path is
    /// unknown or no such success is listed for it.
    pub fn check(&self, method: &Method, path: &str, status: StatusCode, body: &Value) -> Result<(), Vec<Violation>> {
        let path = path.split('?').next().unwrap_or(path);
        let endpoint = self.find(method, path);
        let mut violations = if status.is_client_error() || status.is_server_error() {
            self.check_error(endpoint, status, body)
        } else {
            check_success(endpoint, path, status, body)
        };
        if let Some(endpoint) = endpoint {
            violations.retain(|violation| !mistakes::excuses(&endpoint.name, status, &violation.pointer));
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// Checks an error. Any endpoint may answer with any standard error, so a shape that the specification lists for
    /// this endpoint and status only adds to the standard shape.
    fn check_error(&self, endpoint: Option<&Endpoint>, status: StatusCode, body: &Value) -> Vec<Violation> {
        if status == StatusCode::UNAUTHORIZED && body.get("flows").is_some() {
            return schema::check(&self.user_interactive, body);
        }
        let mut violations = schema::check(&self.standard_error, body);
        let listed = endpoint.and_then(|endpoint| endpoint.responses.get(&status.as_u16()));
        match listed {
            // The shape listed for 401 is the user-interactive one, which this answer does not have.
            Some(shape) if status != StatusCode::UNAUTHORIZED && !shape.is_null() && !is_media(shape) => {
                for violation in schema::check(shape, body) {
                    if !violations.contains(&violation) {
                        violations.push(violation);
                    }
                }
            }
            _ => {}
        }
        violations
    }

    /// Finds the endpoint that serves this path: if several templates fit, the most literal one.
    fn find(&self, method: &Method, path: &str) -> Option<&Endpoint> {
        let path = path.split('?').next().unwrap_or(path);
        // The revisions before v1.1 had the same endpoints under `r0`, and media also under `v1`.
        let renamed = ["/_matrix/client/r0/", "/_matrix/media/r0/", "/_matrix/media/v1/"]
            .into_iter()
            .find_map(|old| Some((old, path.strip_prefix(old)?)))
            .map(|(old, rest)| format!("{}v3/{rest}", &old[..old.len() - "r0/".len()]));
        [Some(path), renamed.as_deref()].into_iter().flatten().find_map(|path| {
            let segments = split(path);
            let fitting = self
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.method == method && fits(&endpoint.segments, &segments));
            fitting.max_by_key(|endpoint| endpoint.literals())
        })
    }
}

impl Endpoint {
    /// Marks the literal segments, from the left: the larger, the more literal.
    fn literals(&self) -> Vec<bool> {
        self.segments.iter().map(|segment| !is_parameter(segment)).collect()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn check_success(endpoint: Option<&Endpoint>, path: &str, status: StatusCode, body: &Value) -> Vec<Violation> {
    let Some(endpoint) = endpoint else {
        // The specification describes neither unstable endpoints nor those outside of Matrix.
        let outside = path.contains("/unstable/") || !(path.starts_with("/_matrix/") || is_well_known(path));
        return if outside { vec![] } else { vec![Violation::at_root("an endpoint of the specification", path)] };
    };
    match endpoint.responses.get(&status.as_u16()) {
        Some(shape) if is_media(shape) => {
            vec![Violation::at_root("a body that is not JSON", &schema::short(body))]
        }
        Some(Value::Null) => vec![],
        Some(shape) => schema::check(shape, body),
        None => {
            let listed: Vec<_> = endpoint.responses.keys().map(u16::to_string).collect();
            vec![Violation::at_root(&format!("a status in {}", listed.join(", ")), status.as_str())]
        }
    }
}

fn endpoints(text: &str) -> Vec<Endpoint> {
    let mut document: Value = serde_json::from_str(text).expect("derive.py writes JSON");
    let endpoints: BTreeMap<String, BTreeMap<u16, Value>> =
        serde_json::from_value(document["endpoints"].take()).expect("derive.py writes shapes by endpoint and status");
    let endpoint = |(name, responses): (String, _)| {
        let (method, path) = name.split_once(' ').expect("derive.py names endpoints by method and path");
        let method = method.parse().expect("the OpenAPI has only HTTP methods");
        Endpoint { method, segments: split(path).into_iter().map(String::from).collect(), responses, name }
    };
    endpoints.into_iter().map(endpoint).collect()
}

/// Splits a path into segments; a slash at its end adds none.
fn split(path: &str) -> Vec<&str> {
    path.strip_suffix('/').unwrap_or(path).split('/').collect()
}

/// Returns whether a template matches a path. Only a state key may be empty, and then its slash may be missing.
fn fits(template: &[String], path: &[&str]) -> bool {
    let template = match template {
        [front @ .., last] if last == "{stateKey}" && path.len() == front.len() => front,
        _ => template,
    };
    template.len() == path.len()
        && template
            .iter()
            .zip(path)
            .all(|(segment, given)| segment == given || (is_parameter(segment) && !given.is_empty()))
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

fn is_media(shape: &Value) -> bool {
    shape.get("media").is_some()
}

fn is_well_known(path: &str) -> bool {
    path.starts_with("/.well-known/matrix/")
}

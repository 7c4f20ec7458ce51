//! Checks one JSON value against one shape.
//!
//! The keywords are those that `tests/spec/derive.py` writes; both refuse any other. Two differ from JSON Schema on
//! purpose. `oneOf` is read as `anyOf`, because the specification's alternatives overlap (a whole event is also "any
//! object"). A map with `keys` allows no other keys, because the specification names them to say what the map is keyed
//! by.

use std::fmt;

use serde_json::{Map, Value};

/// One thing in a body that the specification does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The place, as a JSON pointer. A missing field is named as if it were there.
    pub pointer: String,
    pub expected: String,
    /// The value found instead, shortened.
    pub found: String,
}

impl Violation {
    pub(super) fn at_root(expected: &str, found: &str) -> Self {
        Self { pointer: String::new(), expected: expected.to_owned(), found: found.to_owned() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pointer = if self.pointer.is_empty() { "the body" } else { &self.pointer };
        write!(f, "{pointer}: expected {}, found {}", self.expected, self.found)
    }
}

/// Returns everything in `value` that `shape` does not allow.
pub(super) fn check(shape: &Value, value: &Value) -> Vec<Violation> {
    let mut checker = Checker { pointer: String::new(), violations: vec![] };
    checker.value(shape, value);
    checker.violations
}

/// Formats `value` as JSON, cut if it is long.
pub(super) fn short(value: &Value) -> String {
    const LIMIT: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

struct Checker {
    pointer: String,
    violations: Vec<Violation>,
}

impl Checker {
    fn value(&mut self, shape: &Value, value: &Value) {
        let shape = match shape {
            Value::Bool(true) => return,
            Value::Bool(false) => return self.violation("nothing".to_owned(), value),
            Value::Object(shape) => shape,
            other => panic!("not a shape: {other}"),
        };
        let types = shape.get("type").map(names).unwrap_or_default();
        if !types.is_empty() && !types.iter().any(|name| is_a(name, value)) {
            return self.violation(types.join(" or "), value);
        }
        for (keyword, argument) in shape {
            match (keyword.as_str(), value) {
                ("allOf", _) => list(argument).iter().for_each(|shape| self.value(shape, value)),
                ("anyOf" | "oneOf", _) => self.any_of(list(argument), value),
                ("enum", _) if !list(argument).contains(value) => {
                    self.violation(format!("one of {argument}"), value);
                }
                ("const", _) if argument != value => self.violation(argument.to_string(), value),
                ("prefix", Value::String(text)) => {
                    let prefixes = names(argument);
                    if !prefixes.iter().any(|prefix| text.starts_with(prefix)) {
                        self.violation(format!("a string that starts with {}", prefixes.join(" or ")), value);
                    }
                }
                ("format", Value::String(text)) => {
                    let format = argument.as_str().expect("derive.py writes formats as strings");
                    if !has_format(format, text) {
                        self.violation(format!("a string of the format {format}"), value);
                    }
                }
                ("items", Value::Array(items)) => {
                    for (index, item) in items.iter().enumerate() {
                        self.inside(&index.to_string(), |checker| checker.value(argument, item));
                    }
                }
                ("minItems" | "maxItems", Value::Array(items)) => self.size(keyword, argument, items.len(), value),
                ("minProperties" | "maxProperties", Value::Object(fields)) => {
                    self.size(keyword, argument, fields.len(), value);
                }
                ("required", Value::Object(fields)) => {
                    for name in names(argument).into_iter().filter(|name| !fields.contains_key(*name)) {
                        let expected = format!("the field {name}");
                        self.inside(name, |checker| checker.push(expected, "no such field".to_owned()));
                    }
                }
                (
                    "type"
                    | "enum"
                    | "const"
                    | "prefix"
                    | "format"
                    | "items"
                    | "minItems"
                    | "maxItems"
                    | "minProperties"
                    | "maxProperties"
                    | "required"
                    | "properties"
                    | "keys"
                    | "additionalProperties",
                    _,
                ) => {}
                (unknown, _) => panic!("unknown keyword {unknown} in a shape"),
            }
        }
        if let Value::Object(fields) = value {
            self.fields(shape, fields);
        }
    }

    fn fields(&mut self, shape: &Map<String, Value>, fields: &Map<String, Value>) {
        let declared = shape.get("properties").and_then(Value::as_object);
        let keys = shape.get("keys").and_then(Value::as_object);
        let others = shape.get("additionalProperties");
        for (name, value) in fields {
            let by_name = declared.and_then(|declared| declared.get(name));
            let by_key = keys.and_then(|keys| keys.iter().find(|(prefix, _)| name.starts_with(*prefix)));
            self.inside(name, |checker| match (by_name, by_key, others, keys) {
                (Some(shape), ..) | (None, Some((_, shape)), ..) | (None, None, Some(shape), _) => {
                    checker.value(shape, value);
                }
                (None, None, None, Some(keys)) if declared.is_none() => {
                    let prefixes: Vec<_> = keys.keys().map(String::as_str).collect();
                    let expected = format!("a key that starts with {}", prefixes.join(" or "));
                    checker.push(expected, format!("{name:?}"));
                }
                (None, None, None, _) => {}
            });
        }
    }

    /// Checks alternatives. When none fits, reports only the violations of the nearest one.
    fn any_of(&mut self, alternatives: &[Value], value: &Value) {
        let mut nearest: Option<Vec<Violation>> = None;
        for shape in alternatives {
            let mut checker = Self { pointer: self.pointer.clone(), violations: vec![] };
            checker.value(shape, value);
            if checker.violations.is_empty() {
                return;
            }
            // A violation at this very place means the wrong type, so an alternative with a deeper violation is nearer.
            let distance =
                |found: &[Violation]| (found.iter().any(|violation| violation.pointer == self.pointer), found.len());
            if nearest.as_ref().is_none_or(|best| distance(&checker.violations) < distance(best)) {
                nearest = Some(checker.violations);
            }
        }
        self.violations.extend(nearest.unwrap_or_default());
    }

    fn size(&mut self, keyword: &str, limit: &Value, size: usize, value: &Value) {
        let limit = limit.as_u64().expect("derive.py writes sizes as numbers");
        let fits = if keyword.starts_with("min") { size as u64 >= limit } else { size as u64 <= limit };
        if !fits {
            self.violation(format!("{keyword} {limit}"), value);
        }
    }

    fn inside(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        let outside = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        check(self);
        self.pointer.truncate(outside);
    }

    fn violation(&mut self, expected: String, found: &Value) {
        self.push(expected, short(found));
    }

    fn push(&mut self, expected: String, found: String) {
        self.violations.push(Violation { pointer: self.pointer.clone(), expected, found });
    }
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        // Canonical JSON has only these integers, and `1.0` is not one of them.
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other} in a shape"),
    }
}

/// Returns whether a string looks like the named format. Ruma checks the rest of the grammar.
fn has_format(format: &str, text: &str) -> bool {
    let sigil =
        |sigil: char, rest: &str| text.strip_prefix(sigil).is_some_and(|id| !id.is_empty() && id.contains(rest));
    match format {
        "uri" => text.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty() && !text.contains(' ')
        }),
        "email" => text.contains('@'),
        "mx-user-id" => sigil('@', ":"),
        "mx-room-alias" => sigil('#', ":"),
        // Event IDs name no server, nor do room IDs from room version 12 on.
        "mx-event-id" => sigil('$', ""),
        "mx-room-id" => sigil('!', ""),
        "mx-mxc-uri" => {
            let parts = text.strip_prefix("mxc://").and_then(|rest| rest.split_once('/'));
            parts.is_some_and(|(server, media_id)| !server.is_empty() && !media_id.is_empty())
        }
        "mx-server-name" => !text.is_empty() && !text.contains(['/', '@', ' ']),
        // `M_` is the specification's own namespace; other codes are named like Java packages.
        "errcode" => text.starts_with("M_") || text.contains('.'),
        other => panic!("unknown format {other} in a shape"),
    }
}

fn list(argument: &Value) -> &[Value] {
    argument.as_array().map(Vec::as_slice).unwrap_or_else(|| panic!("not a list: {argument}"))
}

/// Returns the names in a string or a list of strings.
fn names(argument: &Value) -> Vec<&str> {
    match argument {
        Value::String(name) => vec![name],
        _ => list(argument).iter().map(|name| name.as_str().unwrap_or_else(|| panic!("not a name: {name}"))).collect(),
    }
}

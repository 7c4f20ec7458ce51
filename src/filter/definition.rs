//! Filter definitions as clients write them: the fields that ruma reads, and those that it does not know.

use std::borrow::Cow;

use ruma::api::client::filter::FilterDefinition;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::room::read::relations::RelatedBy;

/// The definition of a filter of `/sync`.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    pub known: FilterDefinition,
    /// The relations by which other events must relate to the events of the timeline.
    pub timeline: RelatedBy,
}

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// If the JSON is not a definition.
    pub fn read(json: &str) -> serde_json::Result<Self> {
        Ok(Self { known: serde_json::from_str(json)?, timeline: timeline_fields(json.as_bytes())? })
    }

    /// Writes the definition.
    ///
    /// # Errors
    /// No error is expected.
    pub fn to_json(&self) -> serde_json::Result<String> {
        if self.timeline.accepts_all() {
            return serde_json::to_string(&self.known);
        }
        let mut json = serde_json::to_value(&self.known)?;
        for (name, value) in serde_json::to_value(&self.timeline)?.as_object().into_iter().flatten() {
            child(child(&mut json, "room"), "timeline")[name] = value.clone();
        }
        serde_json::to_string(&json)
    }
}

/// Returns the object in a field of another object, and creates it if it is missing.
fn child<'a>(of: &'a mut Value, name: &str) -> &'a mut Value {
    let child = &mut of[name];
    if !child.is_object() {
        *child = json!({});
    }
    child
}

/// Reads [`Definition::timeline`] from a definition that ruma could read.
///
/// # Errors
/// If these fields are invalid.
pub fn timeline_fields(json: &[u8]) -> serde_json::Result<RelatedBy> {
    #[derive(Deserialize, Default)]
    struct Fields {
        #[serde(default)]
        room: Room,
    }
    #[derive(Deserialize, Default)]
    struct Room {
        #[serde(default)]
        timeline: RelatedBy,
    }
    serde_json::from_slice::<Fields>(json).map(|fields| fields.room.timeline)
}

/// The text of the query parameter `filter`, if it is a definition that may name relations.
fn naming_relations(query: &str) -> Option<Cow<'_, str>> {
    let found = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "filter");
    found.map(|(_, text)| text).filter(|text| text.contains("related_by"))
}

/// Reads the relations that an event filter requires, from a query that ruma could read.
///
/// # Errors
/// If these fields are invalid.
pub fn fields_in_query(query: Option<&str>) -> serde_json::Result<RelatedBy> {
    let text = query.and_then(naming_relations);
    text.map_or_else(|| Ok(RelatedBy::default()), |text| serde_json::from_str(&text))
}

/// As [`fields_in_query`], for the timeline of a `/sync` filter, which may also be an ID.
///
/// # Errors
/// If these fields are invalid.
pub fn timeline_fields_in_query(query: Option<&str>) -> serde_json::Result<RelatedBy> {
    let text = query.and_then(naming_relations);
    text.map_or_else(|| Ok(RelatedBy::default()), |text| timeline_fields(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_keeps_what_ruma_does_not_know() {
        let check = |json: Value| {
            let written = Definition::read(&json.to_string()).and_then(|definition| definition.to_json());
            assert_eq!(serde_json::from_str::<Value>(&written.expect("it is read")).expect("JSON"), json);
        };
        check(json!({}));
        check(json!({ "room": { "timeline": { "limit": 3 } } }));
        check(json!({ "room": { "timeline": { "related_by_rel_types": ["m.thread"], "limit": 3 } } }));
        check(json!({ "room": { "timeline": { "related_by_senders": ["@alice:sabha.test"] } } }));
        assert!(Definition::read(r#"{"room":{"timeline":{"related_by_senders":"@a:b"}}}"#).is_err());
    }
}

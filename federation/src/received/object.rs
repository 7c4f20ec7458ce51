//! The JSON of an event, read within bounds and written as canonical JSON.

use std::{collections::BTreeMap, fmt};

use ruma::{CanonicalJsonObject, CanonicalJsonValue};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::FormatError;
use crate::build::{MAX_NESTING, is_deeper_than};

/// Maximum size of an event in bytes, as canonical JSON without `unsigned`. Client-server API, [Size
/// limits](https://spec.matrix.org/v1.19/client-server-api/#size-limits). Our own events have one byte less:
/// [`crate::build::MAX_EVENT_BYTES`].
const MAX_EVENT_BYTES: usize = 65_536;

/// Maximum size in bytes of the text of an event, without `unsigned`. Canonical JSON becomes six times as long if each of
/// its bytes is escaped as `\u0061`. This bounds the memory for parsing.
const MAX_TEXT_BYTES: usize = 6 * MAX_EVENT_BYTES;

/// Fields that are not part of an event: others may change `unsigned`, and `event_id` follows from the rest.
const LEFT_OUT: [&str; 2] = ["event_id", "unsigned"];

/// Reads an event without `unsigned` and `event_id`. Of two fields with the same name the last one counts, as in all JSON
/// parsers of Matrix servers.
pub(super) fn read(json: &RawValue) -> Result<CanonicalJsonObject, FormatError> {
    if !json.get().trim_start().starts_with('{') {
        return Err(FormatError::NotAnObject);
    }
    let Fields { fields, text_bytes } = serde_json::from_str(json.get()).map_err(FormatError::NotCanonical)?;
    if text_bytes > MAX_TEXT_BYTES {
        return Err(too_large(text_bytes));
    }
    fields.into_iter().map(|(name, value)| Ok((name, read_value(value)?))).collect()
}

/// Writes an event as canonical JSON.
pub(super) fn to_json(event: &CanonicalJsonObject) -> Result<String, FormatError> {
    let json = serde_json::to_string(event).map_err(FormatError::NotCanonical)?;
    if json.len() > MAX_EVENT_BYTES { Err(too_large(json.len())) } else { Ok(json) }
}

fn too_large(size_bytes: usize) -> FormatError {
    FormatError::TooLarge { size_bytes, limit_bytes: MAX_EVENT_BYTES }
}

/// Ruma's parser refuses floats, integers that canonical JSON cannot say, and lone surrogates.
fn read_value(json: &RawValue) -> Result<CanonicalJsonValue, FormatError> {
    if is_deeper_than(MAX_NESTING, json.get()) {
        return Err(FormatError::TooDeep);
    }
    serde_json::from_str(json.get()).map_err(FormatError::NotCanonical)
}

/// The fields of an object as text. Nothing is kept beyond [`MAX_TEXT_BYTES`], but all is counted.
struct Fields<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    text_bytes: usize,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut text_bytes) = (BTreeMap::new(), 0_usize);
        while let Some(name) = object.next_key::<String>()? {
            if LEFT_OUT.contains(&&*name) {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = object.next_value::<&RawValue>()?;
            text_bytes += name.len() + value.get().len();
            if text_bytes <= MAX_TEXT_BYTES {
                fields.insert(name, value);
            }
        }
        Ok(Fields { fields, text_bytes })
    }
}

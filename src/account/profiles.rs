//! Profiles: what users publish about themselves, as fields of JSON.

use ruma::UserId;
use serde_json::Value as JsonValue;

use super::Accounts;
use crate::store::{
    self, Conn, Position, Transaction, UserNid,
    jobs::Task,
    log::Touch,
    profiles::{self as rows, ProfileColumns},
};

/// Maximum size of a profile as a JSON object, as in the specification.
pub const MAX_PROFILE_BYTES: usize = 65_536;

/// Maximum number of fields of a profile: far more than any client shows. Setting one reads all of them while other
/// writers wait.
pub const MAX_FIELDS: usize = 256;

/// Maximum length of a field's name, as in the specification.
pub const MAX_FIELD_NAME_BYTES: usize = 255;

/// Maximum length of a display name and of an avatar URL. Both are copied into an event of every room.
pub const MAX_NAME_BYTES: usize = 1024;

pub const DISPLAYNAME: &str = "displayname";
pub const AVATAR_URL: &str = "avatar_url";

/// Why a field was not set.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("the name of a field has at most {MAX_FIELD_NAME_BYTES} bytes")]
    NameTooLong,
    #[error("the name of a field begins with a letter and consists of a-z, 0-9, and ._-")]
    Name,
    #[error("this field is a text of at most {MAX_NAME_BYTES} bytes")]
    Value,
    #[error("an avatar is an address that begins with mxc://")]
    Avatar,
    #[error("a profile has at most {MAX_PROFILE_BYTES} bytes and {MAX_FIELDS} fields")]
    ProfileTooLarge,
    #[error("the profile could not be stored")]
    Storage(#[from] store::Error),
}

/// Checks that a field's name follows the Common Namespaced Identifier Grammar ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#common-namespaced-identifier-grammar
fn check_name(name: &str) -> Result<(), ProfileError> {
    if name.len() > MAX_FIELD_NAME_BYTES {
        return Err(ProfileError::NameTooLong);
    }
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(ProfileError::Name)
    }
}

/// Returns the value to store. `None` removes the field, which is what an empty name or avatar means.
fn check_value(name: &str, value: JsonValue) -> Result<Option<JsonValue>, ProfileError> {
    if !is_shown(name) {
        return Ok(Some(value));
    }
    match value {
        JsonValue::Null => Ok(None),
        JsonValue::String(text) if text.is_empty() => Ok(None),
        JsonValue::String(text) if text.len() > MAX_NAME_BYTES => Err(ProfileError::Value),
        JsonValue::String(text) if name == AVATAR_URL && !text.starts_with("mxc://") => Err(ProfileError::Avatar),
        JsonValue::String(text) => Ok(Some(text.into())),
        _ => Err(ProfileError::Value),
    }
}

/// Returns whether member events contain the field, so that its change concerns the user's rooms.
fn is_shown(field: &str) -> bool {
    field == DISPLAYNAME || field == AVATAR_URL
}

/// Sets or removes one field, unless the profile would become too large. Also queues the [job](crate::jobs) that shows
/// the change in rooms.
struct SetField {
    user: UserNid,
    field: String,
    json: Option<String>,
}

impl Transaction for SetField {
    type Output = Result<(), ProfileError>;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Self::Output, store::Error> {
        let fields = rows::list_fields(conn, self.user).await?;
        let before = fields.iter().find(|(field, _)| *field == self.field).map(|(_, json)| json);
        let is_changed = before != self.json.as_ref();
        if let Some(json) = self.json.as_ref().filter(|_| is_changed) {
            let others = fields.iter().filter(|(field, _)| *field != self.field);
            let entries = others.map(|(field, json)| (field, json)).chain([(&self.field, json)]);
            // Two braces, and for each entry two quotes, a colon and a comma.
            let size_bytes = 2 + entries.map(|(field, json)| field.len() + json.len() + 4).sum::<usize>();
            if size_bytes > MAX_PROFILE_BYTES || (before.is_none() && fields.len() >= MAX_FIELDS) {
                return Ok(Err(ProfileError::ProfileTooLarge));
            }
            conn.touch(Touch::Profile { user: self.user });
            let row =
                ProfileColumns { user_nid: self.user, field: self.field.as_str().into(), json: json.as_str().into() }
                    .row();
            store::committer::insert_rows(conn, &[row]).await?;
        } else if is_changed {
            rows::delete_field(conn, self.user, &self.field).await?;
        }
        if is_shown(&self.field) {
            // Needed also for an equal value: the client may repeat it because a room shows the old one.
            conn.touch(Touch::Job);
            store::committer::insert_rows(conn, &[Task::ShowProfile(self.user).row(position)]).await?;
        }
        Ok(Ok(()))
    }
}

fn parse(json: &str) -> Result<JsonValue, store::Error> {
    serde_json::from_str(json).map_err(|error| store::Error::damaged("profile field", error))
}

impl Accounts {
    /// All fields of an active user of this server; `None` if there is no such user.
    pub async fn find_profile(&self, user_id: &UserId) -> Result<Option<Vec<(String, JsonValue)>>, store::Error> {
        if !self.exists(user_id).await? {
            return Ok(None);
        }
        let Some(user) = self.db.find_user(user_id).await? else {
            return Ok(None);
        };
        let fields = rows::list_fields(&mut self.db.read().await?.conn(), user.nid).await?;
        fields.into_iter().map(|(field, json)| Ok((field, parse(&json)?))).collect::<Result<_, _>>().map(Some)
    }

    /// One field of an active user of this server; `None` if there is no such user or the field is not set.
    pub async fn find_profile_field(&self, user_id: &UserId, field: &str) -> Result<Option<JsonValue>, store::Error> {
        if !self.exists(user_id).await? {
            return Ok(None);
        }
        let Some(user) = self.db.find_user(user_id).await? else {
            return Ok(None);
        };
        let json = rows::find_field(&mut self.db.read().await?.conn(), user.nid, field).await?;
        json.map(|json| parse(&json)).transpose()
    }

    /// Sets a field, or removes it (`None`). Returns whether member events contain the field. In that case the same
    /// commit stores a job that updates the user's rooms, which the commit log starts.
    ///
    /// # Errors
    /// After [`ProfileError::Storage`] the field may have been set.
    pub async fn set_profile_field(
        &self,
        user: UserNid,
        field: &str,
        value: Option<JsonValue>,
    ) -> Result<bool, ProfileError> {
        check_name(field)?;
        let value = match value {
            Some(value) => check_value(field, value)?,
            None => None,
        };
        let set = SetField { user, field: field.to_owned(), json: value.map(|value| value.to_string()) };
        self.db.committer().transact(set).await??;
        Ok(is_shown(field))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_fields_follow_the_grammar() {
        let check = |name: &str, expected: bool| assert_eq!(check_name(name).is_ok(), expected, "{name:?}");
        check("displayname", true);
        check("m.tz", true);
        check("org.example.a_b-c.1", true);
        check("", false);
        check("1st", false);
        check(".hidden", false);
        check("Upper", false);
        check("with space", false);
        check(&"a".repeat(255), true);
        check(&"a".repeat(256), false);
    }

    #[test]
    fn names_and_avatars_are_texts_and_empty_ones_are_removed() {
        let check = |name: &str, value: JsonValue, expected: Option<Option<JsonValue>>| {
            assert_eq!(check_value(name, value.clone()).ok(), expected, "{name}: {value}");
        };
        check("displayname", json!("Alice"), Some(Some(json!("Alice"))));
        check("displayname", json!(""), Some(None));
        check("displayname", json!(null), Some(None));
        check("displayname", json!(7), None);
        check("displayname", json!("a".repeat(MAX_NAME_BYTES + 1)), None);
        check("avatar_url", json!("mxc://example.org/abc"), Some(Some(json!("mxc://example.org/abc"))));
        check("avatar_url", json!("https://example.org/abc"), None);
        check("avatar_url", json!(""), Some(None));
        check("m.tz", json!("Europe/Berlin"), Some(Some(json!("Europe/Berlin"))));
        check("org.example.anything", json!({"a": [1]}), Some(Some(json!({"a": [1]}))));
        check("org.example.anything", json!(null), Some(Some(json!(null))));
    }
}

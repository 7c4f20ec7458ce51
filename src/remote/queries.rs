//! Requests to other servers that a user waits for: profiles, room aliases and public rooms.
//!
//! Promise: a name is only asked of the server that it belongs to, and only well-formed parts of the answer are passed
//! on.

use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, ServerName, UInt, UserId,
    api::{
        OutgoingRequest,
        error::Error as MatrixError,
        federation::{
            authentication::ServerSignatures,
            directory::get_public_rooms_filtered,
            query::{get_profile_information, get_room_information},
        },
        path_builder::PathBuilder,
    },
    directory::Filter,
    profile::ProfileFieldName,
};
use serde_json::Value as JsonValue;

use super::{Federation, FederationError, QUERY_LIMITS};
use crate::outbound::Use;

/// Maximum number of profile fields passed on. The specification limits a profile to 64 KiB; this limits the number of
/// small fields in it.
const MAX_FIELDS: usize = 500;

/// Maximum number of an alias's servers passed on. A client needs a few to join through.
const MAX_SERVERS: usize = 50;

impl Federation {
    /// Sends a request if a turn is free.
    async fn query<R>(&self, destination: &ServerName, request: R) -> Result<R::IncomingResponse, FederationError>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, EndpointError = MatrixError> + Send,
        R::IncomingResponse: Send,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        let busy = || FederationError::Busy { destination: destination.to_owned() };
        let _turn = self.turns.take(destination).ok_or_else(busy)?;
        self.ask(Use::Queries, destination, request, QUERY_LIMITS).await
    }

    /// Fetches the profile of another server's user: all fields, or only `field`.
    ///
    /// # Errors
    /// [`FederationError::Refused`] with 404 when the server knows no such user.
    pub async fn profile(
        &self,
        user_id: &UserId,
        field: Option<&str>,
    ) -> Result<Vec<(String, JsonValue)>, FederationError> {
        let mut request = get_profile_information::v1::Request::new(user_id.to_owned());
        // Older servers know only these two fields and refuse requests for others, so other fields are picked from the
        // whole profile.
        request.field = field.filter(|field| ["displayname", "avatar_url"].contains(field)).map(ProfileFieldName::from);
        let profile = self.query(user_id.server_name(), request).await?;
        let fields = profile.into_iter().filter(|(name, value)| is_well_formed(name, value));
        let fields = fields.filter(|(name, _)| field.is_none_or(|field| field == name));
        Ok(fields.take(MAX_FIELDS).collect())
    }

    /// Looks up another server's alias: its room, and servers through which it can be joined.
    ///
    /// # Errors
    /// [`FederationError::Refused`] with 404 when the server knows no such alias.
    pub async fn resolve_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), FederationError> {
        let request = get_room_information::v1::Request::new(alias.to_owned());
        let mut found = self.query(alias.server_name(), request).await?;
        found.servers.truncate(MAX_SERVERS);
        Ok((found.room_id, found.servers))
    }

    /// Fetches a page of another server's public directory, with at most `limit` rooms. `since` is a token of that
    /// server.
    ///
    /// # Errors
    /// [`FederationError::Refused`] with 403 when the server does not publish its directory.
    pub async fn public_rooms(
        &self,
        server: &ServerName,
        limit: usize,
        since: Option<&str>,
        filter: &Filter,
    ) -> Result<get_public_rooms_filtered::v1::Response, FederationError> {
        let mut request = get_public_rooms_filtered::v1::Request::new();
        request.limit = UInt::try_from(limit).ok();
        request.since = since.map(str::to_owned);
        request.filter = filter.clone();
        let mut listed = self.query(server, request).await?;
        listed.chunk.truncate(limit);
        Ok(listed)
    }
}

/// Checks the type of the two fields that have always been in the specification, because clients rely on it.
fn is_well_formed(name: &str, value: &JsonValue) -> bool {
    match name {
        "displayname" => value.is_string(),
        "avatar_url" => value.as_str().is_some_and(|url| url.starts_with("mxc://")),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_remote_profile_only_what_clients_can_read_is_passed_on() {
        let check = |name: &str, value: JsonValue, expected: bool| {
            assert_eq!(is_well_formed(name, &value), expected, "{name}: {value}");
        };
        check("displayname", json!("Bob"), true);
        check("displayname", json!(null), false);
        check("displayname", json!({}), false);
        check("avatar_url", json!("mxc://b.test/x"), true);
        check("avatar_url", json!("javascript:alert(1)"), false);
        check("avatar_url", json!(null), false);
        check("m.tz", json!("Europe/Berlin"), true);
    }
}

//! The Matrix requests that the workloads make, over one [`Connection`] as one account.
//!
//! The measured requests (`send`, `sync`) look only at the status and at a few bytes of the answer. Requests that
//! prepare a workload parse JSON.

use std::{fmt::Write as _, net::SocketAddr, rc::Rc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Result,
    http::{Connection, find, percent_encode},
};

pub struct Account {
    pub token: String,
}

/// A room's ID, kept as a path segment.
#[derive(Clone)]
pub struct Room {
    pub path: Rc<str>,
}

pub struct Client {
    pub connection: Connection,
    pub account: Rc<Account>,
    body: String,
}

#[derive(Deserialize)]
struct Registered {
    access_token: String,
}

#[derive(Deserialize)]
struct Created {
    room_id: String,
}

impl Account {
    pub async fn register(connection: &mut Connection, username: &str) -> Result<Self> {
        let body = json!({
            "username": username,
            "password": "correct horse battery staple",
            "auth": { "type": "m.login.dummy" },
        });
        let path = "/_matrix/client/v3/register";
        let registered: Registered = connection.exchange("POST", path, None, Some(&body.to_string())).await?.json()?;
        Ok(Self { token: registered.access_token })
    }
}

impl Client {
    pub async fn open(address: SocketAddr, account: &Rc<Account>) -> Result<Self> {
        Ok(Self { connection: Connection::open(address).await?, account: account.clone(), body: String::new() })
    }

    pub async fn create_room(&mut self, options: &Value) -> Result<Room> {
        let reply = self.post("/_matrix/client/v3/createRoom", options).await?;
        let created: Created = serde_json::from_slice(reply)?;
        Ok(Room { path: percent_encode(&created.room_id).into() })
    }

    /// Creates a room that anybody may join.
    pub async fn create_public_room(&mut self) -> Result<Room> {
        self.create_room(&json!({ "preset": "public_chat", "name": "Bench" })).await
    }

    pub async fn join(&mut self, room: &Room) -> Result<()> {
        let path = format!("/_matrix/client/v3/join/{}", room.path);
        self.post(&path, &json!({})).await?;
        Ok(())
    }

    /// Sends a text message that contains `m<number>.`, by which [`has_message`] finds it again.
    ///
    /// `number` is also the transaction ID, so one account must not use it twice.
    pub async fn send(&mut self, room: &Room, number: usize) -> Result<()> {
        self.body.clear();
        // About as long as an ordinary chat message.
        write!(
            self.body,
            r#"{{"msgtype":"m.text","body":"m{number}. The quick brown fox jumps over the lazy dog, again."}}"#
        )?;
        let path = format_args!("/_matrix/client/v3/rooms/{}/send/m.room.message/t{number}", room.path);
        self.connection.exchange("PUT", path, Some(&self.account.token), Some(&self.body)).await?.ok()?;
        Ok(())
    }

    /// Sends a request for `/sync` without waiting for the answer, which [`Self::synced`] returns.
    pub async fn park(&mut self, since: Option<&str>, timeout: Duration) -> Result<()> {
        let timeout_ms = timeout.as_millis();
        let path = "/_matrix/client/v3/sync?set_presence=offline";
        let token = Some(self.account.token.as_str());
        match since {
            Some(since) => {
                let path = format_args!("{path}&timeout={timeout_ms}&since={since}");
                self.connection.write("GET", path, token, None).await
            }
            None => self.connection.write("GET", format_args!("{path}&timeout={timeout_ms}"), token, None).await,
        }
    }

    pub async fn synced(&mut self) -> Result<&[u8]> {
        self.connection.read().await?.ok()
    }

    pub async fn sync(&mut self, since: Option<&str>, timeout: Duration) -> Result<&[u8]> {
        self.park(since, timeout).await?;
        self.synced().await
    }

    /// Returns the current sync token, encoded for a query.
    ///
    /// Syncs until an answer has no news, so that a later long poll parks.
    pub async fn current_token(&mut self) -> Result<String> {
        let mut since = next_batch(self.sync(None, Duration::ZERO).await?)?;
        for _ in 0..20 {
            let next = next_batch(self.sync(Some(&since), Duration::ZERO).await?)?;
            if next == since {
                break;
            }
            since = next;
        }
        Ok(since)
    }

    pub async fn get(&mut self, path: &str) -> Result<&[u8]> {
        self.connection.exchange("GET", path, Some(&self.account.token), None).await?.ok()
    }

    async fn post(&mut self, path: &str, body: &Value) -> Result<&[u8]> {
        self.connection.exchange("POST", path, Some(&self.account.token), Some(&body.to_string())).await?.ok()
    }
}

/// The `next_batch` of a sync answer, encoded for a query.
pub fn next_batch(body: &[u8]) -> Result<String> {
    string_after(body, b"\"next_batch\":").ok_or_else(|| "a sync answer without next_batch".into())
}

/// Returns whether an answer contains message `number` of [`Client::send`].
pub fn has_message(body: &[u8], number: usize) -> bool {
    find(body, format!("\"m{number}. ").as_bytes()).is_some()
}

/// Returns the JSON string after the first `key`, encoded for a query. Works only for strings without escapes, such as
/// tokens.
pub fn string_after(body: &[u8], key: &[u8]) -> Option<String> {
    let rest = &body[find(body, key)? + key.len()..];
    let mut parts = std::str::from_utf8(rest.get(..rest.len().min(1024))?).ok()?.split('"');
    // Only white space may stand between the colon and the string.
    if !parts.next()?.trim().is_empty() {
        return None;
    }
    parts.next().map(percent_encode)
}

//! The bytes of an event: canonical JSON in pieces, cut where its three forms differ.
//!
//! Canonical JSON sorts its keys, so an event is a fixed sequence of fields. The content hash, the signed (redacted)
//! form and the whole event use the same pieces and leave some out. Each piece is written only once.

use std::fmt::Write as _;

use ruma::{
    EventId, OwnedEventId, RoomId, UserId,
    serde::{Base64, base64::Standard},
};
use sha2::{Digest as _, Sha256};

use crate::signing::ServerSigner;

/// The fields of an event, checked and ready to be written.
pub(super) struct Fields<'a> {
    pub room_id: Option<&'a RoomId>,
    pub sender: &'a UserId,
    pub event_type: &'a str,
    pub state_key: Option<&'a str>,
    /// Canonical JSON.
    pub content: &'a str,
    /// Canonical JSON of the content after redaction.
    pub redacted_content: &'a str,
    /// Present if the room version has it outside of the content.
    pub redacts: Option<&'a EventId>,
    pub prev_events: &'a [OwnedEventId],
    pub auth_events: &'a [OwnedEventId],
    pub depth: u64,
    pub origin_server_ts: u64,
}

pub(super) struct Pieces<'a> {
    /// `{"auth_events":[…],"content":`
    start: String,
    content: &'a str,
    redacted_content: &'a str,
    /// `,"depth":…`; `hashes` comes after it.
    depth: String,
    /// `,"origin_server_ts":…,"prev_events":[…]`
    graph: String,
    /// `,"redacts":…`, or nothing.
    redacts: String,
    /// `,"room_id":…,"sender":…`; `signatures` comes after it.
    sender: String,
    /// `,"state_key":…,"type":…}`
    end: String,
}

impl<'a> Pieces<'a> {
    pub fn of(fields: &Fields<'a>) -> Self {
        let mut start = String::from(r#"{"auth_events":"#);
        push_ids(&mut start, fields.auth_events);
        start.push_str(r#","content":"#);

        let mut graph = format!(r#","origin_server_ts":{},"prev_events":"#, fields.origin_server_ts);
        push_ids(&mut graph, fields.prev_events);

        let mut redacts = String::new();
        if let Some(event_id) = fields.redacts {
            push_field(&mut redacts, r#","redacts":"#, event_id.as_str());
        }

        let mut sender = String::new();
        if let Some(room_id) = fields.room_id {
            push_field(&mut sender, r#","room_id":"#, room_id.as_str());
        }
        push_field(&mut sender, r#","sender":"#, fields.sender.as_str());

        let mut end = String::new();
        if let Some(state_key) = fields.state_key {
            push_field(&mut end, r#","state_key":"#, state_key);
        }
        push_field(&mut end, r#","type":"#, fields.event_type);
        end.push('}');

        Self {
            start,
            content: fields.content,
            redacted_content: fields.redacted_content,
            depth: format!(r#","depth":{}"#, fields.depth),
            graph,
            redacts,
            sender,
            end,
        }
    }

    /// The `hashes` field, with its comma. Server-server API, "Calculating the content hash for an event": it covers
    /// everything but hashes and signatures.
    pub fn hashes(&self) -> String {
        let Self { start, content, depth, graph, redacts, sender, end, .. } = self;
        let mut hash = Sha256::new();
        for piece in [start, *content, depth, graph, redacts, sender, end] {
            hash.update(piece);
        }
        let hash = Base64::<Standard, [u8; 32]>::new(hash.finalize().into());
        format!(r#","hashes":{{"sha256":"{hash}"}}"#)
    }

    /// The redacted event without signatures, which "Signing Events" and "Calculating the reference hash for an event"
    /// both cover. No version keeps a `redacts` outside of the content.
    pub fn redacted(&self, hashes: &str) -> String {
        let Self { start, redacted_content, depth, graph, sender, end, .. } = self;
        [start, *redacted_content, depth, hashes, graph, sender, end].concat()
    }

    /// The whole event, as it is stored and sent.
    pub fn whole(&self, hashes: &str, signatures: &str) -> String {
        let Self { start, content, depth, graph, redacts, sender, end, .. } = self;
        [start, *content, depth, hashes, graph, redacts, sender, signatures, end].concat()
    }
}

/// The `signatures` field, with its comma: our signature over `redacted`.
pub(super) fn signatures(signer: &ServerSigner, redacted: &str) -> String {
    let mut signatures = String::new();
    push_field(&mut signatures, r#","signatures":{"#, signer.server_name().as_str());
    let (key_id, signature) = (signer.key_id(), signer.sign_bytes(redacted.as_bytes()));
    write!(signatures, r#":{{"{key_id}":"{signature}"}}}}"#).expect("writing to a string cannot fail");
    signatures
}

fn push_ids(json: &mut String, ids: &[OwnedEventId]) {
    json.push('[');
    for (index, id) in ids.iter().enumerate() {
        push_field(json, if index > 0 { "," } else { "" }, id.as_str());
    }
    json.push(']');
}

/// Appends `name`, which is JSON, and `text` as a JSON string.
fn push_field(json: &mut String, name: &str, text: &str) {
    json.push_str(name);
    let plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if plain {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&serde_json::to_string(text).expect("a string serializes"));
    }
}

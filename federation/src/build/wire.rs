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
    pub origin_server_ts: i64,
}

/// The names, the marks and the numbers of an event in bytes, without what is in its fields.
const FRAME_BYTES: usize = 192;

pub(super) struct Pieces<'a> {
    /// All pieces but the content, one after another: an event needs no memory for each.
    text: String,
    /// The end of each piece in `text`.
    ends: [usize; 6],
    content: &'a str,
    redacted_content: &'a str,
}

/// The pieces by their places.
struct Parts<'a> {
    /// `{"auth_events":[…],"content":`
    start: &'a str,
    /// `,"depth":…`; `hashes` comes after it.
    depth: &'a str,
    /// `,"origin_server_ts":…,"prev_events":[…]`
    graph: &'a str,
    /// `,"redacts":…`, or nothing.
    redacts: &'a str,
    /// `,"room_id":…,"sender":…`; `signatures` comes after it.
    sender: &'a str,
    /// `,"state_key":…,"type":…}`
    end: &'a str,
}

impl<'a> Pieces<'a> {
    pub fn of(fields: &Fields<'a>) -> Self {
        let ids = fields.auth_events.iter().chain(fields.prev_events).map(|id| id.as_str().len() + 3).sum::<usize>();
        let others = [
            fields.redacts.map_or(0, |id| id.as_str().len()),
            fields.room_id.map_or(0, |id| id.as_str().len()),
            fields.sender.as_str().len(),
            fields.state_key.map_or(0, str::len),
            fields.event_type.len(),
        ];
        let mut text = String::with_capacity(FRAME_BYTES + ids + others.iter().sum::<usize>());
        let mut ends = [0; 6];

        text.push_str(r#"{"auth_events":"#);
        push_ids(&mut text, fields.auth_events);
        text.push_str(r#","content":"#);
        ends[0] = text.len();

        write!(text, r#","depth":{}"#, fields.depth).expect("writing to a string cannot fail");
        ends[1] = text.len();

        write!(text, r#","origin_server_ts":{},"prev_events":"#, fields.origin_server_ts)
            .expect("writing to a string cannot fail");
        push_ids(&mut text, fields.prev_events);
        ends[2] = text.len();

        if let Some(event_id) = fields.redacts {
            push_field(&mut text, r#","redacts":"#, event_id.as_str());
        }
        ends[3] = text.len();

        if let Some(room_id) = fields.room_id {
            push_field(&mut text, r#","room_id":"#, room_id.as_str());
        }
        push_field(&mut text, r#","sender":"#, fields.sender.as_str());
        ends[4] = text.len();

        if let Some(state_key) = fields.state_key {
            push_field(&mut text, r#","state_key":"#, state_key);
        }
        push_field(&mut text, r#","type":"#, fields.event_type);
        text.push('}');
        ends[5] = text.len();

        Self { text, ends, content: fields.content, redacted_content: fields.redacted_content }
    }

    fn parts(&self) -> Parts<'_> {
        let [start, depth, graph, redacts, sender, end] = self.ends;
        Parts {
            start: &self.text[..start],
            depth: &self.text[start..depth],
            graph: &self.text[depth..graph],
            redacts: &self.text[graph..redacts],
            sender: &self.text[redacts..sender],
            end: &self.text[sender..end],
        }
    }

    /// The `hashes` field, with its comma. Server-server API, "Calculating the content hash for an event": it covers
    /// everything but hashes and signatures.
    pub fn hashes(&self) -> String {
        let Parts { start, depth, graph, redacts, sender, end } = self.parts();
        let mut hash = Sha256::new();
        for piece in [start, self.content, depth, graph, redacts, sender, end] {
            hash.update(piece);
        }
        let hash = Base64::<Standard, [u8; 32]>::new(hash.finalize().into()).encode();
        [r#","hashes":{"sha256":""#, &hash, r#""}"#].concat()
    }

    /// The redacted event without signatures, which "Signing Events" and "Calculating the reference hash for an event"
    /// both cover. No version keeps a `redacts` outside of the content.
    pub fn redacted(&self, hashes: &str) -> String {
        let Parts { start, depth, graph, sender, end, .. } = self.parts();
        [start, self.redacted_content, depth, hashes, graph, sender, end].concat()
    }

    /// The whole event, as it is stored and sent.
    pub fn whole(&self, hashes: &str, signatures: &str) -> String {
        let Parts { start, depth, graph, redacts, sender, end } = self.parts();
        [start, self.content, depth, hashes, graph, redacts, sender, signatures, end].concat()
    }
}

/// The `signatures` field, with its comma: our signature over `redacted`.
pub(super) fn signatures(signer: &ServerSigner, redacted: &str) -> String {
    let key = signer.current();
    let (server, key_id) = (signer.server_name().as_str(), key.key_id().as_str());
    let signature = key.sign_bytes(redacted.as_bytes()).encode();
    // Neither the name of a server nor the ID of a key holds anything that JSON escapes.
    [r#","signatures":{""#, server, r#"":{""#, key_id, r#"":""#, &signature, r#""}}"#].concat()
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

//! The ways of syncing: whether a client waits, its filter, and the place of the state.

use std::collections::BTreeSet;

use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::api::{encoded, v3};

/// A filter of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    Nothing,
    /// Members only where the client needs them.
    Lazy {
        redundant: bool,
    },
    /// A timeline of only messages.
    OnlyMessages,
    /// A timeline without members and our own state.
    NoMembersInTimeline,
    /// A timeline without events of this user, who changes the state like others.
    NotFrom(String),
    /// No members in the state, only in the timeline.
    NoMembersInState,
}

/// A way of syncing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    pub waits: bool,
    pub filter: Filter,
    pub state_after: bool,
    pub limit: u32,
}

impl Kind {
    /// Returns one of five ways, with random details: long poll, at once, lazy, filtered, `state_after`.
    pub fn random(rng: &mut StdRng, way: usize, somebody: &str) -> Self {
        let limit = [1, 2, 3, 5, 10, 20][rng.random_range(0..6)];
        let lazy = Filter::Lazy { redundant: rng.random_ratio(1, 4) };
        let filters = [
            Filter::OnlyMessages,
            Filter::NoMembersInTimeline,
            Filter::NotFrom(somebody.to_owned()),
            Filter::NoMembersInState,
        ];
        let filtered = filters[rng.random_range(0..filters.len())].clone();
        let plain = Self { waits: false, filter: Filter::Nothing, state_after: false, limit };
        match way {
            0 => Self { waits: true, ..plain },
            1 => plain,
            2 => Self { waits: rng.random(), filter: lazy, ..plain },
            3 => Self { waits: rng.random(), filter: filtered, ..plain },
            _ => {
                let filter = [Filter::Nothing, lazy, filtered][rng.random_range(0..3)].clone();
                Self { waits: rng.random(), filter, state_after: true, ..plain }
            }
        }
    }

    /// Returns the way in which a client syncs with several processes. What one of them has sent it is not known to the
    /// others, so it asks for all members each time (decision 17).
    pub fn with_several(self) -> Self {
        match self.filter {
            Filter::Lazy { .. } => Self { filter: Filter::Lazy { redundant: true }, ..self },
            _ => self,
        }
    }

    /// Tells whether a timeline shows events of this type from this sender.
    pub fn shows(&self, event_type: &str, sender: &str) -> bool {
        match &self.filter {
            Filter::OnlyMessages => event_type == "m.room.message",
            Filter::NoMembersInTimeline => event_type != "m.room.member" && !event_type.starts_with("org.sabha."),
            Filter::NotFrom(user_id) => sender != user_id,
            _ => true,
        }
    }

    /// Tells whether the client is told all state of this type.
    pub fn follows_state(&self, event_type: &str) -> bool {
        event_type != "m.room.member" || self.filter != Filter::NoMembersInState
    }

    pub fn is_lazy(&self) -> bool {
        matches!(self.filter, Filter::Lazy { .. })
    }

    fn timeline_filter(&self) -> Value {
        match &self.filter {
            Filter::OnlyMessages => json!({ "types": ["m.room.message"] }),
            Filter::NotFrom(user_id) => json!({ "not_senders": [user_id] }),
            Filter::NoMembersInTimeline => json!({ "not_types": ["m.room.member", "org.sabha.*"] }),
            _ => json!({}),
        }
    }

    pub fn sync_path(&self, since: Option<&str>, parameters: &str) -> String {
        let mut timeline = self.timeline_filter();
        timeline["limit"] = self.limit.into();
        let mut state = json!({});
        match self.filter {
            Filter::Lazy { redundant } => {
                for part in [&mut timeline, &mut state] {
                    part["lazy_load_members"] = true.into();
                    part["include_redundant_members"] = redundant.into();
                }
            }
            Filter::NoMembersInState => state["not_types"] = json!(["m.room.member"]),
            _ => {}
        }
        let filter = json!({ "room": { "timeline": timeline, "state": state } });
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let state_after = if self.state_after { "&use_state_after=true" } else { "" };
        format!("{}?{parameters}{since}{state_after}&filter={}", v3(["sync"]), encoded(&filter.to_string()))
    }

    /// Returns the path of a page of 50 events before `from`, with the filter of the timeline.
    pub fn messages_path(&self, room_id: &str, from: &str) -> String {
        let filter = encoded(&self.timeline_filter().to_string());
        format!("{}?dir=b&limit=50&from={from}&filter={filter}", v3(["rooms", room_id, "messages"]))
    }
}

/// Returns the names of users in a list.
pub fn names(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

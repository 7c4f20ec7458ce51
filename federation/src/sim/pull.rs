//! Events that a server lacks: it asks another server for them, until it has them.
//!
//! Simpler than the real thing, which is to take this file's place: there is no bound, no told state, and nothing is given
//! up. Every event that an honest server names can be had from some server in the end.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{EventId, OwnedEventId};

use super::{net::Message, stage::Stage, store::Rows, trace::short};
use crate::{
    receive::{Incoming, Missing, Mode},
    standing::Flags,
};

/// The events that wait for others.
#[derive(Default)]
pub(super) struct Pulls {
    waiting: BTreeMap<(OwnedEventId, bool), Waiting>,
}

struct Waiting {
    from: usize,
    event: Incoming,
    /// The events that it lacks, and whether it is enough to know them by themselves.
    lacks: BTreeMap<OwnedEventId, bool>,
}

impl Pulls {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets an event wait, and asks the server that sent it.
    pub fn wait(&mut self, stage: &mut Stage, server: usize, from: usize, missing: Missing, event: Incoming) {
        let (ids, as_outliers) = match missing {
            Missing::AuthEvents(ids) => (ids, true),
            Missing::Prevs(ids) => (ids, false),
        };
        stage.counts.pulls += 1;
        stage.send(server, from, Message::Pull { ids: ids.clone() });
        let lacks = ids.into_iter().map(|id| (id, as_outliers)).collect();
        let key = (event.event.pdu().event_id.clone(), event.mode == Mode::Outlier);
        self.waiting.insert(key, Waiting { from, event, lacks });
    }

    /// How an event that came as an answer is to be judged. `None`: nothing waits for it.
    pub fn mode(&self, event_id: &EventId) -> Option<Mode> {
        let lacking: Vec<bool> =
            self.waiting.values().filter_map(|waiting| waiting.lacks.get(event_id).copied()).collect();
        let all_as_outliers = lacking.iter().all(|as_outlier| *as_outlier);
        (!lacking.is_empty()).then_some(if all_as_outliers { Mode::Outlier } else { Mode::Fetched })
    }

    /// Takes the events that wait for nothing more, now that this one is stored.
    pub fn came(&mut self, event_id: &EventId, is_outlier: bool) -> Vec<(usize, Incoming)> {
        for waiting in self.waiting.values_mut() {
            if waiting.lacks.get(event_id).is_some_and(|as_outlier| *as_outlier || !is_outlier) {
                waiting.lacks.remove(event_id);
            }
        }
        let done = self.waiting.extract_if(.., |_, waiting| waiting.lacks.is_empty());
        done.map(|(_, waiting)| (waiting.from, waiting.event)).collect()
    }

    /// Asks any other server for everything that is lacking.
    pub fn ask_again(&self, stage: &mut Stage, server: usize) {
        let mut ids: Vec<OwnedEventId> =
            self.waiting.values().flat_map(|waiting| waiting.lacks.keys()).cloned().collect();
        ids.sort();
        ids.dedup();
        if !ids.is_empty() {
            let to = stage.any_other(server);
            stage.note(server, format_args!("asks s{to} for {} events, first {}", ids.len(), short(&ids[0])));
            stage.send(server, to, Message::Pull { ids });
        }
    }
}

/// The answer to a question for events. Rejected ones are not shown to other servers.
pub(super) fn answer(disk: &Rows, ids: &[OwnedEventId]) -> Vec<Arc<str>> {
    let rows = ids.iter().filter_map(|id| disk.find(id)).filter(|row| !row.flags.contains(Flags::REJECTED));
    rows.map(|row| Arc::clone(&row.pdu.json)).collect()
}

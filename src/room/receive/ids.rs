//! The numbers that decisions give out, and resolutions on other threads.

use sabha_federation::{
    receive::{Ids, RedactionReader, WaitingRedaction},
    resolve::{Prepared, Resolved, RunError},
};

use super::reader::RoomReads;
use crate::store::{Error, EventNid, KeyNid, SideNid, redactions};

impl Ids for RoomReads<'_> {
    fn event(&self) -> Result<EventNid, Error> {
        self.rooms().db.committer().ids().event()
    }

    fn side(&self) -> Result<SideNid, Error> {
        self.rooms().db.committer().ids().side()
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<KeyNid, Error> {
        Ok(self.rooms().db.state_key(event_type, state_key).await?.nid)
    }

    async fn run(&self, prepared: Prepared) -> Result<Resolved, RunError> {
        if !prepared.is_large() {
            return prepared.run();
        }
        match tokio::task::spawn_blocking(|| prepared.run()).await {
            Ok(resolved) => resolved,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl RedactionReader for RoomReads<'_> {
    async fn waiting(&self, target: &ruma::OwnedEventId) -> Result<Vec<WaitingRedaction>, Error> {
        let room = self.room();
        let mut waiting = room.queued.pending_redactions(target);
        let mut reader = self.rooms().db.read().await?;
        for (nid, by_power) in redactions::pending(&mut reader.conn(), room.nid, target.as_str()).await? {
            // It may have been committed a moment ago.
            if waiting.iter().all(|known| known.nid != nid) {
                waiting.push(WaitingRedaction { nid, by_power });
            }
        }
        waiting.sort_by_key(|redaction| (!redaction.by_power, redaction.nid));
        Ok(waiting)
    }
}

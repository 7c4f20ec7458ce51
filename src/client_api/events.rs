//! Events in answers: the stored bytes are copied, and the fields that differ for each reader are added.

use std::sync::Arc;

use sabha_federation::state_log::Membership;

use crate::{
    app::App,
    room::{
        event::{StoredEvent, View},
        read::{timeline::TimelineEvent, viewer::Viewer},
    },
    store,
    sync::json::Array,
};

/// Estimated bytes of an event in an answer; that much space is reserved before it is written.
const EVENT_BYTES: usize = 640;

/// An answer that is being written for one reader.
pub(super) struct Events<'a> {
    app: &'a App,
    viewer: &'a Viewer<'a>,
    now_ms: i64,
}

impl<'a> Events<'a> {
    pub(super) fn new(app: &'a App, viewer: &'a Viewer<'a>) -> Self {
        Self { app, viewer, now_ms: app.clock.now_ms() }
    }

    /// Appends one event.
    pub(super) async fn write(&self, out: &mut Vec<u8>, event: &StoredEvent) -> Result<(), store::Error> {
        // Only the sender has a transaction ID for an event, and the lookup takes a lock.
        let caller = self.viewer.caller;
        let transaction_id = if event.sender() == caller.user_id() {
            self.app.rooms.transaction_id_of(caller.device_nid, event.event_id()).await?
        } else {
            None
        };
        event.write(out, View { transaction_id: transaction_id.as_deref(), ..self.view(event) });
        Ok(())
    }

    /// Appends an array of events of the timeline.
    pub(super) async fn write_timeline(&self, out: &mut Vec<u8>, events: &[TimelineEvent]) -> Result<(), store::Error> {
        out.reserve(events.len() * EVENT_BYTES);
        let mut array = Array::begin(out);
        for (_, event) in events {
            self.write(array.item(), event).await?;
        }
        array.end();
        Ok(())
    }

    /// Appends an array of state events.
    pub(super) fn write_state(&self, out: &mut Vec<u8>, events: &[Arc<StoredEvent>]) {
        out.reserve(events.len() * EVENT_BYTES);
        let mut array = Array::begin(out);
        for event in events {
            event.write(array.item(), self.view(event));
        }
        array.end();
    }

    fn view(&self, event: &StoredEvent) -> View<'static> {
        // A user without a member event counts as having left, as the specification says.
        let membership = event.place().map(|_| self.viewer.sight.membership_after(event).unwrap_or(Membership::Leave));
        View { with_room_id: true, transaction_id: None, membership, now_ms: self.now_ms }
    }
}

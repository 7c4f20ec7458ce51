//! Pages of events, bounded in bytes: a thousand events of the largest size would make an answer of 64 MB.

use crate::{
    app::App,
    room::{
        event::StoredEvent,
        history::{Page, ReadError},
    },
    store::TimelinePlace,
};

/// Events that are read at once. Their bytes are counted only when they are in memory: at most 6.5 MB.
const STEP: usize = 100;

/// The maximum size of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageLimit {
    events: usize,
    bytes: usize,
}

impl PageLimit {
    /// The size that a client wants, within the bounds of the configuration.
    pub(super) fn new(app: &App, wanted: u64) -> Self {
        let limits = &app.config.limits;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Self { events: wanted.min(limits.page_events as usize), bytes: limits.page_bytes.bytes() }
    }

    /// Splits the limit for two pages that together are as large as one.
    pub(super) fn halves(self) -> (Self, Self) {
        let (events, bytes) = (self.events / 2, self.bytes / 2);
        (Self { events, bytes }, Self { events: self.events - events, bytes })
    }

    /// Reads a page step by step. `read` gets the place to begin at and the number of events wanted. `next` gives the
    /// place to continue from after an event.
    ///
    /// The page ends with the event that reaches its byte limit. So it has at least one event, and reading makes
    /// progress.
    pub(super) async fn read<F: Future<Output = Result<Page, ReadError>>>(
        self,
        from: TimelinePlace,
        next: fn(TimelinePlace) -> TimelinePlace,
        mut read: impl FnMut(TimelinePlace, usize) -> F,
    ) -> Result<Page, ReadError> {
        let mut page = Page { events: Vec::new(), next: Some(from) };
        let mut bytes = 0;
        while let Some(from) = page.next
            && page.events.len() < self.events
        {
            let count = (self.events - page.events.len()).min(STEP);
            let part = read(from, count).await?;
            let (found, mut events) = (part.events.len(), part.events.into_iter());
            page.next = part.next;
            while let Some((place, event)) = events.next() {
                bytes += size_bytes(&event);
                page.events.push((place, event));
                if bytes >= self.bytes {
                    if events.len() > 0 {
                        page.next = Some(next(place));
                    }
                    return Ok(page);
                }
            }
            // Fewer events than asked for, with more to come: `read` has reached the number of events that it may
            // examine.
            if found < count {
                break;
            }
        }
        Ok(page)
    }
}

/// The place from which reading backward continues after an event.
pub(super) fn back(place: TimelinePlace) -> TimelinePlace {
    place.just_before()
}

/// The place from which reading forward continues after an event.
pub(super) fn forward(place: TimelinePlace) -> TimelinePlace {
    place
}

/// The approximate bytes of an event in an answer.
pub(super) fn size_bytes(event: &StoredEvent) -> usize {
    let replaced = event.replaces.as_ref().map_or(0, |replaced| replaced.content.get().len());
    let redaction = event.redacted_because.as_ref().map_or(0, |redaction| redaction.pdu.json.len());
    event.pdu.json.len() + replaced + redaction
}

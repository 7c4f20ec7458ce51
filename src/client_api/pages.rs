//! Pages of events, bounded in bytes: a thousand events of the largest size would make an answer of 64 MB.

use crate::{
    app::App,
    room::{
        event::StoredEvent,
        history::{Page, ReadError},
    },
    store::Position,
};

/// Events that are read at once: their bytes are counted only when they are in memory, at most 6.5 MB.
const STEP: usize = 100;

/// How large a page may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageLimit {
    events: usize,
    bytes: usize,
}

impl PageLimit {
    /// What a client wants, within the bounds of the configuration.
    pub(super) fn new(app: &App, wanted: u64) -> Self {
        let limits = &app.config.limits;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Self { events: wanted.min(limits.page_events as usize), bytes: limits.page_bytes.bytes() }
    }

    /// Two pages that are as large as this one together.
    pub(super) fn halves(self) -> (Self, Self) {
        let (events, bytes) = (self.events / 2, self.bytes / 2);
        (Self { events, bytes }, Self { events: self.events - events, bytes })
    }

    /// Reads a page step by step: `read` gets where to begin and how many events are wanted. `next` says where the event
    /// after the one at a position is looked for.
    ///
    /// The page ends with the event that reaches its bytes, so it has one at least and reading goes on.
    pub(super) async fn read<F: Future<Output = Result<Page, ReadError>>>(
        self,
        from: Position,
        next: fn(Position) -> Position,
        mut read: impl FnMut(Position, usize) -> F,
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
            while let Some((pos, event)) = events.next() {
                bytes += size_bytes(&event);
                page.events.push((pos, event));
                if bytes >= self.bytes {
                    if events.len() > 0 {
                        page.next = Some(next(pos));
                    }
                    return Ok(page);
                }
            }
            // Fewer than asked for, and more to come: as many were looked at as may be.
            if found < count {
                break;
            }
        }
        Ok(page)
    }
}

/// Where reading back goes on after the event at a position.
pub(super) fn back(pos: Position) -> Position {
    Position(pos.0 - 1)
}

/// Where reading forward goes on after the event at a position.
pub(super) fn forward(pos: Position) -> Position {
    pos
}

/// About how many bytes an event takes in an answer.
pub(super) fn size_bytes(event: &StoredEvent) -> usize {
    let replaced = event.replaces.as_ref().map_or(0, |replaced| replaced.content.get().len());
    let redaction = event.redacted_because.as_ref().map_or(0, |redaction| redaction.pdu.json.len());
    event.pdu.json.len() + replaced + redaction
}

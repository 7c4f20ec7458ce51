//! Pages of a room's events: of its timeline, or of the events that relate to another one.
//!
//! Promise: a page is bounded in events and in bytes, and so is what is read for it. A thousand events of the largest
//! size would make an answer of 64 MB.

use std::collections::HashSet;

use super::{
    relations::{Related, Relations},
    scan::{MAX_SCANNED, Scan},
    timeline::TimelineEvent,
    viewer::Viewer,
};
use crate::{
    config::Limits,
    room::{Room, Rooms, event::StoredEvent},
    store::{Error, EventNid, TimelinePlace},
};

/// Events that are read at once. Their bytes are counted only when they are in memory: at most 6.5 MB.
const STEP: usize = 100;

/// The places to read, and the direction.
#[derive(Debug, Clone, Copy)]
pub enum PageRange {
    /// From `from` (inclusive) back to `until` (exclusive), newest first.
    Back { from: TimelinePlace, until: TimelinePlace },
    /// From `after` (exclusive) forward to `upto` (inclusive), oldest first.
    Forward { after: TimelinePlace, upto: TimelinePlace },
}

impl PageRange {
    /// The place where reading starts.
    pub fn start(self) -> TimelinePlace {
        match self {
            Self::Back { from, .. } => from,
            Self::Forward { after, .. } => after,
        }
    }

    /// The same range, read from `start` on.
    #[must_use]
    pub(in crate::room) fn starting_at(self, start: TimelinePlace) -> Self {
        match self {
            Self::Back { until, .. } => Self::Back { from: start, until },
            Self::Forward { upto, .. } => Self::Forward { after: start, upto },
        }
    }

    /// The place where reading continues after the event at `place`.
    pub(in crate::room) fn beyond(self, place: TimelinePlace) -> TimelinePlace {
        match self {
            Self::Back { .. } => place.just_before(),
            Self::Forward { .. } => place,
        }
    }
}

/// The events that a page is made of.
#[derive(Debug, Clone, Copy)]
pub enum PageSource<'a> {
    /// The timeline: all of it, or only events to which other events relate.
    Timeline(Option<Related<'a>>),
    /// The events that relate to one event.
    Relations(&'a Relations<'a>),
}

/// A page of events.
#[derive(Debug, Default)]
pub struct Page {
    /// The events in the order of reading: newest first when going back.
    pub events: Vec<TimelineEvent>,
    /// The start of the next page. `None` if this is the last one.
    pub next: Option<TimelinePlace>,
}

/// The maximum size of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    events: usize,
    bytes: usize,
}

impl PageLimit {
    /// The size that a client wants, within the bounds of the configuration.
    pub fn new(limits: &Limits, wanted: u64) -> Self {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Self { events: wanted.min(limits.page_events as usize), bytes: limits.page_bytes.bytes() }
    }

    /// Splits the limit for two pages that together are as large as one.
    #[must_use]
    pub fn halves(self) -> (Self, Self) {
        let (events, bytes) = (self.events / 2, self.bytes / 2);
        (Self { events, bytes }, Self { events: self.events - events, bytes })
    }
}

impl Rooms {
    /// Reads a page of the events that the viewer is shown and that `wanted` accepts.
    ///
    /// The page ends with the event that reaches its byte limit. So it has at least one event, and reading makes
    /// progress.
    pub async fn page(
        &self,
        viewer: &Viewer<'_>,
        source: PageSource<'_>,
        range: PageRange,
        limit: PageLimit,
        wanted: impl Fn(&StoredEvent) -> bool,
    ) -> Result<Page, Error> {
        let accepts = |event: &StoredEvent| viewer.is_shown(event) && wanted(event);
        let mut page = Page { events: Vec::new(), next: Some(range.start()) };
        let mut bytes = 0;
        while let Some(start) = page.next
            && page.events.len() < limit.events
        {
            let count = (limit.events - page.events.len()).min(STEP);
            let rest = range.starting_at(start);
            let (part, _) = self.scan(&viewer.room, source, rest, (count, MAX_SCANNED), &accepts).await?;
            let (found, mut events) = (part.events.len(), part.events.into_iter());
            page.next = part.next;
            while let Some((place, event)) = events.next() {
                bytes += event.size_bytes();
                page.events.push((place, event));
                if bytes >= limit.bytes {
                    if events.len() > 0 {
                        page.next = Some(range.beyond(place));
                    }
                    return Ok(page);
                }
            }
            // Fewer events than asked for, with more to come: the scan has read as many events as it may.
            if found < count {
                break;
            }
        }
        Ok(page)
    }

    /// Reads at most `limit` events without the visibility check; `accepts` must do it. Reads no more than
    /// `max_scanned` events and relations, and also returns the number that it read.
    pub(crate) async fn scan(
        &self,
        room: &Room,
        source: PageSource<'_>,
        range: PageRange,
        (limit, max_scanned): (usize, usize),
        accepts: impl Fn(&StoredEvent) -> bool,
    ) -> Result<(Page, usize), Error> {
        let mut scan = Scan::new(range, limit, max_scanned);
        while let Some(mut count) = scan.next_count() {
            let mut events = match (source, scan.rest()) {
                (PageSource::Timeline(_), PageRange::Back { from, until }) => {
                    self.page_back(room, from, until, count).await?
                }
                (PageSource::Timeline(_), PageRange::Forward { after, upto }) => {
                    self.page_forward(room, after, upto, count).await?
                }
                (PageSource::Relations(relations), rest) => self.relating(room, relations, rest, count).await?,
            };
            let parents = match source {
                PageSource::Timeline(Some(related)) => {
                    let found = Box::pin(self.related_until(room, &events, related, scan.left(), &accepts)).await?;
                    Some(scan.settle(&mut events, &mut count, found))
                }
                PageSource::Timeline(None) | PageSource::Relations(_) => None,
            };
            let accepts = |event: &StoredEvent| accepts(event) && is_among(parents.as_ref(), event);
            if scan.take(events, count, accepts) {
                break;
            }
        }
        Ok(scan.end())
    }
}

fn is_among(parents: Option<&HashSet<EventNid>>, event: &StoredEvent) -> bool {
    parents.is_none_or(|parents| parents.contains(&event.nid))
}

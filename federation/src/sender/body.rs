//! The body of a transaction, as it is put together.

use std::{fmt::Write as _, sync::Arc};

use ruma::ServerName;

use super::{
    effect::Part,
    time::Now,
    transaction::{MAX_EDUS, MAX_PART_BYTES, MAX_PDUS},
};

/// The body of a transaction that is being put together.
pub(super) struct Body {
    /// The members before the PDUs.
    start: String,
    pdus: Vec<Arc<str>>,
    edus: Vec<Arc<str>>,
    bytes: usize,
    most_bytes: usize,
    most_parts: usize,
    parts: Vec<Part>,
    too_large: Vec<Part>,
}

const BETWEEN: &str = r#"],"edus":["#;
const END: &str = "]}";

impl Body {
    pub fn new(origin: &ServerName, now: Now, most_bytes: usize, most_parts: usize) -> Self {
        // A server name has no character that JSON escapes.
        let start = format!(r#"{{"origin":"{origin}","origin_server_ts":{},"pdus":["#, now.unix_ms);
        let bytes = start.len() + BETWEEN.len() + END.len();
        Self { start, pdus: vec![], edus: vec![], bytes, most_bytes, most_parts, parts: vec![], too_large: vec![] }
    }

    /// Adds a part if it fits. Returns false if it has to wait for the next transaction. A part that is too large for any is
    /// left out, and one of nothing is done.
    pub fn part(&mut self, part: Part, pdus: Vec<Arc<str>>, edus: Vec<Arc<str>>, most_bytes: usize) -> bool {
        let bytes = added(&pdus) + added(&edus);
        if pdus.is_empty() && edus.is_empty() {
            return true;
        }
        if pdus.iter().chain(&edus).any(|json| json.len() > MAX_PART_BYTES) {
            self.too_large.push(part);
            return true;
        }
        let most_bytes = if self.parts.is_empty() { self.most_bytes } else { most_bytes };
        let fits = self.parts.len() < self.most_parts
            && self.pdus.len() + pdus.len() <= MAX_PDUS
            && self.edus.len() + edus.len() <= MAX_EDUS
            && self.bytes + bytes <= most_bytes;
        if fits {
            self.bytes += bytes;
            self.pdus.extend(pdus);
            self.edus.extend(edus);
            self.parts.push(part);
        }
        fits
    }

    /// Adds an EDU that is in memory alone, if it fits.
    pub fn edu(&mut self, json: &Arc<str>) -> bool {
        let fits = self.edus.len() < MAX_EDUS && self.bytes + json.len() < self.most_bytes;
        if fits {
            self.bytes += json.len() + 1;
            self.edus.push(Arc::clone(json));
        }
        fits
    }

    /// The parts in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The number of EDUs.
    pub fn edus(&self) -> usize {
        self.edus.len()
    }

    /// Takes out the parts that are too large.
    pub fn take_too_large(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.too_large)
    }

    pub fn into_json(self) -> String {
        let mut json = String::with_capacity(self.bytes);
        json.push_str(&self.start);
        join(&mut json, &self.pdus);
        json.push_str(BETWEEN);
        join(&mut json, &self.edus);
        json.push_str(END);
        json
    }
}

/// The bytes of these and their commas.
fn added(parts: &[Arc<str>]) -> usize {
    parts.iter().map(|json| json.len() + 1).sum()
}

fn join(json: &mut String, parts: &[Arc<str>]) {
    for (index, part) in parts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing into a string does not fail.
        let _ = write!(json, "{comma}{part}");
    }
}

/// The EDUs of one change of devices that fit into a transaction, the last ones. Where one is missing, the chain of `prev_id`
/// is broken, so the destination fetches the list of devices.
pub(super) fn last_that_fit(mut edus: Vec<Arc<str>>) -> Vec<Arc<str>> {
    edus.retain(|json| json.len() < MAX_PART_BYTES);
    let mut bytes = 0;
    let fit = edus.iter().rev().take(MAX_EDUS).take_while(|json| {
        bytes += json.len() + 1;
        bytes <= MAX_PART_BYTES
    });
    let cut = edus.len() - fit.count();
    edus.drain(..cut);
    edus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_change_with_too_many_edus_the_last_ones_are_sent() {
        let cut = |sizes: &[usize]| {
            let edus = sizes.iter().map(|size| "x".repeat(*size).into()).collect();
            last_that_fit(edus).iter().map(|json| json.len()).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[]), [0; 0]);
        assert_eq!(cut(&[10, 20]), [10, 20]);
        assert_eq!(cut(&[7; 250]), [7; MAX_EDUS]);
        assert_eq!(cut(&[1, 40_000, 20_000, 5_000]), [1, 40_000, 20_000, 5_000]);
        assert_eq!(cut(&[1, 40_000, 20_000, 6_000]), [20_000, 6_000]);
        assert_eq!(cut(&[1, MAX_PART_BYTES, 2]), [1, 2]);
        assert_eq!(cut(&[1, MAX_PART_BYTES - 1]), [MAX_PART_BYTES - 1]);
    }
}

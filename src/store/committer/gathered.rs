//! The rows of a batch, by table, on their way into statements.

use std::collections::{HashMap, HashSet};

use crate::store::{
    Counters, Row, Value,
    rows::{Insert, MAX_CHUNK, OnConflict},
};

/// Binds a [`Value`] to a query.
macro_rules! bind {
    ($query:ident, $value:expr) => {
        match $value {
            Value::Int(value) => $query.bind(*value),
            Value::OptInt(value) => $query.bind(*value),
            Value::Text(value) => $query.bind(value.clone()),
            Value::OptText(value) => $query.bind(value.clone()),
            Value::Blob(value) => $query.bind(value.clone()),
            Value::OptBlob(value) => $query.bind(value.clone()),
            Value::Bool(value) => $query.bind(*value),
        }
    };
}
pub(super) use bind;

/// Rows by table, tables in the order of their first row.
#[derive(Default)]
pub(super) struct Gathered<'a> {
    order: Vec<&'static Insert>,
    by_table: HashMap<usize, Vec<&'a Row>>,
    /// The number of rows, without the one of the commit log.
    pub(super) rows: usize,
    has_log_row: bool,
}

impl<'a> Gathered<'a> {
    pub(super) fn add(&mut self, rows: &'a [Row]) {
        rows.iter().for_each(|row| self.push(row));
        self.rows += rows.len();
    }

    /// Adds the batch's row of the commit log, after all others.
    pub(super) fn add_log_row(&mut self, row: Option<&'a Row>) {
        if let Some(row) = row {
            self.push(row);
            self.has_log_row = true;
        }
    }

    fn push(&mut self, row: &'a Row) {
        let rows = self.by_table.entry(std::ptr::from_ref(row.insert).addr()).or_insert_with(|| {
            self.order.push(row.insert);
            Vec::new()
        });
        rows.push(row);
    }

    /// Counts the rows as written.
    pub(super) fn count(&self, counters: &Counters) {
        counters.add_rows_written(self.rows as u64);
        if self.has_log_row {
            counters.add_log_row();
        }
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = (&'static Insert, Vec<&'a Row>)> {
        self.order.iter().map(|insert| {
            let rows = &self.by_table[&std::ptr::from_ref::<Insert>(insert).addr()];
            (*insert, if insert.on_conflict == OnConflict::Replace { latest(rows) } else { rows.clone() })
        })
    }
}

/// Keeps the last one of rows with the same key: PostgreSQL replaces a row only once in a statement.
fn latest<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    let mut seen = HashSet::with_capacity(rows.len());
    let mut kept: Vec<&Row> = rows.iter().rev().filter(|row| seen.insert(key_bytes(row))).copied().collect();
    kept.reverse();
    kept
}

fn key_bytes(row: &Row) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    for value in row.key() {
        match value {
            Value::Int(n) => bytes.extend(n.to_le_bytes()),
            Value::Text(text) => {
                bytes.extend(text.as_bytes());
                bytes.push(0xff);
            }
            Value::Blob(blob) => bytes.extend(blob),
            Value::OptInt(_) | Value::OptText(_) | Value::OptBlob(_) | Value::Bool(_) => {
                debug_assert!(false, "a key column is a number, a text or a blob");
            }
        }
    }
    bytes
}

/// Cuts rows into pieces of powers of two, the largest first.
pub(super) fn chunks<'r, 'a>(mut rows: &'r [&'a Row]) -> impl Iterator<Item = &'r [&'a Row]> {
    std::iter::from_fn(move || {
        if rows.is_empty() {
            return None;
        }
        let size = (1 << rows.len().ilog2()).min(MAX_CHUNK);
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

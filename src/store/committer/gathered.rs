//! The rows of a batch, by table, on their way into statements.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, hash_map::Entry},
};

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

    /// The rows to be sent. There is one for each key where rows replace each other: PostgreSQL replaces a row only once
    /// in a statement.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&'static Insert, Vec<Cow<'a, Row>>)> {
        self.order.iter().map(|insert| {
            let rows = &self.by_table[&std::ptr::from_ref::<Insert>(insert).addr()];
            let rows = match insert.on_conflict {
                OnConflict::Fail | OnConflict::Keep => rows.iter().map(|row| Cow::Borrowed(*row)).collect(),
                OnConflict::Replace => latest(rows),
                OnConflict::Merge => merged(rows),
            };
            (*insert, rows)
        })
    }
}

/// Keeps the last one of rows with the same key.
fn latest<'a>(rows: &[&'a Row]) -> Vec<Cow<'a, Row>> {
    let mut seen = HashSet::with_capacity(rows.len());
    let last = rows.iter().rev().filter(|row| seen.insert(key_bytes(row)));
    let mut kept: Vec<_> = last.map(|row| Cow::Borrowed(*row)).collect();
    kept.reverse();
    kept
}

/// Makes one row of those with the same key.
fn merged<'a>(rows: &[&'a Row]) -> Vec<Cow<'a, Row>> {
    let mut places = HashMap::with_capacity(rows.len());
    let mut kept: Vec<Cow<'a, Row>> = Vec::with_capacity(rows.len());
    for row in rows {
        match places.entry(key_bytes(row)) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(Cow::Borrowed(row));
            }
            Entry::Occupied(place) => {
                let earlier = &mut kept[*place.get()];
                *earlier = Cow::Owned(earlier.merged(row));
            }
        }
    }
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
pub(super) fn chunks<'r, 'a>(mut rows: &'r [Cow<'a, Row>]) -> impl Iterator<Item = &'r [Cow<'a, Row>]> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    static REPLACED: Insert = Insert::new("replaced", &["a", "b"], 1, OnConflict::Replace, None);
    static MERGED: Insert = Insert::new("merged", &["a", "b", "c"], 1, OnConflict::Merge, None);

    fn values(rows: &[Row]) -> Vec<Vec<Value>> {
        let mut gathered = Gathered::default();
        gathered.add(rows);
        gathered.tables().flat_map(|(_, rows)| rows).map(|row| row.values.to_vec()).collect()
    }

    #[test]
    fn the_last_of_rows_that_replace_each_other_is_sent() {
        let row = |key: i64, b: Option<i64>| Row::new(&REPLACED, [key.into(), b.into()]);
        let sent = values(&[row(1, Some(10)), row(2, Some(20)), row(1, None)]);
        assert_eq!(sent, [[2.into(), Some(20).into()], [1.into(), Value::OptInt(None)]]);
    }

    #[test]
    fn rows_that_merge_are_sent_as_one() {
        let row = |key: i64, b: i64, c: Option<&str>| {
            Row::new(&MERGED, [key.into(), b.into(), c.map(Arc::<str>::from).into()])
        };
        let sent = values(&[
            row(1, 10, Some("tea")),
            row(2, 20, None),
            row(1, 11, None),
            row(2, 21, Some("")),
            row(1, 12, None),
        ]);
        let expected = |key: i64, b: i64, c: &str| [key.into(), b.into(), Value::from(Some(Arc::<str>::from(c)))];
        assert_eq!(sent, [expected(1, 12, "tea"), expected(2, 21, "")]);
    }
}

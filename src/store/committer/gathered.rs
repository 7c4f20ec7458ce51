//! The rows of a batch, by table, on their way into statements.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use sqlx::{Arguments, Encode, Type};

use crate::store::{
    Counters, Row, Value,
    pieces::Piece,
    rows::{Insert, MAX_CHUNK, OnConflict},
};

/// The number of tables for which there is room at once: a message has five, its row of the log one, a reply one more.
const USUAL_TABLES: usize = 8;

/// Rows by table, tables in the order of their first row.
#[derive(Default)]
pub(super) struct Gathered<'a> {
    order: Vec<&'static Insert>,
    /// The rows, each with the index of its table.
    rows: Vec<(usize, &'a Row)>,
    has_log_row: bool,
}

impl<'a> Gathered<'a> {
    pub(super) fn add(&mut self, rows: &'a [Row]) {
        // One more for the row of the log.
        self.rows.reserve(rows.len() + 1);
        if self.order.is_empty() {
            self.order.reserve(USUAL_TABLES);
        }
        rows.iter().for_each(|row| self.push(row));
    }

    /// Adds the batch's row of the commit log, after all others.
    pub(super) fn add_log_row(&mut self, row: Option<&'a Row>) {
        if let Some(row) = row {
            self.push(row);
            self.has_log_row = true;
        }
    }

    fn push(&mut self, row: &'a Row) {
        // A batch has rows of a dozen tables at most, and those of a message come first.
        let index = self.order.iter().position(|insert| *insert == row.insert).unwrap_or_else(|| {
            self.order.push(row.insert);
            self.order.len() - 1
        });
        self.rows.push((index, row));
    }

    /// The number of rows, without the one of the commit log.
    pub(super) fn len(&self) -> usize {
        self.rows.len() - usize::from(self.has_log_row)
    }

    /// Counts the rows as written.
    pub(super) fn count(&self, counters: &Counters) {
        counters.add_rows_written(self.len() as u64);
        if self.has_log_row {
            counters.add_log_row();
        }
    }

    /// The rows to be sent, table by table. There is one for each key where rows replace each other: PostgreSQL replaces a row
    /// only once in a statement. Of a table, those whose keys are new come first.
    pub(super) fn rows(&self) -> Vec<Cow<'a, Row>> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|(table, _)| *table);
        let mut sent = Vec::with_capacity(rows.len());
        for of_table in rows.chunk_by(|(a, _), (b, _)| a == b) {
            let from = sent.len();
            let replaces = matches!(self.order[of_table[0].0].on_conflict, OnConflict::Replace | OnConflict::Merge);
            // Rows of new keys have different keys.
            if replaces && of_table.len() > 1 && of_table.iter().any(|(_, row)| !row.is_new) {
                fold(of_table, &mut sent);
                sent[from..].sort_by_key(|row| !row.is_new);
            } else {
                sent.extend(of_table.iter().map(|(_, row)| Cow::Borrowed(*row)));
            }
        }
        sent
    }
}

/// Makes one row of those with the same key.
fn fold<'a>(rows: &[(usize, &'a Row)], sent: &mut Vec<Cow<'a, Row>>) {
    let mut places = HashMap::with_capacity(rows.len());
    for (_, row) in rows {
        match places.entry(key_bytes(row)) {
            Entry::Vacant(place) => {
                place.insert(sent.len());
                sent.push(Cow::Borrowed(row));
            }
            Entry::Occupied(place) => {
                let earlier = &mut sent[*place.get()];
                *earlier = Cow::Owned(earlier.then(row));
            }
        }
    }
}

/// Cuts the rows of [`Gathered::rows`] into statements, one for each table and manner of writing.
pub(super) fn pieces(rows: &[Cow<'_, Row>]) -> Vec<Piece> {
    let is_alike = |a: &Cow<'_, Row>, b: &Cow<'_, Row>| a.insert == b.insert && a.is_new == b.is_new;
    let mut pieces = Vec::with_capacity(USUAL_TABLES);
    pieces.extend(rows.chunk_by(is_alike).map(|rows| Piece::of(rows[0].insert, rows, rows[0].is_new)));
    pieces
}

/// The values of rows that were cut into pieces, in the order of their places in the statements.
pub(super) fn values<'r>(pieces: &'r [Piece], rows: &'r [Cow<'_, Row>]) -> impl Iterator<Item = &'r Value> + Clone {
    let each = pieces.iter().flat_map(|piece| std::iter::repeat_n(piece, piece.rows));
    each.zip(rows).flat_map(|(piece, row)| piece.values(row))
}

/// Values as the arguments of a query.
pub(super) fn arguments<'v, A>(values: impl Iterator<Item = &'v Value> + Clone) -> Result<A, sqlx::Error>
where
    A: Arguments + Default,
    i64: for<'q> Encode<'q, A::Database> + Type<A::Database>,
    bool: for<'q> Encode<'q, A::Database> + Type<A::Database>,
    Arc<str>: for<'q> Encode<'q, A::Database> + Type<A::Database>,
    Vec<u8>: for<'q> Encode<'q, A::Database> + Type<A::Database>,
    Option<i64>: for<'q> Encode<'q, A::Database> + Type<A::Database>,
    Option<Arc<str>>: for<'q> Encode<'q, A::Database> + Type<A::Database>,
    Option<Vec<u8>>: for<'q> Encode<'q, A::Database> + Type<A::Database>,
{
    let mut arguments = A::default();
    arguments.reserve(values.clone().count(), values.clone().map(Value::size).sum());
    for value in values {
        let added = match value {
            Value::Int(value) => arguments.add(*value),
            Value::OptInt(value) => arguments.add(*value),
            Value::Text(value) => arguments.add(Arc::clone(value)),
            Value::OptText(value) => arguments.add(value.clone()),
            Value::Blob(value) => arguments.add(value.clone()),
            Value::OptBlob(value) => arguments.add(value.clone()),
            Value::Bool(value) => arguments.add(*value),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
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

/// Cuts rows of one table into chunks of powers of two, the largest first.
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

    fn sent(rows: &[Row]) -> Vec<(Vec<Value>, bool)> {
        let mut gathered = Gathered::default();
        gathered.add(rows);
        gathered.rows().into_iter().map(|row| (row.values.to_vec(), row.is_new)).collect()
    }

    fn replaced(key: i64, b: Option<i64>) -> Row {
        Row::new(&REPLACED, [key.into(), b.into()])
    }

    fn merged(key: i64, b: i64, c: Option<&str>) -> Row {
        Row::new(&MERGED, [key.into(), b.into(), c.map(Arc::<str>::from).into()])
    }

    #[test]
    fn the_last_of_rows_that_replace_each_other_is_sent() {
        let sent = sent(&[replaced(1, Some(10)), replaced(2, Some(20)), replaced(1, None)]);
        let expected = [(vec![1.into(), Value::OptInt(None)], false), (vec![2.into(), Some(20).into()], false)];
        assert_eq!(sent, expected);
    }

    #[test]
    fn rows_that_merge_are_sent_as_one() {
        let sent = sent(&[
            merged(1, 10, Some("tea")),
            merged(2, 20, None),
            merged(1, 11, None),
            merged(2, 21, Some("")),
            merged(1, 12, None),
        ]);
        let expected =
            |key: i64, b: i64, c: &str| (vec![key.into(), b.into(), Value::from(Some(Arc::<str>::from(c)))], false);
        assert_eq!(sent, [expected(1, 12, "tea"), expected(2, 21, "")]);
    }

    #[test]
    fn what_follows_a_row_of_a_new_key_is_of_a_new_key_too() {
        let sent = sent(&[replaced(1, Some(10)), replaced(2, Some(20)).of_new_key(), replaced(2, Some(21))]);
        let expected = [(vec![2.into(), Some(21).into()], true), (vec![1.into(), Some(10).into()], false)];
        assert_eq!(sent, expected);
    }

    #[test]
    fn each_piece_has_the_values_of_its_rows() {
        let rows = [merged(1, 10, Some("tea")).of_new_key(), replaced(5, Some(50)), merged(2, 20, None)];
        let mut gathered = Gathered::default();
        gathered.add(&rows);
        let rows = gathered.rows();
        let pieces = pieces(&rows);
        assert_eq!(pieces.iter().map(|piece| piece.rows).collect::<Vec<_>>(), [1, 1, 1]);
        let values: Vec<_> = values(&pieces, &rows).cloned().collect();
        let tea = Value::from(Some(Arc::<str>::from("tea")));
        // The second row changes one that is there, and names its key last.
        assert_eq!(values, [1.into(), 10.into(), tea, 20.into(), 2.into(), 5.into(), Some(50).into()]);
    }
}

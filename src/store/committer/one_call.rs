//! A small batch of nothing but rows, committed in one call: `BEGIN`, the rows, the slot and `COMMIT` as one text.
//!
//! A text depends only on the tables and their numbers of rows, so the usual texts are made once and remembered, here
//! and by the database as prepared statements. A test prepares them on both engines.

use std::{collections::HashMap, sync::Arc};

use sqlx::AssertSqlSafe;

use super::{
    QueuedWrite, Work,
    batch::MOVE_SLOT,
    gathered::{Gathered, bind},
    logged::{Frame, log_bytes, touches_of},
};
use crate::store::{
    Conn, Error, Value,
    conn::{Link, at_writer},
    rows::Insert,
};

/// The most plain rows of a batch that goes out as one call: twelve messages. Step by step, a batch takes a dozen calls, each
/// with two thread hops or a round trip. The prepared statements of all shapes take memory, which grows with the square of
/// this number.
const ONE_CALL_ROWS: usize = 64;

/// The number of texts of small batches that are remembered.
const MAX_TEXTS: usize = 256;

/// The shape of a batch of plain rows: the number of rows for each table.
type Shape = Vec<(usize, usize)>;

/// The texts that were sent before.
#[derive(Default)]
pub(super) struct Texts(HashMap<Shape, Arc<str>>);

impl Texts {
    /// Commits a small batch of nothing but rows. Returns the bytes that it added to the log, or `None` if this
    /// batch needs the long way; nothing was done then.
    pub(super) async fn commit(
        &mut self,
        conn: &mut Conn<'_>,
        batch: &[QueuedWrite],
        frame: Frame<'_>,
    ) -> Result<Option<u64>, Error> {
        let mut gathered = Gathered::default();
        for queued in batch {
            let Work::Write(write) = &queued.work else {
                return Ok(None);
            };
            gathered.add(&write.rows);
        }
        if gathered.rows > ONE_CALL_ROWS {
            return Ok(None);
        }
        // The last table of every text, so that texts of the same tables begin alike.
        let log_row = frame.log_row(batch.iter().flat_map(touches_of).collect());
        gathered.add_log_row(log_row.as_ref());
        let tables: Vec<_> = gathered.tables().collect();
        let shape: Shape =
            tables.iter().map(|(insert, rows)| (std::ptr::from_ref::<Insert>(insert).addr(), rows.len())).collect();
        let text = self.text(shape, matches!(conn.link, Link::Postgres(_)), || {
            tables.iter().map(|(insert, rows)| (*insert, rows.len())).collect()
        });
        let slot_values = [Value::Int(frame.epoch), Value::Int(frame.last.0)];
        let values =
            tables.iter().flat_map(|(_, rows)| rows.iter().flat_map(|row| row.values.iter())).chain(&slot_values);
        at_writer!(conn, db => {
            let mut query = sqlx::query(AssertSqlSafe(text));
            for value in values {
                query = bind!(query, value);
            }
            query.execute(&mut **db).await.map(|_| ())
        })?;
        gathered.count(conn.counters);
        Ok(Some(log_bytes(log_row.as_ref())))
    }

    fn text(
        &mut self,
        shape: Shape,
        postgres: bool,
        inserts: impl FnOnce() -> Vec<(&'static Insert, usize)>,
    ) -> Arc<str> {
        if let Some(text) = self.0.get(&shape) {
            return Arc::clone(text);
        }
        let inserts = inserts();
        let text: Arc<str> = if postgres { postgres_text(&inserts) } else { sqlite_text(&inserts) }.into();
        if self.0.len() >= MAX_TEXTS {
            self.0.clear();
        }
        self.0.insert(shape, Arc::clone(&text));
        text
    }
}

/// SQLite takes several statements at once, and counts the places of `?` through all of them.
pub(in crate::store) fn sqlite_text(inserts: &[(&'static Insert, usize)]) -> String {
    let mut text = String::from("BEGIN IMMEDIATE; ");
    for (insert, rows) in inserts {
        text.push_str(&insert.render(*rows, None, &mut 0));
        text.push_str("; ");
    }
    text.push_str(&move_slot(|_| "?".to_owned()));
    text.push_str("; COMMIT");
    text
}

/// PostgreSQL takes one statement, which is a transaction by itself and may hold others.
pub(in crate::store) fn postgres_text(inserts: &[(&'static Insert, usize)]) -> String {
    let mut text = String::from("WITH ");
    let mut number = 0;
    for (index, (insert, rows)) in inserts.iter().enumerate() {
        text.push_str(&format!("w{index} AS ({}), ", insert.render(*rows, Some('$'), &mut number)));
    }
    text.push_str(&format!("slot AS ({}) SELECT 1", move_slot(|place| format!("${}", number + place))));
    text
}

/// [`MOVE_SLOT`] with its places, which come once each and in order, written another way.
fn move_slot(mut written: impl FnMut(usize) -> String) -> String {
    let mut parts = MOVE_SLOT.text().split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        // After the sign comes one digit.
        text.push_str(&written(index + 1));
        text.push_str(&part[1..]);
    }
    text
}

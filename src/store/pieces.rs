//! The statements that write rows, by what is known of the rows: a row whose key is new needs no look for a conflict, and a
//! column that no row gives needs no place.

use super::{
    Row, Value,
    rows::{Insert, OnConflict},
};

/// The way in which rows get into their table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Manner {
    /// Inserts rows whose keys are new.
    New,
    /// Inserts rows, and handles taken keys as the table says.
    Stated,
    /// Changes one row that is there.
    Update,
}

/// Rows of one table that go into one statement, without their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store) struct Piece {
    pub(in crate::store) insert: &'static Insert,
    pub(in crate::store) rows: usize,
    manner: Manner,
    /// The columns that are written, one bit each.
    columns: u32,
}

impl Piece {
    /// The piece that suits any rows of a table.
    pub(in crate::store) fn of_any(insert: &'static Insert, rows: usize) -> Self {
        Self { insert, rows, manner: Manner::Stated, columns: u32::MAX }
    }

    /// The piece for rows of one table, whose keys differ. Either all keys are new, or the piece is for any key.
    pub(in crate::store) fn of<R: AsRef<Row>>(insert: &'static Insert, rows: &[R], is_new: bool) -> Self {
        let any = Self::of_any(insert, rows.len());
        match insert.on_conflict {
            OnConflict::Fail | OnConflict::Keep => any,
            OnConflict::Replace if is_new => Self { manner: Manner::New, ..any },
            OnConflict::Replace => any,
            OnConflict::Merge => {
                let key = (1 << insert.key_columns) - 1;
                let columns = rows.iter().fold(key, |columns, row| columns | row.as_ref().given());
                // An update needs something to set.
                let columns = if columns == key { u32::MAX } else { columns };
                let manner = match (is_new, rows.len()) {
                    (true, _) => Manner::New,
                    (false, 1) => Manner::Update,
                    (false, _) => Manner::Stated,
                };
                Self { manner, columns, ..any }
            }
        }
    }

    fn has(self, column: usize) -> bool {
        self.columns & 1 << column != 0
    }

    /// The values of a row in the order of their places.
    pub(in crate::store) fn values(self, row: &Row) -> impl Iterator<Item = &Value> + Clone {
        let (key, others) = row.values.split_at(self.insert.key_columns);
        let others = others.iter().enumerate().filter(move |(index, _)| self.has(self.insert.key_columns + index));
        let others = others.map(|(_, value)| value);
        // An update names the key last.
        let (first, last) = if self.manner == Manner::Update { (&[][..], key) } else { (key, &[][..]) };
        first.iter().chain(others).chain(last)
    }

    /// The statement. With a `sign`, places are numbered on from `number`; without one, each is a `?`.
    pub(in crate::store) fn render(self, sign: Option<char>, number: &mut usize) -> String {
        let Insert { table, key_columns, on_conflict, .. } = *self.insert;
        let columns = || self.insert.columns.iter().enumerate().filter(|(index, _)| self.has(*index)).map(|(_, c)| *c);
        let mut place = || {
            *number += 1;
            sign.map_or_else(|| "?".to_owned(), |sign| format!("{sign}{number}"))
        };
        let joined = |parts: Vec<String>, by: &str| parts.join(by);
        if self.manner == Manner::Update {
            let sets = columns().skip(key_columns).map(|c| format!("{c} = {}", place())).collect();
            let sets = joined(sets, ", ");
            let key = columns().take(key_columns).map(|c| format!("{c} = {}", place())).collect();
            return format!("UPDATE {table} SET {sets} WHERE {}", joined(key, " AND "));
        }
        let row = |_| format!("({})", joined(columns().map(|_| place()).collect(), ", "));
        let values = joined((0..self.rows).map(row).collect(), ", ");
        let update = |set: &dyn Fn(&str) -> String| {
            let key: Vec<_> = columns().take(key_columns).collect();
            let sets = joined(columns().skip(key_columns).map(set).collect(), ", ");
            format!(" ON CONFLICT ({}) DO UPDATE SET {sets}", key.join(", "))
        };
        let conflict = match on_conflict {
            _ if self.manner == Manner::New => String::new(),
            OnConflict::Fail => String::new(),
            OnConflict::Keep => " ON CONFLICT DO NOTHING".to_owned(),
            OnConflict::Replace => update(&|c| format!("{c} = excluded.{c}")),
            OnConflict::Merge => update(&|c| format!("{c} = COALESCE(excluded.{c}, {table}.{c})")),
        };
        let columns: Vec<_> = columns().collect();
        format!("INSERT INTO {table} ({}) VALUES {values}{conflict}", columns.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    static REPLACED: Insert = Insert::new("r", &["a", "b"], 1, OnConflict::Replace, None);
    static MERGED: Insert = Insert::new("m", &["a", "b", "c"], 1, OnConflict::Merge, None);

    fn merged(a: i64, b: Option<i64>, c: Option<&str>) -> Row {
        Row::new(&MERGED, [a.into(), b.into(), c.map(Arc::<str>::from).into()])
    }

    #[test]
    fn a_piece_is_rendered_for_both_engines() {
        let (one, two) = (Piece::of_any(&REPLACED, 1), Piece::of_any(&REPLACED, 2));
        assert_eq!(
            one.render(None, &mut 0),
            "INSERT INTO r (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b"
        );
        assert_eq!(
            two.render(Some('$'), &mut 0),
            "INSERT INTO r (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT (a) DO UPDATE SET b = excluded.b"
        );
    }

    #[test]
    fn a_new_key_meets_no_conflict() {
        let row = [Row::new(&REPLACED, [1.into(), 2.into()])];
        let of = |is_new| Piece::of(&REPLACED, &row, is_new).render(None, &mut 0);
        assert_eq!(of(true), "INSERT INTO r (a, b) VALUES (?, ?)");
        assert!(of(false).ends_with("DO UPDATE SET b = excluded.b"));
    }

    #[test]
    fn a_column_without_values_is_left_out() {
        let rendered = |rows: &[Row], is_new| Piece::of(&MERGED, rows, is_new).render(Some('$'), &mut 4);
        let row = merged(1, Some(2), None);
        assert_eq!(rendered(std::slice::from_ref(&row), false), "UPDATE m SET b = $5 WHERE a = $6");
        assert_eq!(rendered(std::slice::from_ref(&row), true), "INSERT INTO m (a, b) VALUES ($5, $6)");
        assert_eq!(
            rendered(&[row, merged(2, None, Some("tea"))], false),
            "INSERT INTO m (a, b, c) VALUES ($5, $6, $7), ($8, $9, $10) ON CONFLICT (a) DO UPDATE SET \
            b = COALESCE(excluded.b, m.b), c = COALESCE(excluded.c, m.c)"
        );
        assert_eq!(rendered(&[merged(1, None, None)], false), "UPDATE m SET b = $5, c = $6 WHERE a = $7");
    }

    #[test]
    fn values_come_in_the_order_of_their_places() {
        let row = merged(1, None, Some("tea"));
        let values = |is_new| -> Vec<Value> {
            let piece = Piece::of(&MERGED, std::slice::from_ref(&row), is_new);
            piece.values(&row).cloned().collect()
        };
        let (key, tea) = (Value::Int(1), Value::from(Some(Arc::<str>::from("tea"))));
        assert_eq!(values(true), [key.clone(), tea.clone()]);
        assert_eq!(values(false), [tea, key]);
    }
}

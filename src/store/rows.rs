//! Rows to be written: plain data that the committer gathers from many writers into few statements.

use std::sync::{Arc, OnceLock};

use super::log::Touch;

/// The value of one column. NULL has a type because PostgreSQL needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Int(i64),
    OptInt(Option<i64>),
    Text(Arc<str>),
    OptText(Option<Arc<str>>),
    Blob(Vec<u8>),
    OptBlob(Option<Vec<u8>>),
    Bool(bool),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::OptInt(value)
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<Arc<str>> for Value {
    fn from(value: Arc<str>) -> Self {
        Self::Text(value)
    }
}
impl From<Option<Arc<str>>> for Value {
    fn from(value: Option<Arc<str>>) -> Self {
        Self::OptText(value)
    }
}
impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}
impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::OptBlob(value)
    }
}
macro_rules! from_nid {
    ($($name:ident),+) => {$(
        impl From<super::$name> for Value {
            fn from(id: super::$name) -> Self { Self::Int(id.0) }
        }
        impl From<Option<super::$name>> for Value {
            fn from(id: Option<super::$name>) -> Self { Self::OptInt(id.map(|id| id.0)) }
        }
    )+};
}
from_nid!(Position, EventNid, SideNid, RoomNid, UserNid, ServerNid, DeviceNid, KeyNid, TypeNid, FilterNid);

impl Value {
    fn is_null(&self) -> bool {
        matches!(self, Self::OptInt(None) | Self::OptText(None) | Self::OptBlob(None))
    }
}

/// The largest number of rows in one statement: a power of two whose variables stay far below SQLite's 32,766.
pub(super) const MAX_CHUNK: usize = 64;

/// The handling of a row whose key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Fails: the key was meant to be new.
    Fail,
    /// Keeps the row that is there.
    Keep,
    /// Replaces all columns but the key.
    Replace,
    /// Replaces the columns for which the row has a value. NULL leaves a column as it is, so no column can be set back to
    /// NULL.
    Merge,
}

/// The insert statements of one table. They come in sizes of powers of two, so that few texts are prepared.
#[derive(Debug)]
pub struct Insert {
    pub table: &'static str,
    pub columns: &'static [&'static str],
    /// The number of leading columns that are the key.
    pub key_columns: usize,
    pub on_conflict: OnConflict,
    /// Recognizes the touches of this table, if somebody follows the table through the commit log.
    followed: Option<fn(&Touch) -> bool>,
    texts: [[OnceLock<String>; 7]; 2],
}

impl Insert {
    pub const fn new(
        table: &'static str,
        columns: &'static [&'static str],
        key_columns: usize,
        on_conflict: OnConflict,
        followed: Option<fn(&Touch) -> bool>,
    ) -> Self {
        let texts = [const { [const { OnceLock::new() }; 7] }; 2];
        Self { table, columns, key_columns, on_conflict, followed, texts }
    }

    /// The statement for `2^size_log2` rows. SQLite gets `?`, so that several statements can share one list of values;
    /// PostgreSQL gets `$1`, `$2`, ….
    pub(super) fn text(&'static self, size_log2: usize, numbered: bool) -> &'static str {
        let sign = numbered.then_some('$');
        self.texts[usize::from(numbered)][size_log2].get_or_init(|| self.render(1 << size_log2, sign, &mut 0))
    }

    /// The statement for `rows` rows. With a `sign`, places are numbered on from `number`.
    pub(super) fn render(&self, rows: usize, sign: Option<char>, number: &mut usize) -> String {
        let columns = self.columns.join(", ");
        let mut place = || {
            *number += 1;
            sign.map_or_else(|| "?".to_owned(), |sign| format!("{sign}{number}"))
        };
        let values = (0..rows)
            .map(|_| format!("({})", (0..self.columns.len()).map(|_| place()).collect::<Vec<_>>().join(", ")))
            .collect::<Vec<_>>()
            .join(", ");
        let update = |set: &dyn Fn(&&str) -> String| {
            let (key, others) = self.columns.split_at(self.key_columns);
            let sets: Vec<_> = others.iter().map(set).collect();
            format!(" ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), sets.join(", "))
        };
        let conflict = match self.on_conflict {
            OnConflict::Fail => String::new(),
            OnConflict::Keep => " ON CONFLICT DO NOTHING".to_owned(),
            OnConflict::Replace => update(&|c| format!("{c} = excluded.{c}")),
            OnConflict::Merge => update(&|c| format!("{c} = COALESCE(excluded.{c}, {}.{c})", self.table)),
        };
        format!("INSERT INTO {} ({columns}) VALUES {values}{conflict}", self.table)
    }
}

/// One row on its way to a table.
#[derive(Debug, Clone)]
pub struct Row {
    pub(super) insert: &'static Insert,
    pub(super) values: Box<[Value]>,
}

impl Row {
    /// A row with the values of all columns, in their order.
    pub(super) fn new<const N: usize>(insert: &'static Insert, values: [Value; N]) -> Self {
        debug_assert_eq!(N, insert.columns.len(), "{} has {} columns", insert.table, insert.columns.len());
        Self { insert, values: values.into() }
    }

    /// Returns whether a text of the row holds a NUL, which PostgreSQL cannot store.
    pub(super) fn holds_nul(&self) -> bool {
        self.values.iter().any(|value| match value {
            Value::Text(text) | Value::OptText(Some(text)) => text.contains('\0'),
            _ => false,
        })
    }

    /// Panics in debug builds if somebody follows the row's table and none of `touches` is of this table.
    pub(super) fn check_touched<'a>(&self, mut touches: impl Iterator<Item = &'a Touch>) {
        if cfg!(debug_assertions) {
            let is_touched = self.insert.followed.is_none_or(|is_of_table| touches.any(is_of_table));
            assert!(is_touched, "a write to {} without a touch of it", self.insert.table);
        }
    }

    pub(super) fn key(&self) -> &[Value] {
        &self.values[..self.insert.key_columns]
    }

    /// The row that leaves what this row and then `later` leave, which has the same key. For [`OnConflict::Merge`].
    pub(super) fn merged(&self, later: &Self) -> Self {
        let value = |(earlier, later): (&Value, &Value)| if later.is_null() { earlier.clone() } else { later.clone() };
        Self { insert: self.insert, values: self.values.iter().zip(&later.values).map(value).collect() }
    }
}

/// A text column. Shared, so that a text that memory keeps is not copied for its row.
pub type Text = Arc<str>;

/// The name of a column whose field is `field`: a field that is called `type` has a `r#` before it.
pub(super) const fn column_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Declares the inserts of a file, and lists them in `INSERTS` for the test that prepares them all.
///
/// Each has a struct with a field for each column, which makes the rows of the table. So a value cannot get into another
/// column, and a column that is added must be given everywhere.
///
/// A table is `followed by` the kind of [`Touch`] without which none of its rows may be written, or `not followed`:
/// nothing in memory and no reader of the commit log depends on its rows.
macro_rules! inserts {
    ($($(#[$meta:meta])* $name:ident: $struct:ident = $table:literal ($($column:ident: $type:ty),+)
        key $key:literal $conflict:ident, $($followed:ident)+;)+) => {
        $(
        pub(in crate::store) static $name: $crate::store::Insert = $crate::store::Insert::new(
            $table, &[$($crate::store::rows::column_name(stringify!($column))),+], $key,
            $crate::store::rows::OnConflict::$conflict, $crate::store::rows::inserts!(@ $($followed)+));

        #[doc = concat!("The columns of a row of `", $table, "`.")]
        ///
        $(#[$meta])*
        pub(crate) struct $struct {
            $(pub(crate) $column: $type,)+
        }

        impl $struct {
            pub(crate) fn row(self) -> $crate::store::Row {
                $crate::store::Row::new(&$name, [$(self.$column.into()),+])
            }
        }
        )+

        #[cfg(test)]
        pub(in crate::store) const INSERTS: &[&$crate::store::Insert] = &[$(&$name),+];
    };
    (@ not followed) => { None };
    (@ followed by $kind:ident) => {
        Some(|touch: &$crate::store::log::Touch| matches!(touch, $crate::store::log::Touch::$kind { .. }))
    };
}
pub(crate) use inserts;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_is_rendered_for_both_engines() {
        static T: Insert = Insert::new("t", &["a", "b"], 1, OnConflict::Replace, None);
        assert_eq!(T.text(0, false), "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b");
        assert_eq!(
            T.text(1, true),
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT (a) DO UPDATE SET b = excluded.b"
        );
        static M: Insert = Insert::new("m", &["a", "b"], 1, OnConflict::Merge, None);
        assert_eq!(
            M.text(0, true),
            "INSERT INTO m (a, b) VALUES ($1, $2) ON CONFLICT (a) DO UPDATE SET b = COALESCE(excluded.b, m.b)"
        );
    }
}

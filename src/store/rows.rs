//! Rows to be written: plain data that the committer gathers from many writers into few statements.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use super::{log::Touch, pieces::Piece};

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

    /// About the number of bytes that the value takes in a message to the database.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Int(_) | Self::OptInt(_) | Self::Bool(_) => size_of::<i64>(),
            Self::Text(text) | Self::OptText(Some(text)) => text.len(),
            Self::Blob(blob) | Self::OptBlob(Some(blob)) => blob.len(),
            Self::OptText(None) | Self::OptBlob(None) => 0,
        }
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
    /// NULL. A row whose key is new says so ([`Row::of_new_key`]); for any other, there is a row.
    Merge,
}

/// The insert statements of one table. They come in sizes of powers of two, so that few texts are prepared. Two are equal
/// if they are the same object.
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
        // A piece has one bit for each column.
        assert!(columns.len() <= 32);
        let texts = [const { [const { OnceLock::new() }; 7] }; 2];
        Self { table, columns, key_columns, on_conflict, followed, texts }
    }

    /// The statement for `2^size_log2` rows. SQLite gets `?`, so that several statements can share one list of values;
    /// PostgreSQL gets `$1`, `$2`, ….
    pub(super) fn text(&'static self, size_log2: usize, numbered: bool) -> &'static str {
        let sign = numbered.then_some('$');
        self.texts[usize::from(numbered)][size_log2]
            .get_or_init(|| Piece::of_any(self, 1 << size_log2).render(sign, &mut 0))
    }
}

impl PartialEq for Insert {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Insert {}

impl Hash for Insert {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::hash(self, state);
    }
}

/// One row on its way to a table.
#[derive(Debug, Clone)]
pub struct Row {
    pub(super) insert: &'static Insert,
    pub(super) values: Box<[Value]>,
    /// Set if no row in the database has the key.
    pub(super) is_new: bool,
}

impl AsRef<Self> for Row {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Row {
    /// A row with the values of all columns, in their order.
    pub(super) fn new<const N: usize>(insert: &'static Insert, values: [Value; N]) -> Self {
        debug_assert_eq!(N, insert.columns.len(), "{} has {} columns", insert.table, insert.columns.len());
        Self { insert, values: values.into(), is_new: false }
    }

    /// Says that no row in the database has the key, so none is looked for.
    #[must_use]
    pub(crate) fn of_new_key(self) -> Self {
        Self { is_new: true, ..self }
    }

    /// The columns that have a value, one bit each.
    pub(super) fn given(&self) -> u32 {
        let given = self.values.iter().enumerate().filter(|(_, value)| !value.is_null());
        given.fold(0, |columns, (index, _)| columns | 1 << index)
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

    /// The row that leaves what this row and then `later` leave, which has the same key.
    pub(super) fn then(&self, later: &Self) -> Self {
        let is_merged = self.insert.on_conflict == OnConflict::Merge;
        let value = |(earlier, later): (&Value, &Value)| {
            if is_merged && later.is_null() { earlier.clone() } else { later.clone() }
        };
        let values = self.values.iter().zip(&later.values).map(value).collect();
        Self { insert: self.insert, values, is_new: self.is_new }
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
/// A table is `followed by` the kind of [`Touch`] without which none of its rows may be written (or one kind `or` another),
/// or `not followed`: nothing in memory and no reader of the commit log depends on its rows.
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
    (@ followed by $kind:ident $(or $other:ident)*) => {
        Some(|touch: &$crate::store::log::Touch| matches!(
            touch, $crate::store::log::Touch::$kind { .. } $(| $crate::store::log::Touch::$other { .. })*
        ))
    };
}
pub(crate) use inserts;

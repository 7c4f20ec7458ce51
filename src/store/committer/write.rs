//! A write: its rows, what they touch, and the chain that it belongs to.

use std::sync::Arc;

use super::Lineage;
use crate::store::{Error, Position, Row, log::Touch, vocabulary::Mark};

/// The write of one writer, stored as a whole or not at all.
#[derive(Default)]
pub struct Write {
    pub(in crate::store) rows: Vec<Row>,
    /// Each touch with its position; `None` is the position of the write.
    pub(super) touches: Vec<(Option<Position>, Touch)>,
    at: Option<Position>,
    pub(super) lineage: Option<Lineage>,
    /// The marks of the new words, which are set when the words are stored. A word whose mark is held here stays in memory.
    words: Vec<Arc<Mark>>,
}

impl Write {
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows, ..Self::default() }
    }

    /// Names the chain that this write belongs to.
    #[must_use]
    pub fn in_lineage(mut self, lineage: Lineage) -> Self {
        self.lineage = Some(lineage);
        self
    }

    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Makes room for so many rows and touches more.
    pub(crate) fn reserve(&mut self, rows: usize, touches: usize) {
        self.rows.reserve(rows);
        self.touches.reserve(touches);
    }

    /// Names something that the write changes, for the entry of its batch in the commit log.
    pub(crate) fn touch(&mut self, touch: Touch) {
        self.touches.push((self.at, touch));
    }

    /// Names something that the write changes, as [`Self::touch`] does.
    #[must_use]
    pub(crate) fn touching(mut self, touch: Touch) -> Self {
        self.touch(touch);
        self
    }

    /// The touches with their positions, for a write at `position`.
    pub(super) fn touches_at(&self, position: Position) -> impl Iterator<Item = (Position, Touch)> {
        self.touches.iter().map(move |(at, touch)| (at.unwrap_or(position), touch.clone()))
    }

    /// Sets the position of the touches that follow, for a write of several positions. Positions must not go back.
    pub(crate) fn set_position(&mut self, position: Position) {
        self.at = Some(position);
    }

    /// The reason why the write must not be queued, if there is one.
    pub(super) fn refusal(&self) -> Option<Error> {
        // Writes of a lineage have changed memory by now; their builders check for a NUL before.
        if self.lineage.is_none() && self.rows.iter().any(Row::holds_nul) {
            return Some(Error::HoldsNul);
        }
        self.words.iter().any(|word| word.is_void()).then_some(Error::Superseded)
    }

    /// Adds the row of a new word. The word stays in memory for as long as the write, which holds the mark `stored`.
    pub(crate) fn add_word(&mut self, row: Row, touch: Touch, stored: Arc<Mark>) {
        self.touch(touch);
        self.rows.push(row);
        self.words.push(stored);
    }
}

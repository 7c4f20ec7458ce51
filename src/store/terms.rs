//! Terms: the times at which a process took the right to write ([`super::log`]'s `lease`), as a list of positions.
//!
//! Promise: a position belongs to the history of this database if its term is in the list and had reached it. A term ends
//! where the next one begins, so a token from after a restored backup is noticed, whichever process gave it out.
//!
//! A server that is alone on its database has one term for each start. Of several processes, each has the terms that it
//! leads, and learns the others' from the table.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{
    Conn, Error, Position,
    conn::{on, statements},
    ids::lock,
};

statements! {
    NEW_TERM = "INSERT INTO incarnation (incarnation, epoch, after_pos, started_at) VALUES ($1, $2, $3, $4)";
    FORGET_TERMS = "DELETE FROM incarnation WHERE epoch < $1";
    LIST_TERMS = "SELECT incarnation, epoch, after_pos FROM incarnation ORDER BY epoch, incarnation LIMIT $1";
    NEXT_TERM = "SELECT after_pos FROM incarnation WHERE epoch > $1 ORDER BY epoch LIMIT 1";
}

/// The number of terms that are remembered; a sync token from an older one gets a full sync.
const KEPT_TERMS: i64 = 1000;

/// The number of numbers that are known to name no term. Above it, all are forgotten, and read again when they are used.
const MAX_UNKNOWN: usize = 1000;

/// A time for which one process has the right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    /// A random number that names it.
    pub(super) number: i64,
    /// The epoch of the writer slot with which it began.
    pub(super) epoch: i64,
    /// The last position of the term before. This term begins after it.
    pub(super) after: Position,
}

/// Stores a new term, and forgets the oldest ones.
pub(super) async fn begin(conn: &mut Conn<'_>, term: Term, now_ms: i64) -> Result<(), Error> {
    on!(conn, db => sqlx::query(FORGET_TERMS.text())
        .bind(term.epoch - KEPT_TERMS).execute(&mut **db).await.map(drop))?;
    Ok(on!(conn, db => sqlx::query(NEW_TERM.text())
        .bind(term.number).bind(term.epoch).bind(term.after.0).bind(now_ms).execute(&mut **db).await.map(drop))?)
}

/// The stored terms, oldest first.
pub(super) async fn list(conn: &mut Conn<'_>) -> Result<Vec<Term>, Error> {
    let rows: Vec<(i64, i64, i64)> = on!(conn, db => sqlx::query_as(LIST_TERMS.text())
        .bind(KEPT_TERMS + 1).fetch_all(&mut **db).await)?;
    let term = |(number, epoch, after)| Term { number, epoch, after: Position(after) };
    Ok(rows.into_iter().map(term).collect())
}

/// The last position before the first term after an epoch, if there is one.
pub(super) async fn next_after(conn: &mut Conn<'_>, epoch: i64) -> Result<Option<Position>, Error> {
    let next: Option<(i64,)> =
        on!(conn, db => sqlx::query_as(NEXT_TERM.text()).bind(epoch).fetch_optional(&mut **db).await)?;
    Ok(next.map(|(after,)| Position(after)))
}

/// The terms in memory.
#[derive(Debug, Default)]
pub(super) struct Terms {
    inner: Mutex<Inner>,
    /// The number of the newest term in memory.
    current: AtomicI64,
}

#[derive(Debug, Default)]
struct Inner {
    /// Oldest first.
    known: Vec<Term>,
    /// Numbers that the table did not have. A term is in the table before any token names it.
    unknown: HashSet<i64>,
}

impl Terms {
    /// The number of the newest term. Read it after the position that it is to stand beside: no position is visible
    /// before its term is known.
    pub(super) fn current(&self) -> i64 {
        self.current.load(Ordering::Acquire)
    }

    /// Takes over the terms in the table, unless newer ones are known.
    pub(super) fn set(&self, terms: Vec<Term>) {
        let Some(newest) = terms.last().copied() else { return };
        let mut inner = lock(&self.inner);
        if inner.known.last().is_none_or(|known| known.epoch <= newest.epoch) {
            inner.known = terms;
            self.current.store(newest.number, Ordering::Release);
        }
    }

    /// Adds a term of this process, if it is not known yet.
    pub(super) fn add(&self, term: Term) {
        let mut inner = lock(&self.inner);
        if inner.known.last() != Some(&term) {
            inner.known.push(term);
        }
        self.current.store(term.number, Ordering::Release);
    }

    /// Returns whether the term has reached `position`, as far as this process has seen the commits up to `visible`. `None`
    /// if the term is not in memory.
    pub(super) fn reached(&self, number: i64, position: Position, visible: Position) -> Option<bool> {
        let inner = lock(&self.inner);
        let Some(index) = inner.known.iter().position(|term| term.number == number) else {
            return inner.unknown.contains(&number).then_some(false);
        };
        let end = inner.known.get(index + 1).map_or(visible, |next| next.after);
        Some(position <= end)
    }

    /// Notes that no term has this number.
    pub(super) fn note_unknown(&self, number: i64) {
        let unknown = &mut lock(&self.inner).unknown;
        if unknown.len() >= MAX_UNKNOWN {
            unknown.clear();
        }
        unknown.insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(number: i64, epoch: i64, after: i64) -> Term {
        Term { number, epoch, after: Position(after) }
    }

    #[test]
    fn a_term_reaches_to_the_beginning_of_the_next_one() {
        let terms = Terms::default();
        terms.set(vec![term(71, 1, 0), term(72, 3, 10), term(73, 4, 10)]);
        let check = |number: i64, position: i64, expected: Option<bool>| {
            assert_eq!(terms.reached(number, Position(position), Position(15)), expected, "{number} {position}");
        };
        for (position, is_reached) in [(0, true), (10, true), (11, false)] {
            check(71, position, Some(is_reached));
            check(72, position, Some(is_reached));
        }
        check(73, 15, Some(true));
        check(73, 16, Some(false));
        check(74, 1, None);
        terms.note_unknown(74);
        check(74, 1, Some(false));
    }

    #[test]
    fn an_older_list_changes_nothing() {
        let terms = Terms::default();
        terms.set(vec![term(71, 1, 0), term(72, 2, 10)]);
        terms.set(vec![term(71, 1, 0)]);
        terms.set(Vec::new());
        assert_eq!(terms.current(), 72);
        terms.add(term(73, 5, 20));
        assert_eq!((terms.current(), terms.reached(72, Position(21), Position(30))), (73, Some(false)));
        terms.add(term(73, 5, 20));
        assert_eq!(terms.reached(73, Position(30), Position(30)), Some(true), "it was known, and has not ended");
    }
}

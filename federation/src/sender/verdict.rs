//! The verdict on an answer, and what follows for the parts of the transaction: they are retried, sent in smaller pieces, or,
//! one at a time, skipped.
//!
//! Promise: a part that a destination cannot take stops none of the others, and no part is skipped because its destination
//! was down. For this, a part is skipped only if it fails alone, right after the destination has accepted an empty
//! transaction: once if it is refused, and three times in a row if there is an error or no answer.

use std::time::Duration;

use super::{effect::Part, transaction::MAX_PARTS};

/// The number of errors and time-outs in a row after which the contents of a transaction may be the cause.
const SUSPECT_AFTER: u32 = 3;

/// The end of a request to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendResult {
    /// The destination answered with this status.
    Answered { status: u16, retry_after: Option<Duration> },
    /// The request was sent, and there was no whole answer in time.
    TimedOut,
    /// There was no connection, or it broke.
    Failed,
}

/// The meaning of a [`SendResult`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Delivered,
    /// The destination refuses the contents.
    Refused,
    /// The destination failed at the contents, or because of something else.
    Broken,
    /// The destination does not work, or takes nothing from us at present.
    Down,
}

impl SendResult {
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Answered { status: 200..=299, .. } => Verdict::Delivered,
            // The server may not know us, not be there, or want us to wait. None of these is about the contents.
            Self::Answered { status: 401 | 403 | 404 | 408 | 429, .. } => Verdict::Down,
            Self::Answered { status: 400..=499, .. } => Verdict::Refused,
            // Others above 500 mostly come from a proxy in front of a server that is down.
            Self::Answered { status: 500, .. } | Self::TimedOut => Verdict::Broken,
            Self::Answered { .. } | Self::Failed => Verdict::Down,
        }
    }

    pub(super) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => retry_after,
            Self::TimedOut | Self::Failed => None,
        }
    }
}

/// The next step after a transaction that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// The transaction is sent again after a pause, with the same bytes.
    Again,
    /// A smaller transaction is sent. `at_once`: without a pause.
    Smaller { at_once: bool },
    /// An empty transaction is sent first, to learn whether the destination or the part is the cause.
    Probe { at_once: bool },
    /// The part is skipped.
    Skip,
}

/// The size of the transactions that a destination gets, by what it did with earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Trial {
    /// Maximum number of parts. Halved with each refusal, and doubled with each success.
    most_parts: usize,
    /// The number of errors and time-outs in a row.
    broken: u32,
    /// The part that failed alone. The numbers are of this one.
    accused: Option<Part>,
    /// The number of errors and time-outs of this part, each right after an accepted empty transaction.
    broken_alone: u32,
    /// Set if the latest transaction was an empty one and accepted.
    is_proven: bool,
    /// Set if an empty transaction goes first, also when there is no back-off.
    wants_probe: bool,
    /// The last kind of parts in the transaction that failed. One without this kind says nothing about the failure: messages
    /// to devices may be accepted all the time, while an event is not.
    suspect: Option<Kind>,
}

/// The kinds of parts, in the order in which they go into a transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Item,
    Devices,
    Event,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            most_parts: MAX_PARTS,
            broken: 0,
            accused: None,
            broken_alone: 0,
            is_proven: false,
            wants_probe: false,
            suspect: None,
        }
    }
}

impl Trial {
    pub fn most_parts(&self) -> usize {
        self.most_parts
    }

    /// Returns whether transactions have their full size. Else a part is suspected, so that nothing may be added to it.
    pub fn is_full(&self) -> bool {
        self.most_parts == MAX_PARTS
    }

    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    pub fn wants_probe(&self) -> bool {
        self.wants_probe
    }

    /// Notes an accepted transaction that was not empty. `last` is the last of its parts; `None` if there are EDUs
    /// alone.
    pub fn delivered(&mut self, last: Option<Part>) {
        self.is_proven = false;
        if last.map(|part| part.kind()) >= self.suspect {
            *self = Self { most_parts: (self.most_parts * 2).min(MAX_PARTS), ..Self::default() };
        }
    }

    /// Notes an accepted empty transaction.
    pub fn proved(&mut self) {
        (self.is_proven, self.wants_probe) = (true, false);
    }

    /// Notes a failure of a transaction with this number of parts: the `last` one says its kind. `verdict` is not
    /// [`Verdict::Delivered`].
    pub fn failed(&mut self, verdict: Verdict, parts: usize, last: Option<Part>) -> Next {
        let was_proven = std::mem::take(&mut self.is_proven);
        self.wants_probe = false;
        if verdict == Verdict::Down || parts == 0 {
            // It says nothing about a part, and much about the destination.
            self.broken_alone = 0;
            return Next::Again;
        }
        self.suspect = last.map(|part| part.kind());
        let alone = last.filter(|_| parts == 1);
        if self.accused != alone {
            (self.accused, self.broken, self.broken_alone) = (alone, 0, 0);
        }
        let is_refused = verdict == Verdict::Refused;
        if !is_refused {
            self.broken += 1;
            if self.broken < SUSPECT_AFTER {
                return Next::Again;
            }
        }
        if parts > 1 {
            (self.most_parts, self.broken) = (parts / 2, 0);
            return Next::Smaller { at_once: is_refused };
        }
        if was_proven {
            self.broken_alone += 1;
            if is_refused || self.broken_alone >= SUSPECT_AFTER {
                (self.broken, self.broken_alone) = (0, 0);
                return Next::Skip;
            }
        }
        self.wants_probe = true;
        Next::Probe { at_once: is_refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{EventNid, Position, UserNid};

    const EVENT: Part = Part::Event { event: EventNid(1), pos: Position(1) };
    const DEVICES: Part = Part::Devices { user: UserNid(1), pos: Position(1) };
    const ITEM: Part = Part::Item { seq: 1 };

    fn fail(trial: &mut Trial, verdict: Verdict, parts: usize) -> Next {
        trial.failed(verdict, parts, (parts > 0).then_some(EVENT))
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let check = |statuses: &[u16], expected: Verdict| {
            for &status in statuses {
                let result = SendResult::Answered { status, retry_after: None };
                assert_eq!(result.verdict(), expected, "{status}");
            }
        };
        check(&[200, 204], Verdict::Delivered);
        // Refused (4xx but 401, 403, 404, 408, 429).
        check(&[400, 402, 405, 413, 422, 499], Verdict::Refused);
        check(&[401, 403, 404, 408, 429], Verdict::Down);
        check(&[500], Verdict::Broken);
        check(&[0, 101, 301, 501, 502, 503, 504, 522, 999], Verdict::Down);
        assert_eq!(SendResult::TimedOut.verdict(), Verdict::Broken);
        assert_eq!(SendResult::Failed.verdict(), Verdict::Down);
    }

    #[test]
    fn a_refused_transaction_is_halved_down_to_one_part_which_is_skipped() {
        let mut trial = Trial::default();
        let mut sizes = vec![];
        let mut parts = 50;
        while parts > 1 {
            assert_eq!(fail(&mut trial, Verdict::Refused, parts), Next::Smaller { at_once: true });
            parts = parts.min(trial.most_parts());
            sizes.push(parts);
        }
        assert_eq!(sizes, [25, 12, 6, 3, 1]);
        assert_eq!(fail(&mut trial, Verdict::Refused, 1), Next::Probe { at_once: true });
        assert!(trial.wants_probe() && !trial.is_full());
        trial.proved();
        assert!(trial.is_proven() && !trial.wants_probe());
        assert_eq!((fail(&mut trial, Verdict::Refused, 1), trial.most_parts()), (Next::Skip, 1));
        for size in [2, 4, 8, 16, 32, 64, 128, MAX_PARTS, MAX_PARTS] {
            trial.delivered(Some(EVENT));
            assert_eq!(trial.most_parts(), size);
        }
        assert!(trial.is_full());
    }

    #[test]
    fn the_third_error_in_a_row_halves() {
        let mut trial = Trial::default();
        let failures = |trial: &mut Trial, parts| [(); 3].map(|()| fail(trial, Verdict::Broken, parts));
        assert_eq!(failures(&mut trial, 8), [Next::Again, Next::Again, Next::Smaller { at_once: false }]);
        assert_eq!(trial.most_parts(), 4);
        assert_eq!(failures(&mut trial, 1), [Next::Again, Next::Again, Next::Probe { at_once: false }]);
        let probed = |trial: &mut Trial| {
            trial.proved();
            fail(trial, Verdict::Broken, 1)
        };
        let again = Next::Probe { at_once: false };
        assert_eq!([(); 2].map(|()| probed(&mut trial)), [again; 2]);
        // An error of the empty one is the destination's, not the part's.
        assert_eq!(fail(&mut trial, Verdict::Broken, 0), Next::Again);
        assert_eq!([(); 3].map(|()| probed(&mut trial)), [again, again, Next::Skip]);
        // Another part begins anew.
        fail(&mut trial, Verdict::Broken, 1);
        trial.proved();
        assert_eq!(trial.failed(Verdict::Broken, 1, Some(ITEM)), Next::Again);
        // So does a success in between.
        assert_eq!(fail(&mut trial, Verdict::Broken, 8), Next::Again);
        trial.delivered(Some(EVENT));
        assert_eq!(failures(&mut trial, 8), [Next::Again, Next::Again, Next::Smaller { at_once: false }]);
    }

    #[test]
    fn the_success_of_other_parts_acquits_nobody() {
        let mut trial = Trial::default();
        for expected in [Next::Again, Next::Again, Next::Smaller { at_once: false }] {
            assert_eq!(trial.failed(Verdict::Broken, 2, Some(DEVICES)), expected);
            for other in [None, Some(ITEM)] {
                trial.delivered(other);
            }
        }
        assert_eq!(trial.most_parts(), 1);
        trial.delivered(Some(DEVICES));
        assert_eq!(trial.most_parts(), 2);
    }

    #[test]
    fn a_destination_that_is_down_accuses_no_part() {
        let mut trial = Trial::default();
        for _ in 0..100 {
            trial.proved();
            assert_eq!(fail(&mut trial, Verdict::Down, 1), Next::Again);
        }
        assert_eq!(trial, Trial::default());
        // It refuses everything, also nothing.
        for _ in 0..100 {
            assert_eq!(fail(&mut trial, Verdict::Refused, 1), Next::Probe { at_once: true });
            assert_eq!(fail(&mut trial, Verdict::Refused, 0), Next::Again);
        }
    }
}

//! Expectations: `expected.txt`, one line for every test and subtest.
//!
//! A line is `STATE PACKAGE TEST`. The state is `pass`, `fail`, `skip`, or `flaky` for a test whose result changes;
//! such a line gives the reason after a `#`. Lines are sorted, so that a diff of the file shows the change of the
//! server.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::outcome::Outcome;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    Always(Outcome),
    /// Any result is accepted. The text is the reason.
    Flaky(String),
}

/// Expectations by package and test.
pub type Expectations = BTreeMap<(String, String), Expectation>;

const HEADER: &str = "\
# What every test and subtest of the suite does against Sabha: STATE PACKAGE TEST.
# A run that differs fails, in either direction. `run.sh --update` rewrites this file, all but `flaky` lines, which are
# written by hand with their reason: `flaky PACKAGE TEST # REASON`.
";

/// # Errors
/// Names the line that is malformed.
pub fn parse(text: &str) -> Result<Expectations, String> {
    let mut expectations = Expectations::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |why: &str| format!("line {}: {why}: {line}", index + 1);
        // Names of tests may contain a `#` (`TestX/a#01`); a comment has a space before it.
        if line.starts_with('#') {
            continue;
        }
        let (fields, comment) = line.split_once(" #").map_or((line, ""), |(fields, comment)| (fields, comment.trim()));
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let &[state, package, test] = fields.as_slice() else {
            if fields.is_empty() {
                continue;
            }
            return Err(wrong("not `STATE PACKAGE TEST`"));
        };
        let expectation = match (state, state.parse()) {
            ("flaky", _) if comment.is_empty() => return Err(wrong("a flaky test needs a reason")),
            ("flaky", _) => Expectation::Flaky(comment.to_owned()),
            (_, Ok(outcome)) => Expectation::Always(outcome),
            (_, Err(())) => return Err(wrong("unknown state")),
        };
        if expectations.insert((package.to_owned(), test.to_owned()), expectation).is_some() {
            return Err(wrong("the second line of this test"));
        }
    }
    Ok(expectations)
}

pub fn write(expectations: &Expectations) -> String {
    let mut text = HEADER.to_owned();
    for ((package, test), expectation) in expectations {
        // Writing to a `String` does not fail.
        let _ = match expectation {
            Expectation::Always(outcome) => writeln!(text, "{outcome} {package} {test}"),
            Expectation::Flaky(reason) => writeln!(text, "flaky {package} {test} # {reason}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        let text = format!("{HEADER}pass csapi TestA\nflaky csapi TestA/b#01 # waits for a clock\nskip fed TestC\n");
        assert_eq!(write(&parse(&text).unwrap()), text);
    }

    #[test]
    fn a_line_that_is_not_one_is_named() {
        for (text, expected) in [
            ("pass csapi", "line 1: not `STATE PACKAGE TEST`"),
            ("\n# x\nmaybe csapi TestA", "line 3: unknown state"),
            ("flaky csapi TestA", "line 1: a flaky test needs a reason"),
            ("pass csapi TestA\nfail csapi TestA", "line 2: the second line of this test"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}

//! Outcomes: the results of a run of one package, read from the output of `go tool test2json`.

use std::{collections::BTreeMap, fmt, fs, path::Path, str::FromStr};

use serde::Deserialize;

use crate::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Pass,
    Fail,
    Skip,
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "pass" => Ok(Self::Pass),
            "fail" => Ok(Self::Fail),
            "skip" => Ok(Self::Skip),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
        })
    }
}

/// One test or subtest of a run.
#[derive(Clone, Debug, Default)]
pub struct Test {
    /// `None` for a test that began and did not end: the package crashed, or ran out of time.
    pub outcome: Option<Outcome>,
    /// Times of its begin and end, as test2json wrote them.
    pub began_at: String,
    pub ended_at: String,
}

/// A run of one package.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub package: String,
    pub tests: BTreeMap<String, Test>,
    /// True if the test program ended by itself.
    pub is_complete: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(default)]
    time: String,
    action: String,
    #[serde(default)]
    test: Option<String>,
}

impl Run {
    /// Parses lines of test2json. `exit_status` is the test program's: 0 and 1 are results, everything else is a crash.
    pub fn parse(package: &str, lines: &str, exit_status: Option<i32>) -> Self {
        let mut tests = BTreeMap::<String, Test>::new();
        // Skips invalid lines, because a crash may cut the last one.
        for line in lines.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let Some(name) = line.test else { continue };
            if line.action == "run" {
                tests.entry(name).or_default().began_at = line.time;
            } else if let Ok(outcome) = line.action.parse() {
                let test = tests.entry(name).or_default();
                test.outcome = Some(outcome);
                test.ended_at = line.time;
            }
        }
        let all_ended = tests.values().all(|test| test.outcome.is_some());
        let is_complete = matches!(exit_status, Some(0 | 1)) && all_ended && !tests.is_empty();
        Self { package: package.to_owned(), tests, is_complete }
    }

    /// Reads `PACKAGE.json` and `PACKAGE.exit`, which `run.sh` writes. Without the second the run did not end.
    pub fn read(results: &Path, package: &str) -> Result<Self, Failure> {
        let path = results.join(format!("{package}.json"));
        let lines = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let exit_status = fs::read_to_string(results.join(format!("{package}.exit"))).ok();
        let exit_status = exit_status.and_then(|text| text.trim().parse().ok());
        Ok(Self::parse(package, &String::from_utf8_lossy(&lines), exit_status))
    }
}

/// Returns the top-level test of a subtest.
pub fn top_level(test: &str) -> &str {
    test.split_once('/').map_or(test, |(top, _)| top)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"Time":"1","Action":"run","Test":"TestA"}
{"Time":"2","Action":"run","Test":"TestA/b"}
{"Time":"2","Action":"output","Test":"TestA/b","Output":"--- PASS\n"}
{"Time":"3","Action":"pass","Test":"TestA/b"}
{"Time":"4","Action":"fail","Test":"TestA"}
{"Time":"4","Action":"fail"}
"#;

    #[test]
    fn tests_and_subtests_have_outcomes_and_times() {
        let run = Run::parse("csapi", LINES, Some(1));
        assert!(run.is_complete);
        assert_eq!(run.tests["TestA"].outcome, Some(Outcome::Fail));
        assert_eq!(run.tests["TestA/b"].outcome, Some(Outcome::Pass));
        assert_eq!((run.tests["TestA/b"].began_at.as_str(), run.tests["TestA/b"].ended_at.as_str()), ("2", "3"));
    }

    #[test]
    fn a_crash_is_not_a_complete_run() {
        let check = |lines: &str, exit_status| assert!(!Run::parse("csapi", lines, exit_status).is_complete);
        check(LINES, Some(2));
        check(LINES, None);
        check("", Some(0));
        check(r#"{"Time":"1","Action":"run","Test":"TestA"}"#, Some(1));
    }
}

//! The score by package, computed from the expectations and shown in `docs/conformance.md`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::{
    Failure,
    expected::{self, Expectation, Expectations},
    outcome::Outcome,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The file of expectations.
    #[arg(long)]
    expected: PathBuf,
}

#[derive(Clone, Copy, Default)]
struct Count {
    pass: u32,
    fail: u32,
    skip: u32,
    flaky: u32,
}

impl Count {
    fn add(&mut self, expectation: &Expectation) {
        *match expectation {
            Expectation::Always(Outcome::Pass) => &mut self.pass,
            Expectation::Always(Outcome::Fail) => &mut self.fail,
            Expectation::Always(Outcome::Skip) => &mut self.skip,
            Expectation::Flaky(_) => &mut self.flaky,
        } += 1;
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let expectations = expected::parse(&fs::read_to_string(&arguments.expected)?)?;
    print!("{}", document(&expectations));
    Ok(())
}

/// Returns the whole text of `docs/conformance.md`.
pub fn document(expectations: &Expectations) -> String {
    format!(
        "# Conformance\n\n\
         <!-- Generated from complement-tests/expected.txt by `complement-tests/run.sh --update`. -->\n\n\
         What the Complement suite finds of this version, on SQLite: top-level tests, and subtests below them. `fed` is the\n\
         suite's main package, which is about federation; the `msc` packages are about proposals that are not in the\n\
         specification. A skipped test skipped itself, a flaky one does not always do the same. How to run it:\n\
         [complement-tests](../complement-tests/README.md). Every test by name:\n\
         [expected.txt](../complement-tests/expected.txt).\n\n{}",
        table(expectations)
    )
}

/// Returns the counts of each package and of all together, as a Markdown table.
pub fn table(expectations: &Expectations) -> String {
    let mut packages = BTreeMap::<&str, [Count; 2]>::new();
    let mut all = [Count::default(); 2];
    for ((package, test), expectation) in expectations {
        let level = usize::from(test.contains('/'));
        packages.entry(package).or_default()[level].add(expectation);
        all[level].add(expectation);
    }
    let mut table = "| Package | Pass | Fail | Skip | Flaky | Subtests: pass | Fail | Skip | Flaky |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (package, [tests, subtests]) in packages.into_iter().chain([("all", all)]) {
        let cells =
            [tests, subtests].map(|Count { pass, fail, skip, flaky }| format!("{pass} | {fail} | {skip} | {flaky}"));
        table.push_str(&format!("| {package} | {} |\n", cells.join(" | ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_that_of_the_expectations() {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let expectations = expected::parse(&fs::read_to_string(here.join("expected.txt")).unwrap()).unwrap();
        let document_path = here.join("../docs/conformance.md");
        assert_eq!(fs::read_to_string(document_path).unwrap(), document(&expectations), "`run.sh --update` writes it");
    }

    #[test]
    fn tests_and_subtests_are_counted_apart() {
        let expectations = expected::parse("pass a T\nfail a T/x\nskip b U\nflaky b V # clock\n").unwrap();
        let table = table(&expectations);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| a | 1 | 0 | 0 | 0 | 0 | 1 | 0 | 0 |",
                "| b | 0 | 0 | 1 | 1 | 0 | 0 | 0 | 0 |",
                "| all | 1 | 0 | 1 | 1 | 0 | 1 | 0 | 0 |",
            ]
        );
    }
}

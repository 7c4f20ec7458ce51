//! Comparing: a run against the expectations, in both directions. A test that now passes is a difference too.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Failure,
    expected::{self, Expectation, Expectations},
    outcome::{Outcome, Run, Test, top_level},
    score,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of a run: `PACKAGE.json`, `PACKAGE.exit`, `containers.txt` and `logs/`.
    #[arg(long)]
    results: PathBuf,
    /// The file of expectations.
    #[arg(long)]
    expected: PathBuf,
    /// Only some tests were requested: a test that did not run is no difference.
    #[arg(long)]
    partial: bool,
    /// Rewrite the file instead. `flaky` lines stay; packages that did not run to their end stay unchanged.
    #[arg(long)]
    update: bool,
    /// Packages that were run.
    #[arg(required = true)]
    packages: Vec<String>,
}

/// A test with an unexpected result. `expected` is `None` for an unknown test, `actual` for one that did not run.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub package: String,
    pub test: String,
    pub expected: Option<Outcome>,
    pub actual: Option<Outcome>,
}

/// Compares and prints the differences. Returns whether all tests did what was expected.
pub fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let path = &arguments.expected;
    let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
    let mut expectations = expected::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let runs: Vec<Run> =
        arguments.packages.iter().map(|package| Run::read(&arguments.results, package)).collect::<Result<_, _>>()?;

    print!("{}", score::table(&as_expectations(&runs)));
    print_failures(&runs, &arguments.results);
    let incomplete: Vec<&Run> = runs.iter().filter(|run| !run.is_complete).collect();
    for run in &incomplete {
        println!("{} did not run to its end: see {}/{}.json", run.package, arguments.results.display(), run.package);
    }
    if arguments.update {
        for run in runs.iter().filter(|run| run.is_complete) {
            update(&mut expectations, run, arguments.partial);
        }
        fs::write(path, expected::write(&expectations))?;
        return Ok(incomplete.is_empty());
    }
    let differences: Vec<Difference> =
        runs.iter().flat_map(|run| compare(&expectations, run, arguments.partial)).collect();
    print_flaky(&expectations, &runs);
    println!("\n{} differences from {}", differences.len(), path.display());
    for difference in &differences {
        let name = |outcome: Option<Outcome>, none: &str| outcome.map_or(none.to_owned(), |o| o.to_string());
        println!(
            "  {} {}: expected {}, was {}",
            difference.package,
            difference.test,
            name(difference.expected, "nothing (it is new)"),
            name(difference.actual, "not run"),
        );
    }
    Ok(differences.is_empty() && incomplete.is_empty())
}

/// Lists the tests of a run whose results differ from the expectations.
pub fn compare(expectations: &Expectations, run: &Run, partial: bool) -> Vec<Difference> {
    let ran: BTreeSet<&str> = run.tests.keys().map(|test| top_level(test)).collect();
    let expected = expectations
        .iter()
        .filter(|((package, test), _)| *package == run.package && (!partial || ran.contains(top_level(test))));
    let known: BTreeSet<&str> = expected.clone().map(|((_, test), _)| test.as_str()).collect();
    let difference = |test: &str, expected, actual| Difference {
        package: run.package.clone(),
        test: test.to_owned(),
        expected,
        actual,
    };
    let mut differences = Vec::new();
    for ((_, test), expectation) in expected {
        let actual = run.tests.get(test).and_then(|test| test.outcome);
        match expectation {
            Expectation::Always(outcome) if actual != Some(*outcome) => {
                differences.push(difference(test, Some(*outcome), actual));
            }
            Expectation::Always(_) | Expectation::Flaky(_) => {}
        }
    }
    for (test, Test { outcome, .. }) in run.tests.iter().filter(|(test, _)| !known.contains(test.as_str())) {
        differences.push(difference(test, None, *outcome));
    }
    differences
}

/// Turns the results of a run into expectations.
fn update(expectations: &mut Expectations, run: &Run, partial: bool) {
    let ran: BTreeSet<&str> = run.tests.keys().map(|test| top_level(test)).collect();
    expectations.retain(|(package, test), expectation| {
        *package != run.package
            || (partial && !ran.contains(top_level(test)))
            || matches!(expectation, Expectation::Flaky(_))
    });
    for (test, outcome) in run.tests.iter().filter_map(|(test, ran)| Some((test, ran.outcome?))) {
        let key = (run.package.clone(), test.clone());
        expectations.entry(key).or_insert(Expectation::Always(outcome));
    }
}

fn as_expectations(runs: &[Run]) -> Expectations {
    let mut seen = Expectations::new();
    for run in runs {
        for (test, ran) in &run.tests {
            // A test without an end did not pass.
            let outcome = ran.outcome.unwrap_or(Outcome::Fail);
            seen.insert((run.package.clone(), test.clone()), Expectation::Always(outcome));
        }
    }
    seen
}

/// Prints failed tests, each with the logs of its servers. In a dirty run tests share servers: find the place by the
/// time.
fn print_failures(runs: &[Run], results: &Path) {
    let containers = fs::read_to_string(results.join("containers.txt")).unwrap_or_default();
    for run in runs {
        let failed: Vec<_> = run.tests.iter().filter(|(_, test)| test.outcome != Some(Outcome::Pass)).collect();
        let failed: Vec<_> = failed.into_iter().filter(|(_, test)| test.outcome != Some(Outcome::Skip)).collect();
        if failed.is_empty() {
            continue;
        }
        println!("\n{}: failed, with their times and servers' logs in {}/logs", run.package, results.display());
        for (name, test) in failed {
            let clock = |at: &str| at.get(11..23).unwrap_or("?").to_owned();
            let own: Vec<String> = containers
                .lines()
                .filter_map(|line| line.split_once(' '))
                .filter(|(_, test)| *test == top_level(name))
                .map(|(id, _)| format!("{id}.log"))
                .collect();
            let logs = if own.is_empty() { format!("*-{}_dirty_hs*.log", run.package) } else { own.join(" ") };
            println!("  {name}  {}..{}  {logs}", clock(&test.began_at), clock(&test.ended_at));
        }
    }
}

fn print_flaky(expectations: &Expectations, runs: &[Run]) {
    for ((package, test), expectation) in expectations {
        let Expectation::Flaky(reason) = expectation else { continue };
        let ran = runs.iter().find(|run| run.package == *package).and_then(|run| run.tests.get(test));
        if let Some(outcome) = ran.and_then(|test| test.outcome) {
            println!("flaky: {package} {test}: this time {outcome} ({reason})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tests: &[(&str, Option<Outcome>)]) -> Run {
        let tests =
            tests.iter().map(|(name, outcome)| ((*name).to_owned(), Test { outcome: *outcome, ..Test::default() }));
        Run { package: "p".to_owned(), tests: tests.collect(), is_complete: true }
    }

    #[test]
    fn differences_count_in_both_directions() {
        use Outcome::{Fail, Pass, Skip};
        let check = |expected: &str, actual: &[(&str, Option<Outcome>)], partial, differences: &[&str]| {
            let found = compare(&expected::parse(expected).unwrap(), &run(actual), partial);
            let found: Vec<String> =
                found.iter().map(|d| format!("{}: {:?} {:?}", d.test, d.expected, d.actual)).collect();
            assert_eq!(found, differences, "{expected} / {actual:?}");
        };
        check("pass p A", &[("A", Some(Pass))], false, &[]);
        check("pass p A", &[("A", Some(Fail))], false, &["A: Some(Pass) Some(Fail)"]);
        check("fail p A", &[("A", Some(Pass))], false, &["A: Some(Fail) Some(Pass)"]);
        check("fail p A", &[("A", Some(Skip))], false, &["A: Some(Fail) Some(Skip)"]);
        check("pass p A", &[("A", None)], false, &["A: Some(Pass) None"]);
        check("pass p A\npass p B", &[("A", Some(Pass))], false, &["B: Some(Pass) None"]);
        check("pass p A\npass p B", &[("A", Some(Pass))], true, &[]);
        check("pass p A\npass p A/x", &[("A", Some(Pass))], true, &["A/x: Some(Pass) None"]);
        check("pass p A", &[("A", Some(Pass)), ("A/x", Some(Fail))], true, &["A/x: None Some(Fail)"]);
        check("pass q A", &[("B", Some(Pass))], false, &["B: None Some(Pass)"]);
        check("flaky p A # clock", &[("A", Some(Pass))], false, &[]);
        check("flaky p A # clock", &[("A", Some(Fail))], false, &[]);
    }

    #[test]
    fn an_update_keeps_flaky_lines_and_other_tests() {
        let check = |partial, written: &str| {
            let before = "pass p A\nfail p B\npass p B/gone\nflaky p C # clock\nskip q D";
            let mut expectations = expected::parse(before).unwrap();
            let tests = [("B", Some(Outcome::Pass)), ("C", Some(Outcome::Fail))];
            update(&mut expectations, &run(&tests), partial);
            assert_eq!(expectations, expected::parse(written).unwrap());
        };
        check(true, "pass p A\npass p B\nflaky p C # clock\nskip q D");
        check(false, "pass p B\nflaky p C # clock\nskip q D");
    }
}

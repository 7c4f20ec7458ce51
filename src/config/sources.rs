//! Sources of the configuration: files, then the environment, then flags. For each key, the later one wins.
//!
//! The built-in values are the first layer, so a file that writes only `rate_limits.send.burst` keeps that limit's own
//! `per_second`. A list (`listeners`) is replaced as a whole.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Config;
use super::check::{self, check};
use super::keys::Fit;
use super::problem::{Origin, Problem, Problems};

/// The variable that names the configuration file.
pub const FILE_VARIABLE: &str = "SABHA_CONFIG";
/// The files to look for when none is named. The first that exists is read.
pub const SEARCHED_FILES: [&str; 2] = ["./sabha.toml", "/etc/sabha/sabha.toml"];
/// The prefix of a variable for a key: `SABHA_RATE_LIMITS__ENABLED` is `rate_limits.enabled`.
const PREFIX: &str = "SABHA_";
/// Variables that Kubernetes sets for a service named `sabha`. They are not ours.
const FOREIGN_PREFIXES: [&str; 2] = ["SABHA_SERVICE_", "SABHA_PORT"];

/// All sources of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Files to read, in order, from `-c`. If empty, [`FILE_VARIABLE`], then the first of `searched`.
    pub files: Vec<PathBuf>,
    /// The files to look for when none is named.
    pub searched: Vec<PathBuf>,
    /// The environment's variables.
    pub environment: Vec<(OsString, OsString)>,
    /// Assignments from `-O KEY=VALUE`.
    pub overrides: Vec<String>,
    /// Listeners from `--listen`, which replace all listeners of the files.
    pub listen: Vec<super::Listener>,
}

/// A checked configuration, and the sources of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The files read, in order. Empty means that no file was found.
    pub files: Vec<PathBuf>,
    /// The origin of each key that is not built in, by its dotted name.
    pub origins: BTreeMap<String, Origin>,
    /// Warnings for the operator that do not stop the start, a sentence each.
    pub warnings: Vec<String>,
}

impl Sources {
    /// The given files and flags, this process's environment, and the usual places.
    pub fn of_process(files: Vec<PathBuf>, overrides: Vec<String>) -> Self {
        Self {
            files,
            searched: SEARCHED_FILES.iter().map(PathBuf::from).collect(),
            environment: std::env::vars_os().collect(),
            overrides,
            listen: Vec::new(),
        }
    }

    fn files_to_read(&self) -> Vec<PathBuf> {
        let named = self.environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        match named {
            _ if !self.files.is_empty() => self.files.clone(),
            Some((_, path)) => vec![PathBuf::from(path)],
            None => self.searched.iter().find(|path| path.exists()).cloned().into_iter().collect(),
        }
    }
}

/// Reads, merges and checks the whole configuration.
///
/// # Errors
/// Every problem found, not only the first.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut layers = Layers { merged: defaults(), ..Layers::default() };
    let files = sources.files_to_read();
    for path in &files {
        match read_file(path) {
            Ok(values) => layers.add(values, &Origin::File(path.clone())),
            Err(problem) => layers.problems.push(problem),
        }
    }
    layers.add_environment(&sources.environment);
    for assignment in &sources.overrides {
        layers.add_override(assignment);
    }
    if !sources.listen.is_empty()
        && let Ok(listeners) = toml::Value::try_from(&sources.listen)
    {
        layers.add(nested("listeners", listeners), &Origin::Flag("--listen"));
    }
    let Layers { merged, origins, mut problems, mut warnings } = layers;
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let config: Config = match toml::Value::Table(merged).try_into() {
        Ok(config) => config,
        // Every key was already read once, so an error here is a gap in `check`.
        Err(error) => {
            return Err(Problems(vec![Problem::new("", error.message(), "check the files' keys")]));
        }
    };
    if let Err(found) = config.validate() {
        let place = |problem: Problem| {
            let origin = origin_of(&origins, &problem.key);
            problem.from_origin(origin)
        };
        problems.extend(found.into_iter().map(place));
        return Err(Problems(problems));
    }
    warnings.extend(config.warnings());
    Ok(Loaded { config, files, origins, warnings })
}

/// The origin of the value of `key`. For a section, the origin of any of its keys.
pub fn origin_of(origins: &BTreeMap<String, Origin>, key: &str) -> Origin {
    let mut key = key;
    loop {
        if let Some(origin) = origins.get(key) {
            return origin.clone();
        }
        match key.rfind(['.', '[']) {
            Some(end) => key = &key[..end],
            None => return Origin::Default,
        }
    }
}

#[derive(Default)]
struct Layers {
    merged: toml::Table,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Layers {
    /// Checks `values` and merges them over the earlier ones.
    fn add(&mut self, values: toml::Table, origin: &Origin) {
        let found = check(&values);
        if found.is_empty() {
            merge(&mut self.merged, values, "", origin, &mut self.origins);
        }
        self.problems.extend(found.into_iter().map(|problem| problem.from_origin(origin.clone())));
    }

    fn add_environment(&mut self, environment: &[(OsString, OsString)]) {
        let mut ours: Vec<_> = environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value))).collect();
        ours.retain(|(name, _)| name.starts_with(PREFIX) && *name != FILE_VARIABLE);
        ours.retain(|(name, _)| !FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        ours.sort_unstable();
        for (name, value) in ours {
            let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            let origin = Origin::Environment(name.to_owned());
            let Some(value) = value.to_str() else {
                let problem = Problem::new(key, "is not UTF-8 text", "write it in UTF-8").from_origin(origin);
                self.problems.push(problem);
                continue;
            };
            if check::find(&key).is_none() && nearest_key(&key).is_none() {
                // Others, such as a container platform, may use the prefix too. Only a likely typo stops us.
                self.warnings.push(format!("the environment variable {name} is not a known key and has no effect"));
                continue;
            }
            self.add_assignment(&key, value, &origin);
        }
    }

    fn add_override(&mut self, assignment: &str) {
        let origin = Origin::Flag("-O");
        match assignment.split_once('=') {
            Some((key, value)) => self.add_assignment(key.trim(), value.trim(), &origin),
            // The message does not repeat the text, which may be a secret.
            None => {
                let problem = Problem::new(
                    "",
                    "an override has no `=`",
                    "write -O KEY=VALUE, such as -O server_name=example.com",
                );
                self.problems.push(problem.from_origin(origin));
            }
        }
    }

    fn add_assignment(&mut self, key: &str, text: &str, origin: &Origin) {
        let Some(field) = check::find(key) else {
            let known = nearest_key(key);
            let remedy = known.map_or_else(
                || "see docs/operating/configuration.md".to_owned(),
                |known| format!("did you mean `{known}`?"),
            );
            self.problems.push(Problem::new(key, "is not a known key", remedy).from_origin(origin.clone()));
            return;
        };
        self.add(nested(key, unquoted(text, field.check)), origin);
    }
}

/// Reads the value in `text`: as text if the key takes text, otherwise as TOML. So text needs no quotes.
fn unquoted(text: &str, check: fn(&toml::Value) -> Fit) -> toml::Value {
    let parsed =
        toml::from_str::<toml::Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
    let quoted = toml::Value::String(text.to_owned());
    match parsed {
        Some(parsed @ toml::Value::String(_)) => parsed,
        Some(parsed) if check(&quoted) == Fit::WrongType => parsed,
        _ => quoted,
    }
}

/// The whole key that is most similar to `key`.
fn nearest_key(key: &str) -> Option<String> {
    /// Keys with less similarity are probably not meant for us.
    const LIKENESS: f64 = 0.75;
    let likeness = |known: &String| strsim::normalized_damerau_levenshtein(key, known);
    let known = check::dotted_keys(check::schema(), "");
    let nearest = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) >= LIKENESS).then_some(nearest)
}

/// The built-in values as the lowest layer.
fn defaults() -> toml::Table {
    toml::Table::try_from(Config::default()).expect("every setting's own form is TOML; a test loads the defaults")
}

fn nested(key: &str, value: toml::Value) -> toml::Table {
    let mut value = value;
    for part in key.rsplit('.') {
        value = toml::Value::Table(toml::Table::from_iter([(part.to_owned(), value)]));
    }
    match value {
        toml::Value::Table(table) => table,
        other => toml::Table::from_iter([(String::new(), other)]),
    }
}

fn merge(
    into: &mut toml::Table,
    from: toml::Table,
    prefix: &str,
    origin: &Origin,
    origins: &mut BTreeMap<String, Origin>,
) {
    for (name, value) in from {
        let key = format!("{prefix}{name}");
        match (into.get_mut(&name), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(values)) => {
                merge(below, values, &format!("{key}."), origin, origins);
            }
            (_, value) => {
                origins.insert(key, origin.clone());
                into.insert(name, value);
            }
        }
    }
}

fn read_file(path: &Path) -> Result<toml::Table, Problem> {
    let problem =
        |wrong: String, remedy: &str| Problem::new("", wrong, remedy).from_origin(Origin::File(path.to_owned()));
    let text = std::fs::read_to_string(path).map_err(|error| {
        problem(format!("cannot be read: {error}"), "name a readable file, or make one with `sabha init`")
    })?;
    toml::from_str(&text).map_err(|error| {
        // Without its `Display`, which repeats the line and could show a password.
        let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        problem(format!("line {line} is not TOML: {}", error.message()), "put that line right")
    })
}

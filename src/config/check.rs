//! Checks of a file key by key, before serde sees it, so that *every* mistake is found at once, each with its place.

use super::Config;
use super::keys::{Field, Fit, Setting, Shape, Table};
use super::problem::Problem;

/// Minimum similarity of a suggested key: that of `sever_name` to `server_name` is 0.9.
const LIKENESS: f64 = 0.6;

/// The description of every key.
pub fn schema() -> Table {
    match Config::SHAPE {
        Shape::Table(table) => table,
        Shape::Leaf { .. } | Shape::Tables(_) => unreachable!("`section!` declares tables"),
    }
}

/// Finds the mistakes in the keys and values of `values`. The caller fills in the origins.
pub fn check(values: &toml::Table) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_table(values, schema(), "", &mut problems);
    problems
}

fn check_table(values: &toml::Table, table: Table, prefix: &str, problems: &mut Vec<Problem>) {
    for (name, value) in values {
        let key = format!("{prefix}{name}");
        match table.fields.iter().find(|field| field.key == name) {
            Some(field) => check_value(value, field, &key, problems),
            None => problems.push(unknown(name, &key, table)),
        }
    }
}

fn check_value(value: &toml::Value, field: &Field, key: &str, problems: &mut Vec<Problem>) {
    match (field.shape, value) {
        (Shape::Table(table), toml::Value::Table(values)) => check_table(values, table, &format!("{key}."), problems),
        (Shape::Table(_), _) => {
            problems.push(Problem::new(key, "is a section", format!("write [{key}] and its keys below it")))
        }
        (Shape::Tables(table), toml::Value::Array(elements)) => {
            for (n, element) in elements.iter().enumerate() {
                match element {
                    toml::Value::Table(values) => check_table(values, table, &format!("{key}[{n}]."), problems),
                    _ => problems.push(not_a_list_of_sections(key)),
                }
            }
        }
        (Shape::Tables(_), _) => problems.push(not_a_list_of_sections(key)),
        (Shape::Leaf { leaf, many }, _) => match (field.check)(value) {
            Fit::Fits => {}
            Fit::WrongType => {
                let written = if leaf.secret { "what is written".to_owned() } else { excerpt(value) };
                let (kind, write) = if many {
                    (format!("a list in which each is {}", leaf.kind), format!("write a list in [ ] of {}", leaf.write))
                } else {
                    (leaf.kind.to_owned(), format!("write {}", leaf.write))
                };
                problems.push(Problem::new(key, format!("is wrong: {written} is not {kind}"), write));
            }
            Fit::OutOfBounds => {
                let (low, high) = (field.bounds)().unwrap_or_default();
                let wrong = format!("is out of bounds: {}", excerpt(value));
                problems.push(Problem::new(key, wrong, format!("write a value from {low} to {high}")));
            }
        },
    }
}

fn not_a_list_of_sections(key: &str) -> Problem {
    Problem::new(key, "is a list of sections", format!("write [[{key}]] and its keys below it"))
}

/// The value as it was written, at most one short line of it.
fn excerpt(value: &toml::Value) -> String {
    const LENGTH_CHARS: usize = 60;
    let written = value.to_string().replace('\n', " ");
    match written.char_indices().nth(LENGTH_CHARS) {
        Some((end, _)) => format!("`{}…`", &written[..end]),
        None => format!("`{written}`"),
    }
}

fn unknown(name: &str, key: &str, table: Table) -> Problem {
    let remedy = match suggest(name, table) {
        Some(known) => format!("did you mean `{known}`?"),
        None => {
            let known: Vec<&str> = table.fields.iter().map(|field| field.key).collect();
            format!("here you can write {}", known.join(", "))
        }
    };
    Problem::new(key, "is not a known key", remedy)
}

/// The key that was probably meant by `name` in `table`: the most similar one there, or the same name in another
/// section.
pub fn suggest(name: &str, table: Table) -> Option<String> {
    let likeness = |field: &Field| strsim::normalized_damerau_levenshtein(name, field.key);
    let nearest = table.fields.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    if likeness(nearest) >= LIKENESS {
        return Some(nearest.key.to_owned());
    }
    dotted_keys(schema(), "").into_iter().find(|key| key.rsplit('.').next() == Some(name))
}

/// Every key of a table and of the sections below it, with its sections.
pub fn dotted_keys(table: Table, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for field in table.fields {
        let key = format!("{prefix}{}", field.key);
        match field.shape {
            Shape::Leaf { .. } | Shape::Tables(_) => keys.push(key),
            Shape::Table(below) => keys.extend(dotted_keys(below, &format!("{key}."))),
        }
    }
    keys
}

/// The description of the key at `path`, if there is one.
pub fn find(path: &str) -> Option<&'static Field> {
    let mut table = schema();
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let field = table.fields.iter().find(|field| field.key == part)?;
        match field.shape {
            _ if parts.peek().is_none() => return Some(field),
            Shape::Table(below) => table = below,
            Shape::Leaf { .. } | Shape::Tables(_) => return None,
        }
    }
    None
}

//! The reference for operators, `docs/operating/configuration.md`, generated from the declarations of the sections.
//!
//! The test below compares the committed file. `UPDATE_DOCS=1 cargo test --lib config::reference` writes it again.

use super::Config;
use super::check::schema;
use super::keys::{Field, Shape};
use super::sources::SEARCHED_FILES;

const HEAD: &str = "\
# Configuration

<!-- Generated from src/config by `UPDATE_DOCS=1 cargo test --lib config::reference`. Change it there. -->

Without any configuration Sabha runs in local mode: for playing, on this machine only. `sabha init` writes a file for a
real server. `sabha config check` says what is wrong with it, `sabha config show` what is in force and where each value
comes from.

Values come from, the later over the earlier, key by key:

1. the defaults below;
2. one file, the first of: `-c FILE` (repeatable, merged in order), `$SABHA_CONFIG`, SEARCHED;
3. the environment: `SABHA_SERVER_NAME=example.com`, and with the section before two underscores
   `SABHA_DATABASE__URL=postgres://…`;
4. flags: `-O KEY=VALUE`, without quotes: `-O registration.mode=token`.

Unknown keys are errors. A length of time is written `\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"` or `\"7d\"`; a size as a number of bytes
or `\"64 KiB\"`, `\"1 MiB\"`. A key that is *unset* by default has no value, or one that follows from others, as it says.
";

/// The whole reference, in Markdown.
pub fn render() -> String {
    let defaults =
        toml::Table::try_from(Config::default()).expect("every setting's own form is TOML; a test loads the defaults");
    let mut page = HEAD.replace("SEARCHED", &SEARCHED_FILES.map(|path| format!("`{path}`")).join(", "));
    page.push_str("\n## Top level\n\n");
    let (top, sections): (Vec<&Field>, Vec<&Field>) =
        schema().fields.iter().partition(|field| matches!(field.shape, Shape::Leaf { .. }));
    push_section(&mut page, "", schema().doc, &top, Some(&defaults));
    for section in sections {
        let listener;
        let (heading, table, defaults) = match section.shape {
            Shape::Leaf { .. } => continue,
            Shape::Table(table) => {
                (format!("[{}]", section.key), table, defaults.get(section.key).and_then(toml::Value::as_table))
            }
            Shape::Tables(table) => {
                listener = toml::Table::try_from(super::Listener::default()).ok();
                (format!("[[{}]]", section.key), table, listener.as_ref())
            }
        };
        page.push_str(&format!("\n## `{heading}`\n\n"));
        let fields: Vec<&Field> = table.fields.iter().collect();
        push_section(&mut page, &format!("{}.", section.key), table.doc, &fields, defaults);
    }
    page
}

/// Writes a section's text and all its keys, with those of the sections below it: eight rate limits are one table.
fn push_section(page: &mut String, prefix: &str, doc: &[&str], fields: &[&Field], defaults: Option<&toml::Table>) {
    page.push_str(&text(doc));
    page.push_str("\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
    push_rows(page, prefix, "", fields, defaults);
}

fn push_rows(page: &mut String, prefix: &str, about: &str, fields: &[&Field], defaults: Option<&toml::Table>) {
    for field in fields {
        let key = format!("{prefix}{}", field.key);
        let meaning = format!("{about}{}", text(field.doc)).replace('|', "\\|");
        let default = defaults.and_then(|defaults| defaults.get(field.key));
        match field.shape {
            Shape::Leaf { .. } => {
                let default = default.map_or_else(|| "*unset*".to_owned(), |value| format!("`{value}`"));
                page.push_str(&format!("| `{key}` | {} | {default} | {meaning} |\n", kind(field)));
            }
            Shape::Table(below) | Shape::Tables(below) => {
                let below: Vec<&Field> = below.fields.iter().collect();
                push_rows(
                    page,
                    &format!("{key}."),
                    &format!("{meaning} "),
                    &below,
                    default.and_then(toml::Value::as_table),
                );
            }
        }
    }
}

fn kind(field: &Field) -> String {
    let Shape::Leaf { leaf, many } = field.shape else { return String::new() };
    let kind = if many { format!("list, each {}", leaf.kind) } else { leaf.kind.to_owned() };
    match (field.bounds)() {
        Some((low, high)) => format!("{kind}, {low} to {high}"),
        None => kind,
    }
}

/// Joins a doc comment to one paragraph.
fn text(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_committed_reference_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating/configuration.md");
        let generated = super::render();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &generated).expect("the docs are writable");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "{} is out of date: UPDATE_DOCS=1 cargo test --lib config::reference",
            path.display()
        );
    }

    #[test]
    fn every_key_is_in_the_reference_with_a_meaning() {
        let page = super::render();
        for key in super::super::check::dotted_keys(super::schema(), "") {
            let row =
                page.lines().find(|line| line.contains(&format!("`{key}`")) || line.contains(&format!("`[[{key}]]`")));
            let row = row.unwrap_or_else(|| panic!("no row for {key}"));
            assert!(row.starts_with('#') || row.len() > key.len() + 40, "{row}");
        }
    }
}

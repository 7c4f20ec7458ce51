//! The effective configuration as a listing: each key, its value and its origin. Secrets are masked, because
//! [`super::DatabaseUrl`] has no other serde form.

use serde::Serialize;

use super::check::{dotted_keys, schema};
use super::sources::{Loaded, origin_of};

/// One line of `sabha config show`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownSetting {
    /// The key with its sections, `database.url`, or `listeners[0].address`.
    pub key: String,
    /// `None` if unset, and no value follows from other keys.
    pub value: Option<toml::Value>,
    /// `default`, `file`, `environment` or `flag`.
    pub origin: &'static str,
    /// The file, variable or flag, or `default` if built in.
    pub from: String,
}

impl Loaded {
    /// Lists every key in the order of the reference, including values that follow from other keys.
    pub fn entries(&self) -> Vec<ShownSetting> {
        let mut config = self.config.clone();
        config.database.url = Some(config.database_url());
        config.client.base_url = Some(config.client_base_url(None));
        config.federation.well_known_server = config.well_known_server();
        let values =
            toml::Table::try_from(&config).expect("every setting's own form is TOML; a test lists the defaults");
        let mut entries = Vec::new();
        for key in dotted_keys(schema(), "") {
            let value = find(&values, &key);
            match value {
                Some(toml::Value::Array(elements)) if elements.iter().any(toml::Value::is_table) => {
                    for (n, element) in elements.iter().enumerate() {
                        self.flatten(&format!("{key}[{n}]"), element, &mut entries);
                    }
                }
                _ => entries.push(self.entry(key, value.cloned())),
            }
        }
        entries
    }

    fn flatten(&self, key: &str, value: &toml::Value, entries: &mut Vec<ShownSetting>) {
        match value {
            toml::Value::Table(values) => {
                for (name, value) in values {
                    self.flatten(&format!("{key}.{name}"), value, entries);
                }
            }
            value => entries.push(self.entry(key.to_owned(), Some(value.clone()))),
        }
    }

    fn entry(&self, key: String, value: Option<toml::Value>) -> ShownSetting {
        let origin = origin_of(&self.origins, &key);
        ShownSetting { key, value, origin: origin.kind(), from: origin.to_string() }
    }
}

fn find<'a>(values: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    match key.split_once('.') {
        Some((section, rest)) => find(values.get(section)?.as_table()?, rest),
        None => values.get(key),
    }
}

/// The listing for people: `key = value  # origin`, in columns.
pub fn render(entries: &[ShownSetting]) -> String {
    let lines: Vec<(String, &str)> = entries
        .iter()
        .map(|entry| match &entry.value {
            Some(value) => (format!("{} = {value}", entry.key), entry.from.as_str()),
            None => (format!("# {} is unset", entry.key), entry.from.as_str()),
        })
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    lines.iter().map(|(line, from)| format!("{line:width$}  # {from}\n")).collect()
}

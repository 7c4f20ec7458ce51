//! Rules for the whole store, on both engines: every query text is valid, every table has an owner and an end.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Empty, INSERTS, STATEMENTS};
use crate::store::rows::MAX_CHUNK;

#[tokio::test]
async fn every_statement_is_valid_on_both_engines() {
    let mut refused = String::new();
    for mut empty in Empty::both().await {
        let engine = if empty.is_postgres() { "PostgreSQL" } else { "SQLite" };
        let statements =
            STATEMENTS.iter().flat_map(|(file, all)| all.iter().map(move |(name, sql)| (*file, *name, sql.text())));
        let mut texts: Vec<_> = statements.collect();
        for (file, inserts) in INSERTS {
            for insert in *inserts {
                let largest = MAX_CHUNK.ilog2() as usize;
                texts.extend([0, largest].map(|size| (*file, insert.table, insert.text(size, empty.is_postgres()))));
            }
        }
        for (file, inserts) in INSERTS {
            for insert in *inserts {
                if let Err(error) = empty.prepare_one_call(insert).await {
                    refused.push_str(&format!("{engine}, {file} {} in one call: {error}\n", insert.table));
                }
            }
        }
        for (file, name, text) in texts {
            if let Err(error) = empty.prepare(text).await {
                refused.push_str(&format!("{engine}, {file} {name}: {error}\n"));
            }
        }
    }
    assert!(refused.is_empty(), "refused:\n{refused}");
}

/// Rows of one commit that replace each other are found by their [`Insert`].
#[test]
fn no_table_has_two_inserts() {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, inserts) in INSERTS {
        inserts.iter().for_each(|insert| tables.entry(insert.table).or_default().push(file));
    }
    tables.retain(|_, files| files.len() > 1);
    assert!(tables.is_empty(), "{tables:?}");
}

/// Tables that the store alone writes, each with a statement of its own. Nobody follows them.
const OWN_TABLES: [&str; 5] = ["counter", "incarnation", "log_cursor", "server_info", "writer_slot"];

/// Each [`Insert`] says by which touch its table is followed, or that it is not.
#[test]
fn every_table_says_whether_it_is_followed() {
    let inserts = INSERTS.iter().flat_map(|(_, inserts)| inserts.iter().map(|insert| insert.table));
    let mut known: Vec<&str> = inserts.chain(OWN_TABLES).collect();
    known.sort_unstable();
    assert_eq!(known, declared("sqlite").keys().collect::<Vec<_>>());
}

#[test]
fn the_lists_of_query_texts_and_inserts_are_complete() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut missing = String::new();
    for path in files(&store) {
        let text = fs::read_to_string(&path).expect("our own source");
        let name = path.strip_prefix(&store).expect("it lies below").display().to_string();
        let begins = |start: &str| text.lines().any(|line| line == start);
        if begins("statements! {") && !STATEMENTS.iter().any(|(file, _)| *file == name) {
            missing.push_str(&format!("STATEMENTS: {name}\n"));
        }
        if begins("inserts! {") && !INSERTS.iter().any(|(file, _)| *file == name) {
            missing.push_str(&format!("INSERTS: {name}\n"));
        }
    }
    assert!(missing.is_empty(), "add to the lists in src/store/tests.rs:\n{missing}");
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("our own source").map(|entry| entry.expect("readable").path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    dirs.iter().flat_map(|dir| self::files(dir)).chain(files).collect()
}

/// The tables that the migrations declare: name to owner and end.
fn declared(engine: &str) -> BTreeMap<String, (String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
    let mut tables = BTreeMap::new();
    for path in files(&dir) {
        for line in fs::read_to_string(&path).expect("our own migrations").lines() {
            let Some(declaration) = line.strip_prefix("-- table: ") else {
                continue;
            };
            let parts: Vec<_> = declaration.splitn(3, " | ").collect();
            let [name, owner, ends] = parts[..] else { panic!("{}: {line}", path.display()) };
            let owner = owner.strip_prefix("owner: ").unwrap_or_else(|| panic!("no owner: {line}"));
            let ends =
                ends.strip_prefix("ends: ").filter(|ends| !ends.is_empty()).unwrap_or_else(|| panic!("no end: {line}"));
            tables.insert(name.to_owned(), (owner.to_owned(), ends.to_owned()));
        }
    }
    tables
}

#[test]
fn both_engines_declare_the_same_tables() {
    assert_eq!(declared("sqlite"), declared("postgres"));
}

#[tokio::test]
async fn every_table_has_an_owner_and_an_end_of_life() {
    for mut empty in Empty::both().await {
        let declared = declared(if empty.is_postgres() { "postgres" } else { "sqlite" });
        assert_eq!(empty.tables().await, declared.keys().cloned().collect::<Vec<_>>());
        for (table, (owner, _)) in declared {
            let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&owner);
            assert!(module.with_extension("rs").exists(), "{table} is owned by {owner}, which is no module of src/");
        }
    }
}

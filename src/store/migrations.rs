//! The schema of each engine: the files below `migrations`, in the program itself.
//!
//! Listed here by hand and not by sqlx's macro, whose crate builds all of sqlx, both engines and TLS once more for the
//! compiler's own use.

use std::borrow::Cow;

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// The files of one engine, in their order.
type Files = [(&'static str, &'static str)];

/// Lists the files of a folder by the names they have there.
macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../migrations/", $folder, "/", $name)))),+]
    };
}

const SQLITE: &Files = files!("sqlite": "0001_initial.sql");
const POSTGRES: &Files = files!("postgres": "0001_initial.sql");

/// The version of the schema that this release knows.
pub(super) const LATEST: i64 = SQLITE.len() as i64;

pub(super) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

pub(super) fn postgres() -> Migrator {
    migrator(POSTGRES)
}

/// The number of a file is its place: files are only added, at the end.
fn migrator(files: &Files) -> Migrator {
    let migration = |(version, (name, text)): (i64, &(&'static str, &'static str))| {
        let description = name.trim_end_matches(".sql").split_once('_').map_or("", |(_, description)| description);
        let description = Cow::Owned(description.replace('_', " "));
        Migration::new(version, description, MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(files).map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_file_is_listed_at_the_place_of_its_number() {
        for (folder, files) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let entries = fs::read_dir(path).expect("the repository is readable");
            let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name().into_string();
            let mut found: Vec<String> = entries.map(|entry| name(entry).expect("our names are ASCII")).collect();
            found.sort();
            let listed: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
            assert_eq!(listed, found, "{folder}");
            for (version, name) in (1..).zip(&listed) {
                assert!(name.starts_with(&format!("{version:04}_")), "{name}");
            }
        }
        assert_eq!(SQLITE.len(), POSTGRES.len(), "both engines have one schema");
    }
}

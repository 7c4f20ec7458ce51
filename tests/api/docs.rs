//! Checks that files and spans named in the documentation exist.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The first folders of paths in the documentation.
const TOP_FOLDERS: [&str; 6] = ["src/", "federation/", "tests/", "benches/", "docs/", "migrations/"];

/// Finds all files below `folder` with this extension.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the repository is readable") {
        let path = entry.expect("the repository is readable").path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the repository is readable")
}

/// Lists our documentation: the files below `docs`, and the Markdown files of the root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root().join("docs"), "md", &mut found);
    found.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    found
}

/// Returns the names that the source passes to `debug_span!`.
fn spans() -> BTreeSet<String> {
    let mut sources = Vec::new();
    files(&root().join("src"), "rs", &mut sources);
    let in_file = |path: &PathBuf| -> Vec<String> {
        let text = read(path);
        let names = text.split("debug_span!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        names.map(str::to_owned).collect()
    };
    sources.iter().flat_map(in_file).collect()
}

#[test]
fn each_step_of_a_walkthrough_is_a_span_and_each_span_is_in_a_walkthrough() {
    let mut walkthroughs = Vec::new();
    files(&root().join("docs/walkthroughs"), "md", &mut walkthroughs);
    let steps = |path: &PathBuf| -> Vec<String> {
        let text = read(path);
        let names = text.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
        names.map(str::to_owned).collect()
    };
    let steps: BTreeSet<String> = walkthroughs.iter().flat_map(steps).collect();
    assert_eq!(steps, spans());
}

#[test]
fn every_path_that_the_documentation_names_exists() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = read(&document);
        // Paths in backticks start at the root, links at the document's folder.
        let code = text.split('`').skip(1).step_by(2);
        let named = code.filter(|code| TOP_FOLDERS.iter().any(|top| code.starts_with(top)));
        let folder = document.parent().expect("a file is in a folder");
        let linked = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let linked = linked.filter(|link| !link.is_empty() && !link.contains("://"));
        let places = named.map(|path| root().join(path)).chain(linked.map(|path| folder.join(path)));
        missing.extend(places.filter(|path| !path.exists()).map(|path| (document.clone(), path)));
    }
    assert_eq!(missing, []);
}

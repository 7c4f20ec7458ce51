//! The order of the modules: each imports only from those below it, so that the way down through the code has an end.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The modules from the bottom up, as `src/lib.rs` describes them.
const FLOORS: [&str; 36] = [
    "report",
    "limit_exceeded",
    "clock",
    "glob",
    "json",
    "memory",
    "network",
    "store",
    "shares",
    "bus",
    "appservice",
    "config",
    "account",
    "account_data",
    "room",
    "keys",
    "ephemeral",
    "push",
    "filter",
    "lazy_members",
    "limits",
    "outbound",
    "remote",
    "jobs",
    "http",
    "app",
    "use_cases",
    "endpoint",
    "sync",
    "client_api",
    "federation_api",
    "admin_api",
    "synapse_admin",
    "server",
    "cli",
    "main",
];

/// The names of a text's imports from other modules of the crate.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n")
        .collect();
    let name = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => _ = found.insert(name(rest)),
            Some(tree) => found.extend(branches(tree).iter().map(|branch| name(branch.trim_start()))),
        }
    }
    found.remove("");
    found
}

/// The outermost branches of a tree of imports, whose opening brace is read already.
fn branches(tree: &str) -> Vec<String> {
    let mut depth = 0;
    let mut branches = vec![String::new()];
    for c in tree.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => branches.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                branches.last_mut().expect("there is one").push(c);
            }
        }
    }
    branches
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources are readable");
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("the sources are readable").path()) {
        if path.is_dir() && !path.ends_with("tests") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn no_module_imports_from_above() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floor = |module: &str| {
        let found = FLOORS.iter().position(|floor| *floor == module);
        found.unwrap_or_else(|| panic!("the module {module} has no place in FLOORS"))
    };
    let mut up: BTreeSet<String> = BTreeSet::new();
    for path in sources(&src) {
        let below = path.strip_prefix(&src).expect("it is in there");
        let top = below.components().next().expect("it has a name").as_os_str().to_string_lossy();
        let top = top.trim_end_matches(".rs");
        if top == "lib" {
            continue;
        }
        let text = fs::read_to_string(&path).expect("the sources are readable");
        let above = imports(&text).into_iter().filter(|module| floor(module) > floor(top));
        up.extend(above.map(|module| format!("{top} {module}")));
    }
    assert!(up.is_empty(), "modules that import from above, each with the one above: {up:?}");
}

#[test]
fn imports_are_found_in_trees_and_in_paths() {
    let text = "use crate::{\n    app::{App, x},\n    store::{self, ids::{lock}},\n};\nfn f() { crate::bus::g(); }\n// crate::none\n";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["app", "bus", "store"]);
}

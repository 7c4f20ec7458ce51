//! Inputs that other servers could send: the corpus in `federation/fuzz`, and thousands of mutations of it. Events are read
//! in [`crate::received`], too.
//!
//! Promise of every parser: no input makes it panic. Its result and its errors have bounds, and it reads its result again
//! as what it was. Each run uses the same seeds, and a failure names its seed.

mod advisories;
mod canonical_json;
mod keys;
pub(crate) mod mutations;
mod well_known;
mod x_matrix;

use std::{error::Error, fs, panic::catch_unwind, path::Path};

use rand::{SeedableRng as _, rngs::StdRng};
use ruma::OwnedServerName;

use crate::ServerSigner;

/// The files of a folder of the corpus with their names.
pub(crate) fn corpus(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Checks that the names of a folder's files say which of them are good.
fn names_say(folder: &str, is_good: impl Fn(&str) -> bool) {
    let prefix = |text: &str| if is_good(text) { "kept-" } else { "dropped-" };
    let wrong: Vec<_> = corpus(folder).into_iter().filter(|(name, text)| !name.starts_with(prefix(text))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs `check` on the inputs that `make` makes of so many seeds. Returns how many of them were good.
pub(crate) fn each_seed<T: std::fmt::Debug + std::panic::RefUnwindSafe>(
    seeds: u64,
    make: impl Fn(&mut StdRng) -> T,
    check: impl Fn(&T) -> bool + std::panic::RefUnwindSafe,
) -> u64 {
    let mut good = 0;
    for seed in 0..seeds {
        let input = make(&mut StdRng::seed_from_u64(seed));
        let result = catch_unwind(|| check(&input));
        good += u64::from(result.unwrap_or_else(|_| panic!("seed {seed}: {input:?}")));
    }
    good
}

/// The bytes of an error with its causes.
pub(crate) fn length_with_causes(error: &dyn Error) -> usize {
    error.to_string().len() + error.source().map_or(0, length_with_causes)
}

/// The keys with which the corpus is signed: the one of `example.org`, the one that it used before, and that of `evil.test`.
fn signers() -> [ServerSigner; 3] {
    let signer = |server: &str, key: &str| {
        ServerSigner::from_key_file(OwnedServerName::try_from(server).unwrap(), &format!("ed25519 {key}")).unwrap()
    };
    [
        signer("example.org", "now AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"),
        signer("example.org", "old AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI"),
        signer("evil.test", "1 AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM"),
    ]
}

//! Power losses: data that the operating system had not written to the disk is lost, or kept in part.
//!
//! A small library (`powerloss.c`), compiled here and preloaded into the server, records each write and each sync of
//! files in the data directory. A power loss is a SIGKILL. After it, the writes since a file's last sync are undone,
//! and a random part of them is done again, torn into sectors. Creating, renaming and removing a file counts as durable
//! at once. SQLite's `-shm` is only memory, and is removed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rand::{RngExt as _, rngs::StdRng};

use crate::{
    Run,
    kills::{Counts, Load},
    process::Data,
};

/// A disk writes a sector completely or not at all.
const SECTOR: usize = 512;

/// Longest time of the load before the loss. Long enough that some losses hit a checkpoint.
const LOAD_MS: u64 = 250;

/// The part of the unsynced writes that survives.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    /// The first ones, in order.
    Beginning,
    /// Any sectors of any of them.
    Sectors,
}

/// With `durability = "power"`, all answered data survives a power loss.
pub fn lose_nothing(run: Run) -> Option<String> {
    let shim = Shim::compile()?;
    let losses = (run.kills * 3).div_ceil(20).max(3);
    Some(Run::block_on(async {
        let mut rng = run.rng();
        let data = shim.watch(Data::on_sqlite("power"));
        let mut server = data.start();
        let mut load = Load::prepare(&server.api, &mut rng).await;
        let (mut counts, mut lost_bytes) = (Counts::default(), 0);
        for _ in 0..losses {
            load.run_until_killed(server, Duration::from_millis(rng.random_range(0..LOAD_MS))).await;
            let left = [Left::Nothing, Left::Beginning, Left::Sectors][rng.random_range(0..3)];
            lost_bytes += shim.lose_power(&data.data_dir(), left, &mut rng);
            server = data.start();
            load.check(&server.api, &mut counts).await;
        }
        load.read_again(&server.api).await;
        format!("{losses} losses of {lost_bytes} unsynced bytes, {} events answered", counts.events)
    }))
}

/// Shows that the test above can fail: with `durability = "process"` a power loss removes answered data, and leaves a
/// valid database.
pub fn show_what_was_not_synced(run: Run) -> Option<String> {
    let shim = Shim::compile()?;
    Some(Run::block_on(async {
        let mut rng = run.rng();
        for (durability, expected) in [("process", 401), ("power", 200)] {
            let data = shim.watch(Data::on_sqlite(durability));
            let server = data.start();
            let alice = server.api.register("alice").await;
            let token = crate::api::text(&alice, "access_token");
            server.kill();
            let lost = shim.lose_power(&data.data_dir(), Left::Nothing, &mut rng);
            assert!(durability == "power" || lost > 0, "everything was synced");
            let status = data.start().api.status("/account/whoami", token).await;
            assert_eq!(status, expected, "alice's token, with durability {durability}");
        }
        "1 account lost, 1 kept".to_owned()
    }))
}

/// The library that records writes.
struct Shim {
    dir: tempfile::TempDir,
}

impl Shim {
    /// Compiles the library. `None` where libraries cannot be preloaded.
    fn compile() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            println!("skipped: only Linux preloads libraries like this");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("sabha-powerloss-").tempdir().expect("a temporary directory");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.path().join("powerloss.so"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/powerloss.c"))
            .args(["-ldl", "-lpthread"])
            .output()
            .expect("a C compiler, which building SQLite needs as well");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(Self { dir })
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn watch(&self, mut data: Data) -> Data {
        let text = |path: PathBuf| path.into_os_string().into_string().expect("temporary directories have plain names");
        data.environment = vec![
            ("LD_PRELOAD".to_owned(), text(self.dir.path().join("powerloss.so"))),
            ("POWERLOSS_LOG".to_owned(), text(self.log())),
            ("POWERLOSS_DIR".to_owned(), text(data.data_dir())),
        ];
        data
    }

    /// Undoes the unsynced writes, except for the part that is `left`. Returns the number of their bytes.
    fn lose_power(&self, data_dir: &Path, left: Left, rng: &mut StdRng) -> usize {
        let log = fs::read(self.log()).expect("the library has made it");
        fs::remove_file(self.log()).expect("it is ours");
        let mut unsynced: BTreeMap<PathBuf, Vec<Record>> = BTreeMap::new();
        let mut rest = &log[..];
        while let Some(record) = Record::read(&mut rest) {
            match record.kind {
                Kind::Write | Kind::Truncate => unsynced.entry(record.path.clone()).or_default().push(record),
                Kind::Sync | Kind::Unlink => drop(unsynced.remove(&record.path)),
                Kind::Rename => {
                    let records = unsynced.remove(&record.path).unwrap_or_default();
                    let new_path = String::from_utf8(record.new).expect("a path of ours");
                    unsynced.insert(new_path.into(), records);
                }
            }
        }
        let mut bytes = 0;
        for (path, records) in unsynced {
            if !is_memory(&path) {
                bytes += records.iter().map(|record| record.new.len()).sum::<usize>();
                lose(&path, &records, left, rng);
            }
        }
        for file in fs::read_dir(data_dir).expect("it is there").map(|file| file.expect("readable").path()) {
            if is_memory(&file) {
                fs::remove_file(file).expect("it is ours");
            }
        }
        bytes
    }
}

/// Returns whether this is SQLite's index of its log, which SQLite never syncs and builds again.
fn is_memory(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"-shm")
}

fn lose(path: &Path, records: &[Record], left: Left, rng: &mut StdRng) {
    // A file that does not exist was removed after these writes.
    let Ok(file) = OpenOptions::new().write(true).open(path) else {
        return;
    };
    for record in records.iter().rev() {
        write_all(&file, &record.old, record.offset);
        file.set_len(record.old_size).expect("it is ours");
    }
    let kept = match left {
        Left::Nothing => 0,
        Left::Beginning => rng.random_range(0..=records.len()),
        Left::Sectors => records.len(),
    };
    for record in &records[..kept] {
        if matches!(record.kind, Kind::Truncate) {
            if !matches!(left, Left::Sectors) || rng.random() {
                file.set_len(record.offset).expect("it is ours");
            }
            continue;
        }
        let mut offset = record.offset;
        let mut rest = &record.new[..];
        while !rest.is_empty() {
            let to_boundary = SECTOR - offset as usize % SECTOR;
            let (sector, after) = rest.split_at(to_boundary.min(rest.len()));
            if !matches!(left, Left::Sectors) || rng.random() {
                write_all(&file, sector, offset);
            }
            offset += sector.len() as u64;
            rest = after;
        }
    }
}

fn write_all(file: &File, bytes: &[u8], offset: u64) {
    file.write_all_at(bytes, offset).expect("there is room for what was there before");
}

#[derive(Clone, Copy)]
enum Kind {
    Write,
    Truncate,
    Sync,
    Unlink,
    Rename,
}

/// A record of the log, which is `struct record` in `powerloss.c`.
struct Record {
    kind: Kind,
    path: PathBuf,
    /// For a truncation, the new size.
    offset: u64,
    old_size: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Record {
    /// Reads a record. `None` at the end, or if the kill cut off the last record: its operation had not begun then.
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            *rest = after;
            Some(u64::from_ne_bytes(*number))
        };
        let [kind, path_length, offset, old_size, old_length, new_length] =
            [number()?, number()?, number()?, number()?, number()?, number()?];
        let mut bytes = |length: u64| {
            let (bytes, after) = rest.split_at_checked(length as usize)?;
            *rest = after;
            Some(bytes.to_vec())
        };
        let path = String::from_utf8(bytes(path_length)?).expect("a path of ours").into();
        let (old, new) = (bytes(old_length)?, bytes(new_length)?);
        let kind = match kind {
            1 => Kind::Write,
            2 => Kind::Truncate,
            3 => Kind::Sync,
            4 => Kind::Unlink,
            5 => Kind::Rename,
            other => panic!("the log has a record of kind {other}"),
        };
        Some(Self { kind, path, offset, old_size, old, new })
    }
}

//! The speed of the disk itself: the time of one durable write, with which a single sender is compared.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, time::Instant};

use crate::{
    Result,
    drive::{Durations, micros},
};

const BLOCK: usize = 4096;
const ROUNDS: u64 = 400;

/// The kind of file that the block is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LogFile {
    /// A file that already has its final size, like a database's log after its first checkpoint.
    Reused,
    /// A file that grows, so that the file system must commit its new size too.
    Growing,
}

/// Measures writing 4 KiB and calling `fdatasync`, on the file system of `dir`.
pub fn sync_times(dir: &Path, log: LogFile) -> Result<Durations> {
    let path = dir.join("fdatasync");
    let file = File::create(&path)?;
    let block = [0x5a; BLOCK];
    if log == LogFile::Reused {
        for round in 0..ROUNDS {
            file.write_all_at(&block, round * BLOCK as u64)?;
        }
    }
    file.sync_all()?;
    let mut taken_us = Vec::new();
    for round in 0..ROUNDS {
        let start = Instant::now();
        file.write_all_at(&block, round * BLOCK as u64)?;
        file.sync_data()?;
        taken_us.push(micros(start.elapsed()));
    }
    std::fs::remove_file(path)?;
    Ok(Durations::new(taken_us))
}

/// Returns whether `dir` is in memory. There a durable write costs nothing and the numbers mean nothing.
pub fn is_memory(dir: &Path) -> Result<bool> {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    Ok(u32::try_from(rustix::fs::statfs(dir)?.f_type).is_ok_and(|magic| magic == TMPFS_MAGIC))
}

//! What the disk itself allows: the time of one durable write, against which a single sender is held.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, time::Instant};

use crate::{
    Result,
    drive::{Durations, micros},
};

const BLOCK: usize = 4096;
const ROUNDS: u64 = 400;

/// How long it takes to write 4 KiB and to `fdatasync` them, on the file system of `dir`.
///
/// The file has its final size before, as a database's log has after its first checkpoint. A log that
/// still grows pays more, because the file system must then commit the new size too.
pub fn sync_times(dir: &Path) -> Result<Durations> {
    let path = dir.join("fdatasync");
    let file = File::create(&path)?;
    let block = [0x5a; BLOCK];
    for round in 0..ROUNDS {
        file.write_all_at(&block, round * BLOCK as u64)?;
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

/// Whether `dir` lies in memory, where a durable write costs nothing and no number means anything.
pub fn is_memory(dir: &Path) -> Result<bool> {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    Ok(u32::try_from(rustix::fs::statfs(dir)?.f_type).is_ok_and(|magic| magic == TMPFS_MAGIC))
}

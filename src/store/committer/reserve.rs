//! The disk reserve for signing in and out: a file of random bytes beside the database, which is given up when the disk
//! is full. For SQLite only; PostgreSQL's disk is not ours.
//!
//! While the reserve is given up, every other write first takes it back, or is refused as before. So writes that happen
//! to come next do not use it up.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::Rng as _;

/// The size of the reserve: enough for some hundred sign-ins, each of which takes some pages of SQLite's log.
const BYTES: u64 = 4 << 20;

/// The file of the reserve, and whether it is given up.
#[derive(Debug, Clone)]
pub(in crate::store) struct Reserve {
    path: Arc<Path>,
    is_free: Arc<AtomicBool>,
}

impl Reserve {
    /// Creates the reserve beside `database`, if the disk has room for it.
    pub(in crate::store) async fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-reserve");
        let reserve = Self { path: PathBuf::from(path).into(), is_free: Arc::new(AtomicBool::new(true)) };
        if !reserve.is_taken().await {
            tracing::warn!(bytes = BYTES, "the disk is nearly full: no room could be kept for signing in");
        }
        reserve
    }

    /// Returns whether the reserve is given up.
    pub(super) fn is_free(&self) -> bool {
        self.is_free.load(Ordering::Acquire)
    }

    /// Takes the reserve back if it was given up and the disk has room. Returns whether it is taken now.
    pub(super) async fn is_taken(&self) -> bool {
        if !self.is_free() {
            return true;
        }
        let reserve = self.clone();
        let taken = tokio::task::spawn_blocking(move || reserve.take()).await;
        match taken {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no room on the disk");
                false
            }
            Err(_) => false,
        }
    }

    fn take(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|file| file.len() == BYTES) {
            self.is_free.store(false, Ordering::Release);
            return Ok(());
        }
        let written = self.write();
        match &written {
            Ok(()) => self.is_free.store(false, Ordering::Release),
            // A partial file would only take space from everything else.
            Err(_) => _ = fs::remove_file(&self.path),
        }
        written
    }

    fn write(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.path)?;
        // Some file systems store a repeated byte in no space at all.
        let mut noise = vec![0; 64 << 10];
        rand::rng().fill_bytes(&mut noise);
        for _ in 0..BYTES / noise.len() as u64 {
            file.write_all(&noise)?;
        }
        Ok(())
    }

    /// Gives the reserve up. Returns whether there was one.
    pub(super) fn give_up(&self) -> bool {
        let was_taken = !self.is_free.swap(true, Ordering::AcqRel);
        was_taken && fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_room_is_given_up_once_and_taken_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let reserve = Reserve::beside(&dir.path().join("sabha.db")).await;
        let file = dir.path().join("sabha.db-reserve");
        assert_eq!((fs::metadata(&file).expect("it is there").len(), reserve.is_free()), (BYTES, false));
        assert_eq!((reserve.give_up(), reserve.give_up(), file.exists()), (true, false, false));
        assert!(reserve.is_taken().await);
        assert_eq!((file.exists(), reserve.is_free()), (true, false));
    }
}

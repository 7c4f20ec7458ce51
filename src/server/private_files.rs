//! Files that only the server's own user may access: the database with its log and lock, the signing key, the control
//! socket.
//!
//! Promise: before the database is opened, only the server's own user can read them. A directory that was made for us,
//! such as systemd's `StateDirectory`, may be open to everyone on the machine. We make such files private, and log it.

use std::{
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::control;
use crate::{
    config::{Config, DatabaseTarget},
    remote::signing_key,
};

/// The permission bits of users other than the owner.
const OTHERS: u32 = 0o077;

/// The write permission bits of users other than the owner.
const OTHERS_WRITE: u32 = 0o022;

/// Makes new files of this process private to its own user. Files that are explicitly given a mode still get it.
pub fn keep_new_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(OTHERS));
}

/// Removes other users' permissions on our files, and creates the files from which SQLite takes its permissions.
///
/// A file that others may read and we cannot change is only logged. A file that cannot be created is reported when it
/// is opened.
pub(super) fn tighten(config: &Config) {
    let mut files = vec![control::socket(&config.data_dir)];
    files.extend([signing_key::FILE, signing_key::NEXT_FILE].map(|key| config.data_dir.join(key)));
    if let DatabaseTarget::Sqlite(database) = config.database_url().target() {
        let beside = |suffix: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        // SQLite gives the files of its log the permissions that the database has.
        make_private(&database);
        make_private(&beside(".lock"));
        files.extend(["", "-wal", "-shm", "-journal", "-reserve", ".lock"].map(beside));
    }
    for file in files {
        close(&file, OTHERS);
    }
    // If other users reach a socket of ours through the directory, they must still be able to, but may not create files
    // there.
    let is_passed_through = config
        .listeners
        .iter()
        .any(|listener| listener.unix.as_ref().is_some_and(|socket| socket.starts_with(&config.data_dir)));
    close(&config.data_dir, if is_passed_through { OTHERS_WRITE } else { OTHERS });
}

/// Creates an empty file unless there is one. SQLite takes it as a new database, and would itself make it readable for
/// everyone.
fn make_private(file: &Path) {
    if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let _opening_fails_too = fs::create_dir_all(parent);
    }
    let _opening_fails_too = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
}

/// Removes these permissions from a file or a directory, if it exists and has them.
fn close(path: &Path, permissions: u32) {
    let Ok(found) = fs::metadata(path) else { return };
    let mode = found.permissions().mode();
    if mode & permissions == 0 {
        return;
    }
    let closed = fs::set_permissions(path, Permissions::from_mode(mode & !permissions));
    let (path, mode) = (path.display(), format!("{:o}", mode & 0o777));
    match closed {
        Ok(()) => {
            warn!(%path, mode, "other users of this machine had access to a file of the server; it was taken away")
        }
        Err(error) => warn!(%path, mode, %error, "other users of this machine have access to a file of the server"),
    }
}

//! Archives: files that Complement puts into a container, and copies of a container's files.

use std::{
    fs, io,
    path::{Component, Path},
};

/// The only folder that Complement puts files into: the CA and the registrations of application services.
const FOLDER: &str = "complement";

/// Unpacks a tar archive below `root`. Refuses names outside of `/complement`, and everything but plain files.
pub fn unpack(archive: &[u8], root: &Path) -> io::Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let parts: Vec<_> = name.components().filter(|part| !matches!(part, Component::RootDir)).collect();
        let plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
        if !plain || parts.first().is_none_or(|first| first.as_os_str() != FOLDER) {
            return Err(refused(&name, "not below /complement"));
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => continue,
            tar::EntryType::Regular => {}
            _ => return Err(refused(&name, "not a plain file")),
        }
        let to = parts.iter().fold(root.to_owned(), |path, part| path.join(part));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        io::copy(&mut entry, &mut fs::File::create(&to)?)?;
    }
    Ok(())
}

fn refused(name: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {why}", name.display()))
}

/// Copies a folder with everything in it, except sockets and similar files, which belong to a process.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(name: &str, kind: tar::EntryType) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        // `set_path` rejects some of the names that the test needs.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(2);
        header.set_mode(0o777);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b"hi"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn only_plain_files_below_the_folder_are_unpacked() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        unpack(&archive("/complement/ca/ca.crt", tar::EntryType::Regular), &root).unwrap();
        assert_eq!(fs::read(root.join("complement/ca/ca.crt")).unwrap(), b"hi");
        for (name, kind) in [
            ("/etc/passwd", tar::EntryType::Regular),
            ("/complement/../../x", tar::EntryType::Regular),
            ("../complement/x", tar::EntryType::Regular),
            ("complement/link", tar::EntryType::Symlink),
        ] {
            unpack(&archive(name, kind), &root).expect_err(name);
        }
        assert!(!outside.path().join("x").exists());
    }
}

//! The file that the master key is in: read, made, and replaced, and at every moment whole.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::zeroize::Zeroizing;

use super::{id::random, vault::VaultError};

/// The key in this file; `None` when there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, VaultError> {
    let failed = |why| VaultError::File { path: path.to_owned(), why };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    // Before its mode: nobody should be told to change that of a device or a folder.
    if !metadata.is_file() {
        return Err(VaultError::NoFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o777;
    // Credentials of systemd and secrets of Kubernetes are root's and lent to their reader through a group, or a list that
    // shows as one; PostgreSQL has the same rule for its keys.
    let lent = metadata.uid() == 0 && !rustix::process::geteuid().is_root();
    if mode & if lent { 0o037 } else { 0o077 } != 0 {
        return Err(VaultError::Exposed { path: path.to_owned(), mode });
    }
    // Bounded: whatever else was named by mistake need not fit into memory.
    let mut text = Zeroizing::new(String::new());
    let no_key = || VaultError::NoKey { path: path.to_owned() };
    match file.take(1024).read_to_string(&mut text) {
        Err(error) if error.kind() == ErrorKind::InvalidData => return Err(no_key()),
        read => read.map_err(failed)?,
    };
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim()).map_err(|_| no_key())?);
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| no_key())?;
    Ok(Some(Zeroizing::new(key)))
}

/// Makes a key and its file, which appears whole or not at all; `None` when another process was faster.
pub(super) fn create(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, VaultError> {
    let failed = |why| VaultError::File { path: path.to_owned(), why };
    let key = Zeroizing::new(random::<32>());
    let line = Zeroizing::new(format!("{}\n", BASE64_STANDARD.encode(*key)));
    if !folder_of(path).is_dir() {
        return Err(failed(io::Error::new(ErrorKind::NotFound, "its folder is not there; make it")));
    }
    // Its mode is 0600 from the start.
    let mut file = tempfile::Builder::new().prefix(".keysweep-key-").tempfile_in(folder_of(path)).map_err(failed)?;
    file.write_all(line.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(failed(error.error)),
    }
    sync_folder_of(path).map_err(failed)?;
    Ok(Some(key))
}

/// Where a rotation keeps the new key until it takes the place of this file.
pub(super) fn next_to(key_file: &Path) -> PathBuf {
    with_suffix(key_file, ".new")
}

/// Puts the key file `next` in the place of `path`, for the same owner and readers, and returns where the old one is kept:
/// beside it, with its key's id in its name. At every moment one of the two stands at `path`.
pub(super) fn replace(path: &Path, next: &Path, old_key: &str) -> Result<PathBuf, VaultError> {
    let failed = |why| VaultError::File { path: path.to_owned(), why };
    let kept = with_suffix(path, &format!(".{old_key}"));
    let (before, made) = (fs::metadata(path).map_err(failed)?, fs::metadata(next).map_err(failed)?);
    if (before.uid(), before.gid()) != (made.uid(), made.gid()) {
        chown(next, Some(before.uid()), Some(before.gid())).map_err(failed)?;
    }
    fs::set_permissions(next, before.permissions()).map_err(failed)?;
    match fs::hard_link(path, &kept) {
        // Kept before an interruption.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        linked => linked.map_err(failed)?,
    }
    fs::rename(next, path).map_err(failed)?;
    sync_folder_of(path).map_err(failed)?;
    Ok(kept)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_never_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.key");
        fs::write(&path, "someone else's").expect("written");
        assert!(create(&path).expect("no failure").is_none());
        assert_eq!(fs::read_to_string(&path).expect("a file"), "someone else's");
    }
}

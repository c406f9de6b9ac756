//! The file of the master key: read, created and replaced, and complete at every moment.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::zeroize::Zeroizing;

use super::error::VaultError;
use crate::{folder, random};

/// Returns the key in a file; `None` when the file is absent.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, VaultError> {
    let failed = |why| VaultError::File { path: path.to_owned(), why };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    // Checked before the mode, whose remedy would change the permissions of a device or a folder.
    if !metadata.is_file() {
        return Err(VaultError::NoFile { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o777;
    // systemd credentials and Kubernetes secrets belong to root and are readable through a group, or an ACL that shows as
    // one. PostgreSQL has the same rule for its keys.
    let is_shared = metadata.uid() == 0 && !rustix::process::geteuid().is_root();
    if mode & if is_shared { 0o037 } else { 0o077 } != 0 {
        return Err(VaultError::Exposed { path: path.to_owned(), mode });
    }
    // Bounded: a file named by mistake need not fit into memory.
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

/// Creates a key and its file, which appears complete or not at all; `None` when another process was faster.
pub(super) fn create(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, VaultError> {
    let failed = |why| VaultError::File { path: path.to_owned(), why };
    let key = Zeroizing::new(random::bytes::<32>());
    let line = Zeroizing::new(format!("{}\n", BASE64_STANDARD.encode(*key)));
    if !folder::of(path).is_dir() {
        return Err(failed(io::Error::new(ErrorKind::NotFound, "its folder does not exist; create it")));
    }
    // A temporary file has mode 0600 from the start.
    let mut file = tempfile::Builder::new().prefix(".keysweep-key-").tempfile_in(folder::of(path)).map_err(failed)?;
    file.write_all(line.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(failed(error.error)),
    }
    folder::sync(path).map_err(failed)?;
    Ok(Some(key))
}

/// Returns the file in which a rotation keeps the new key until that replaces this file.
pub(super) fn next_to(key_file: &Path) -> PathBuf {
    with_suffix(key_file, ".new")
}

/// Replaces the key file `path` with `next`, for the same owner and readers, and returns where the old file is kept: beside
/// it, with the old key's id in its name. At every moment one of the two is at `path`.
pub(super) fn replace(path: &Path, next: &Path, old_key: &str) -> Result<PathBuf, VaultError> {
    let failed = |why| VaultError::File { path: path.to_owned(), why };
    let kept = with_suffix(path, &format!(".{old_key}"));
    let (before, made) = (fs::metadata(path).map_err(failed)?, fs::metadata(next).map_err(failed)?);
    if (before.uid(), before.gid()) != (made.uid(), made.gid()) {
        chown(next, Some(before.uid()), Some(before.gid())).map_err(failed)?;
    }
    fs::set_permissions(next, before.permissions()).map_err(failed)?;
    match fs::hard_link(path, &kept) {
        // An interrupted rotation kept it.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        linked => linked.map_err(failed)?,
    }
    fs::rename(next, path).map_err(failed)?;
    folder::sync(path).map_err(failed)?;
    Ok(kept)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_key_file_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.key");
        fs::write(&path, "someone else's").expect("written");
        assert!(create(&path).expect("no failure").is_none());
        assert_eq!(fs::read_to_string(&path).expect("a file"), "someone else's");
    }
}

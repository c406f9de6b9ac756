//! Why a secret is not encrypted or decrypted, and what to do about it.

use std::{io, path::PathBuf};

use crate::store::StoreError;

/// Why a secret is not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be read or created.
    #[error("the key file {path} cannot be used: {why}", path = path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The key file is absent.
    #[error("key file {path}: no such file; restore it, or name it with --key-file", path = path.display())]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// The path names a folder, a device or the like.
    #[error("the key file {path} is not a regular file; name one with --key-file", path = path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// Other users can read the key file.
    #[error("the key file {path} can be read by others (mode {mode:03o}); run: chmod 600 {path}", path = path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("the key file {path} holds no key; it must be 32 random bytes in base64", path = path.display())]
    NoKey {
        /// The key file.
        path: PathBuf,
    },
    /// The value was encrypted with another key.
    #[error(
        "the key file {path} holds key {ours}, but the database's secrets are encrypted with key {theirs}; put back the key \
         file that belongs to this database, or name it with --key-file",
        path = path.display()
    )]
    OtherKey {
        /// The key file.
        path: PathBuf,
        /// Id of the key in it.
        ours: String,
        /// Id of the key that decrypts it.
        theirs: String,
    },
    /// A rotation was interrupted after its transaction: the key file still holds the old key.
    #[error(
        "the key file {path} holds the old key: `keysweep admin key rotate` was interrupted; run it again, which puts {next} in \
         its place",
        path = path.display(),
        next = next.display()
    )]
    Interrupted {
        /// The key file.
        path: PathBuf,
        /// Where the new key is.
        next: PathBuf,
        /// Its id.
        theirs: String,
    },
    /// The key file is gone, and secrets encrypted with it are still in the database.
    #[error(
        "there is no key file {path}, and the database's secrets are encrypted with key {theirs}; put back the key file that \
         belongs to this database, or name it with --key-file",
        path = path.display()
    )]
    Lost {
        /// Where it should be.
        path: PathBuf,
        /// Id of the key that decrypts them.
        theirs: String,
    },
    /// The value was damaged, or moved from another row.
    #[error("the encrypted {field} of {row} was changed since it was encrypted; set it again")]
    Changed {
        /// The row's id.
        row: String,
        /// The field.
        field: &'static str,
    },
    /// The check value could not be read or stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

//! Secrets at rest: sealed with one master key, each for the row and field that it stands in.
//!
//! A sealed value is a version byte, the key's id (8 bytes), a random nonce (24 bytes) and the XChaCha20-Poly1305
//! ciphertext; `row id/field` is authenticated with it, so that a value that was moved to another row does not open.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};

use super::{
    Secret,
    id::random,
    key_file::{create, next_to, read},
};
use crate::{
    model::Sealed,
    store::{Store, StoreError},
};

const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const NONCE: usize = 24;
const HEADER: usize = 1 + KEY_ID + NONCE;
/// Where the check value stands.
const CHECK_ROW: &str = "master_key_check";
/// What the check value says once it is opened.
const CHECK: &str = "keysweep";

/// Why the vault does not seal or open.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be read or made.
    #[error("the key file {path} cannot be used: {why}", path = path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// There is none.
    #[error("there is no key file {path}; put it there, or name it with --key-file", path = path.display())]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is a folder, a device or the like.
    #[error("the key file {path} is no plain file; name one with --key-file", path = path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// Others could read it.
    #[error("the key file {path} can be read by others (mode {mode:03o}); run: chmod 600 {path}", path = path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is something else in it.
    #[error("the key file {path} holds no key; it must be 32 random bytes in base64", path = path.display())]
    NoKey {
        /// The key file.
        path: PathBuf,
    },
    /// Sealed with another key.
    #[error(
        "the key file {path} holds key {ours}, but the database's secrets are sealed with key {theirs}; put back the key \
         file that belongs to this database, or name it with --key-file",
        path = path.display()
    )]
    OtherKey {
        /// The key file.
        path: PathBuf,
        /// Id of the key in it.
        ours: String,
        /// Id of the key that would open it.
        theirs: String,
    },
    /// The database is sealed with the new key of a rotation already, and the key file is still the old one.
    #[error(
        "the key file {path} holds the old key: `keysweep admin key rotate` was interrupted; do it again, it puts {next} in \
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
    /// The key file is gone, and what it sealed is still there.
    #[error(
        "there is no key file {path}, and the database's secrets are sealed with key {theirs}; put back the key file that \
         belongs to this database, or name it with --key-file",
        path = path.display()
    )]
    Lost {
        /// Where it should be.
        path: PathBuf,
        /// Id of the key that would open it.
        theirs: String,
    },
    /// Damaged, or moved from another row.
    #[error("the sealed {field} of {row} has been changed since it was sealed; set it anew")]
    Changed {
        /// The row's id.
        row: String,
        /// The field.
        field: &'static str,
    },
    /// The check value could not be read or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The master key, ready to seal and open.
pub struct Vault {
    path: PathBuf,
    cipher: XChaCha20Poly1305,
    key_id: [u8; KEY_ID],
    /// Whether the key was made just now and so cannot have sealed anything yet.
    is_new: bool,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

impl Vault {
    /// Reads the master key from its file; makes one when the file is absent and `create_if_absent` says so. A file
    /// that others can read is refused: what it protects would be no secret.
    pub fn open(path: &Path, create_if_absent: bool) -> Result<Self, VaultError> {
        let (key, is_new) = match read(path)? {
            Some(key) => (key, false),
            None if create_if_absent => match create(path)? {
                Some(key) => (key, true),
                // Another process was faster: its key is the one.
                None => (read(path)?.ok_or_else(|| VaultError::Absent { path: path.to_owned() })?, false),
            },
            None => return Err(VaultError::Absent { path: path.to_owned() }),
        };
        Ok(Self::with_key(path, &key, is_new))
    }

    fn with_key(path: &Path, key: &[u8; 32], is_new: bool) -> Self {
        let digest = Sha256::new().chain_update(b"keysweep master key id, version 1\0").chain_update(key).finalize();
        let mut key_id = [0; KEY_ID];
        key_id.copy_from_slice(&digest[..KEY_ID]);
        Self { path: path.to_owned(), cipher: XChaCha20Poly1305::new(key.into()), key_id, is_new }
    }

    /// The master key's id: tells keys apart, and nothing about them.
    pub fn key_id(&self) -> String {
        hex::encode(self.key_id)
    }

    /// Seals a text for one field of one row; it opens nowhere else.
    pub fn seal(&self, row: &str, field: &'static str, text: &str) -> Sealed {
        let nonce: [u8; NONCE] = random();
        let aad = aad(row, field);
        let ciphertext = self
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: text.as_bytes(), aad: aad.as_bytes() })
            .expect("only texts of more than 256 GiB cannot be sealed");
        Sealed([&[VERSION][..], &self.key_id, &nonce, &ciphertext].concat())
    }

    /// Opens what was sealed for this field of this row.
    pub fn open_sealed(&self, row: &str, field: &'static str, sealed: &Sealed) -> Result<Secret, VaultError> {
        let changed = || VaultError::Changed { row: row.to_owned(), field };
        let (header, ciphertext) = sealed.0.split_at_checked(HEADER).ok_or_else(changed)?;
        let (key_id, nonce) = header[1..].split_at(KEY_ID);
        if header[0] != VERSION {
            return Err(changed());
        }
        if key_id != self.key_id {
            return Err(VaultError::OtherKey {
                path: self.path.clone(),
                ours: self.key_id(),
                theirs: hex::encode(key_id),
            });
        }
        let nonce = XNonce::try_from(nonce).map_err(|_| changed())?;
        let aad = aad(row, field);
        let opened = self.cipher.decrypt(&nonce, Payload { msg: ciphertext, aad: aad.as_bytes() });
        let text = String::from_utf8(opened.map_err(|_| changed())?).map_err(|_| changed())?;
        Ok(text.into())
    }

    /// What the store keeps to check this key with.
    pub fn check_value(&self) -> Sealed {
        self.seal(CHECK_ROW, "sealed", CHECK)
    }

    /// Notices a wrong key file before anything is sealed with it: opens the check value that the store keeps, or has
    /// it keep one when there is none.
    pub async fn check(&self, store: &Store) -> Result<(), VaultError> {
        let kept = store.key_check(&self.key_id(), &self.check_value().0).await?;
        match self.open_sealed(CHECK_ROW, "sealed", &Sealed(kept)) {
            Err(VaultError::OtherKey { path, theirs, .. }) if self.is_new => {
                // It has sealed nothing, and would only stand where the right one belongs.
                fs::remove_file(&path).map_err(|why| VaultError::File { path: path.clone(), why })?;
                Err(VaultError::Lost { path, theirs })
            }
            Err(VaultError::OtherKey { path, theirs, .. }) if holds(&next_to(&path), &theirs) => {
                Err(VaultError::Interrupted { next: next_to(&path), path, theirs })
            }
            opened => opened.map(drop),
        }
    }
}

/// Whether the key of this id is in this file.
pub fn holds(key_file: &Path, key_id: &str) -> bool {
    Vault::open(key_file, false).is_ok_and(|vault| vault.key_id() == key_id)
}

fn aad(row: &str, field: &str) -> String {
    format!("{row}/{field}")
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use base64::{Engine, prelude::BASE64_STANDARD};
    use tempfile::TempDir;

    use super::*;

    fn folder() -> TempDir {
        TempDir::new().expect("a folder")
    }

    fn vault() -> Vault {
        Vault::with_key(Path::new("test.key"), &random(), false)
    }

    fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
        fs::write(path, content).expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn what_was_sealed_opens_for_its_row_and_field_only() {
        let vault = vault();
        let sealed = vault.seal("row-1", "password", "pässword");
        assert_eq!(vault.open_sealed("row-1", "password", &sealed).expect("opens").expose(), "pässword");
        for (row, field) in [("row-2", "password"), ("row-1", "client_key")] {
            let error = vault.open_sealed(row, field, &sealed).expect_err("moved");
            assert!(matches!(error, VaultError::Changed { .. }), "{error}");
        }
    }

    #[test]
    fn an_empty_text_is_sealed_too() {
        let vault = vault();
        assert_eq!(vault.open_sealed("r", "f", &vault.seal("r", "f", "")).expect("opens").expose(), "");
    }

    #[test]
    fn sealing_twice_never_gives_the_same_and_never_shows_the_text() {
        let vault = vault();
        let (one, other) = (vault.seal("r", "f", "hunter2hunter2"), vault.seal("r", "f", "hunter2hunter2"));
        assert_ne!(one, other);
        assert!(!one.0.windows(7).any(|window| window == b"hunter2"));
        let secret = Secret::from("hunter2".to_owned());
        assert!(!format!("{one:?} {vault:?} {secret:?}").contains("hunter2"));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let vault = vault();
        let sealed = vault.seal("r", "f", "text");
        for position in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[position] ^= 1;
            let error = vault.open_sealed("r", "f", &changed).expect_err("changed");
            match (1..=KEY_ID).contains(&position) {
                true => assert!(matches!(error, VaultError::OtherKey { .. }), "byte {position}: {error}"),
                false => assert!(matches!(error, VaultError::Changed { .. }), "byte {position}: {error}"),
            }
        }
        for length in 0..sealed.0.len() {
            let cut = Sealed(sealed.0[..length].to_vec());
            assert!(vault.open_sealed("r", "f", &cut).is_err(), "cut to {length} bytes");
        }
    }

    #[test]
    fn another_key_is_named_with_the_one_that_is_needed() {
        let (ours, theirs) = (vault(), vault());
        let error = ours.open_sealed("r", "f", &theirs.seal("r", "f", "text")).expect_err("another key").to_string();
        for part in [ours.key_id(), theirs.key_id(), "test.key".into(), "--key-file".into()] {
            assert!(error.contains(&part), "{part} in: {error}");
        }
    }

    #[test]
    fn a_key_file_is_made_for_its_owner_alone_and_read_the_next_time() {
        let folder = folder();
        let path = folder.path().join("new.key");
        let first = Vault::open(&path, true).expect("made");
        let metadata = fs::metadata(&path).expect("a file");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        let sealed = first.seal("r", "f", "text");
        let second = Vault::open(&path, true).expect("read");
        assert_eq!(second.open_sealed("r", "f", &sealed).expect("opens").expose(), "text");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn an_absent_key_file_is_made_only_on_request() {
        let folder = folder();
        let path = folder.path().join("absent.key");
        assert!(matches!(Vault::open(&path, false).expect_err("absent"), VaultError::Absent { .. }));
        assert!(!path.exists());
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = folder();
        let path = folder.path().join("open.key");
        for mode in [0o640, 0o604, 0o644, 0o620] {
            write(&path, BASE64_STANDARD.encode(random::<32>()), mode);
            let error = Vault::open(&path, true).expect_err("exposed").to_string();
            assert!(error.contains(&format!("{mode:o}")) && error.contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("a mode");
        Vault::open(&path, true).expect("read only is fine");
    }

    #[test]
    fn a_file_without_a_key_in_it_is_refused() {
        let folder = folder();
        let path = folder.path().join("bad.key");
        let contents: [&[u8]; 5] = [b"", b"not base64!", &[0xff; 32], b"c2hvcnQ=", &[b'A'; 4096]];
        for content in contents {
            write(&path, content, 0o600);
            let error = Vault::open(&path, true).expect_err("no key");
            assert!(matches!(error, VaultError::NoKey { .. }), "{error}");
            assert!(error.to_string().contains("base64"), "{error}");
        }
    }
}

//! The vault: encrypts secrets with the master key, each for its row and field.
//!
//! An encrypted value is a version byte, the key's id (8 bytes), a random nonce (24 bytes) and the XChaCha20-Poly1305
//! ciphertext; `row id/field` is authenticated with it, so that a value moved to another row cannot be decrypted.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};

use super::{
    Secret,
    error::VaultError,
    key_file::{create, next_to, read},
};
use crate::{model::Sealed, random, store::Store};

const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const NONCE: usize = 24;
const HEADER: usize = 1 + KEY_ID + NONCE;
/// Row of the check value.
const CHECK_ROW: &str = "master_key_check";
/// The check value, decrypted.
const CHECK: &str = "keysweep";

/// The master key, ready to encrypt and decrypt.
pub struct Vault {
    path: PathBuf,
    cipher: XChaCha20Poly1305,
    key_id: [u8; KEY_ID],
    /// Whether the key was just created and so has encrypted nothing yet.
    is_new: bool,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

impl Vault {
    /// Reads the master key from its file; creates both when the file is absent and `create_if_absent` is set. A file that
    /// other users can read is refused.
    pub fn open(path: &Path, create_if_absent: bool) -> Result<Self, VaultError> {
        let (key, is_new) = match read(path)? {
            Some(key) => (key, false),
            None if create_if_absent => match create(path)? {
                Some(key) => (key, true),
                // Another process was faster, and its key counts.
                None => (read(path)?.ok_or_else(|| VaultError::Absent { path: path.to_owned() })?, false),
            },
            None => return Err(VaultError::Absent { path: path.to_owned() }),
        };
        Ok(Self::with_key(path, &key, is_new))
    }

    /// Opens the vault of a store: the key file is created when it is absent and nothing has been encrypted yet.
    pub async fn of_store(store: &Store, key_file: &Path) -> Result<Self, VaultError> {
        let vault = Self::open(key_file, true)?;
        vault.check(store).await?;
        Ok(vault)
    }

    fn with_key(path: &Path, key: &[u8; 32], is_new: bool) -> Self {
        let digest = Sha256::new().chain_update(b"keysweep master key id, version 1\0").chain_update(key).finalize();
        let mut key_id = [0; KEY_ID];
        key_id.copy_from_slice(&digest[..KEY_ID]);
        Self { path: path.to_owned(), cipher: XChaCha20Poly1305::new(key.into()), key_id, is_new }
    }

    /// Returns the master key's id, which reveals nothing about the key.
    pub fn key_id(&self) -> String {
        hex::encode(self.key_id)
    }

    /// Encrypts a text for one field of one row; it can be decrypted for no other.
    pub fn seal(&self, row: &str, field: &'static str, text: &str) -> Sealed {
        let nonce: [u8; NONCE] = random::bytes();
        let aad = aad(row, field);
        let ciphertext = self
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: text.as_bytes(), aad: aad.as_bytes() })
            .expect("only texts of more than 256 GiB cannot be encrypted");
        Sealed([&[VERSION][..], &self.key_id, &nonce, &ciphertext].concat())
    }

    /// Decrypts a value that was encrypted for this field of this row.
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

    /// Returns the value that the store keeps to check this key with.
    pub fn check_value(&self) -> Sealed {
        self.seal(CHECK_ROW, "sealed", CHECK)
    }

    /// Detects a wrong key file before anything is encrypted with it: decrypts the check value in the store, or stores one
    /// when there is none.
    pub async fn check(&self, store: &Store) -> Result<(), VaultError> {
        let kept = store.key_check(&self.key_id(), &self.check_value().0).await?;
        match self.open_sealed(CHECK_ROW, "sealed", &Sealed(kept)) {
            Err(VaultError::OtherKey { path, theirs, .. }) if self.is_new => {
                // The new key has encrypted nothing, and its file is where the right one belongs.
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

/// Returns whether the file holds the key of this id.
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
        Vault::with_key(Path::new("test.key"), &random::bytes(), false)
    }

    fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
        fs::write(path, content).expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn a_value_is_decrypted_for_its_row_and_field_only() {
        let vault = vault();
        let sealed = vault.seal("row-1", "password", "pässword");
        assert_eq!(vault.open_sealed("row-1", "password", &sealed).expect("opens").expose(), "pässword");
        for (row, field) in [("row-2", "password"), ("row-1", "client_key")] {
            let error = vault.open_sealed(row, field, &sealed).expect_err("moved");
            assert!(matches!(error, VaultError::Changed { .. }), "{error}");
        }
    }

    #[test]
    fn an_empty_text_is_encrypted_too() {
        let vault = vault();
        assert_eq!(vault.open_sealed("r", "f", &vault.seal("r", "f", "")).expect("opens").expose(), "");
    }

    #[test]
    fn encrypting_twice_gives_different_values_that_do_not_show_the_text() {
        let vault = vault();
        let (one, other) = (vault.seal("r", "f", "hunter2hunter2"), vault.seal("r", "f", "hunter2hunter2"));
        assert_ne!(one, other);
        assert!(!one.0.windows(7).any(|window| window == b"hunter2"));
        let secret = Secret::from("hunter2".to_owned());
        assert!(!format!("{one:?} {vault:?} {secret:?}").contains("hunter2"));
    }

    #[test]
    fn any_changed_byte_is_detected() {
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
    fn an_error_names_the_wrong_key_and_the_right_one() {
        let (ours, theirs) = (vault(), vault());
        let error = ours.open_sealed("r", "f", &theirs.seal("r", "f", "text")).expect_err("another key").to_string();
        for part in [ours.key_id(), theirs.key_id(), "test.key".into(), "--key-file".into()] {
            assert!(error.contains(&part), "{part} in: {error}");
        }
    }

    #[test]
    fn a_key_file_is_created_for_its_owner_alone_and_read_the_next_time() {
        let folder = folder();
        let path = folder.path().join("new.key");
        let first = Vault::open(&path, true).expect("made");
        let metadata = fs::metadata(&path).expect("a file");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        let sealed = first.seal("r", "f", "text");
        let second = Vault::open(&path, true).expect("read");
        assert_eq!(second.open_sealed("r", "f", &sealed).expect("opens").expose(), "text");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no other file is left");
    }

    #[test]
    fn an_absent_key_file_is_created_only_on_request() {
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
            write(&path, BASE64_STANDARD.encode(random::bytes::<32>()), mode);
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

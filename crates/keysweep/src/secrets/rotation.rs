//! The rotation of the master key: every secret is decrypted with the old key and encrypted with the new one in one
//! transaction, and then the key files are put in place.
//!
//! A rotation may be interrupted at any point and is completed by running it again. Before the transaction commits, only
//! the file of the new key has been added. After it, the next run finds the database encrypted with that key and puts the
//! files in place. At every moment the key file holds a whole key, and no key is ever deleted.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    error::VaultError,
    field,
    key_file::{next_to, replace},
    vault::{Vault, holds},
};
use crate::{
    model::{AuditEvent, COMMAND_LINE},
    store::{Resealed, SecretAt, SecretField, Store, StoreError},
};

/// A completed rotation.
#[derive(Debug, Clone)]
pub struct Rotated {
    /// Id of the old key.
    pub old_key: String,
    /// Id of the new key, with which every secret is encrypted now.
    pub new_key: String,
    /// File of the new key.
    pub key_file: PathBuf,
    /// File of the old key: older backups need it.
    pub old_key_file: PathBuf,
}

/// Why the master key was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Every secret is encrypted with that key already.
    #[error("the new master key is the old one; give --to a file with another key, or one that does not exist")]
    SameKey,
    /// A secret was set or removed meanwhile.
    #[error(
        "secrets were changed during the rotation, and nothing was encrypted anew: stop every keysweep that uses this database, and try again"
    )]
    SecretsChanged,
    /// A key file cannot be used.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the name under which a field of a row is encrypted.
fn name(secret: SecretField) -> &'static str {
    match secret {
        SecretField::AccessKey => field::ACCESS_KEY,
        SecretField::Password => field::PASSWORD,
        SecretField::SentinelPassword => field::SENTINEL_PASSWORD,
        SecretField::ClientKey => field::CLIENT_KEY,
    }
}

/// Encrypts every secret in the store with a new key: the one in the file `to`, which is created when it is absent and
/// stays where it is; or else a new one, whose file replaces `key_file`.
pub async fn rotate(store: &Store, key_file: &Path, to: Option<&Path>) -> Result<Rotated, RotationError> {
    let next = to.map_or_else(|| next_to(key_file), Path::to_owned);
    let old = Vault::open(key_file, false)?;
    let new = match old.check(store).await {
        Ok(()) => {
            let new = Vault::open(&next, true)?;
            reseal(store, &old, &new).await?;
            new
        }
        // An earlier rotation was interrupted after its transaction.
        Err(VaultError::OtherKey { theirs, .. } | VaultError::Interrupted { theirs, .. }) if holds(&next, &theirs) => {
            Vault::open(&next, false)?
        }
        Err(error) => return Err(error.into()),
    };
    let (key_file, old_key_file) = match to {
        Some(to) => (to.to_owned(), key_file.to_owned()),
        None => (key_file.to_owned(), replace(key_file, &next, &old.key_id())?),
    };
    Ok(Rotated { old_key: old.key_id(), new_key: new.key_id(), key_file, old_key_file })
}

async fn reseal(store: &Store, old: &Vault, new: &Vault) -> Result<(), RotationError> {
    if old.key_id() == new.key_id() {
        return Err(RotationError::SameKey);
    }
    let change = |before: SecretAt| {
        let (row, field) = (before.row.as_str(), name(before.field));
        let text = old.open_sealed(row, field, &before.sealed)?;
        let after = new.seal(row, field, text.expose());
        Ok::<_, VaultError>(Resealed { before, after })
    };
    let changes: Vec<Resealed> = store.secrets().await?.into_iter().map(change).collect::<Result<_, _>>()?;
    let new_key = new.key_id();
    let event = AuditEvent { project_id: None, actor: COMMAND_LINE, action: "master_key.rotate", subject: &new_key };
    let audited = store.with_audit(vec![event.entry(&json!({ "old_key": old.key_id(), "secrets": changes.len() }))]);
    match audited.reseal(&changes, &new_key, &new.check_value()).await? {
        true => Ok(()),
        false => Err(RotationError::SecretsChanged),
    }
}

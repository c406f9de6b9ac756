//! Another master key: everything that is sealed is opened with the old one and sealed with the new one, in one transaction,
//! and then the key files are put in their places.
//!
//! It may be interrupted anywhere. Before the transaction ends nothing has changed but that the new key's file is there;
//! after it, whoever does it again finds the database sealed with that key and puts the files in their places. At every
//! moment a whole key stands where the key file is, and no key is ever thrown away.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    COMMAND_LINE, Deed, FleetError, instance,
    key_file::{next_to, replace},
    people, reach,
    vault::{Vault, VaultError, holds},
};
use crate::store::{Resealed, SecretAt, SecretField, Store};

/// What was done.
#[derive(Debug, Clone)]
pub struct Rotated {
    /// Id of the key that nothing is sealed with any more.
    pub old_key: String,
    /// Id of the key that everything is sealed with.
    pub new_key: String,
    /// Where the new key is.
    pub key_file: PathBuf,
    /// Where the old one is: backups from before need it.
    pub old_key_file: PathBuf,
}

/// The name under which a field of a row is sealed.
fn name(field: SecretField) -> &'static str {
    match field {
        SecretField::AccessKey => people::SECRET,
        SecretField::Password => instance::PASSWORD,
        SecretField::SentinelPassword => reach::SENTINEL_PASSWORD,
        SecretField::ClientKey => reach::CLIENT_KEY,
    }
}

/// Seals everything in the store with a new key: the one in the file `to`, which is made when it is absent, and stays where it
/// is; or else a new one, whose file takes the place of `key_file`.
pub async fn rotate(store: &Store, key_file: &Path, to: Option<&Path>) -> Result<Rotated, FleetError> {
    let next = to.map_or_else(|| next_to(key_file), Path::to_owned);
    let old = Vault::open(key_file, false)?;
    let new = match old.check(store).await {
        Ok(()) => {
            let new = Vault::open(&next, true)?;
            reseal(store, &old, &new).await?;
            new
        }
        // It was interrupted after the transaction.
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

async fn reseal(store: &Store, old: &Vault, new: &Vault) -> Result<(), FleetError> {
    if old.key_id() == new.key_id() {
        return Err(FleetError::SameKey);
    }
    let change = |before: SecretAt| {
        let (row, field) = (before.row.as_str(), name(before.field));
        let text = old.open_sealed(row, field, &before.sealed)?;
        let after = new.seal(row, field, text.expose());
        Ok::<_, VaultError>(Resealed { before, after })
    };
    let changes: Vec<Resealed> = store.secrets().await?.into_iter().map(change).collect::<Result<_, _>>()?;
    let new_key = new.key_id();
    let deed = Deed { project_id: None, actor: COMMAND_LINE, action: "master_key.rotate", subject: &new_key };
    let told = store.telling(vec![deed.entry(&json!({ "old_key": old.key_id(), "secrets": changes.len() }))]);
    match told.reseal(&changes, &new_key, &new.check_value()).await? {
        true => Ok(()),
        false => Err(FleetError::SecretsChanged),
    }
}

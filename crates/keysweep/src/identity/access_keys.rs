//! Access keys, with which users sign requests.

use jiff::Timestamp;
use rand::{RngExt, distr::Alphanumeric, rand_core::UnwrapErr, rngs::SysRng};
use serde_json::json;

use super::{Identity, IdentityError};
use crate::{
    model::{AccessKey, KeyHolder, UserRoles, now},
    secrets::{Secret, field},
};

const ACCESS_LENGTH: usize = 20;
const ACCESS_ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const SECRET_LENGTH: usize = 40;

impl Identity {
    /// Adds an access key for the user of this name. Returns both halves; the secret half cannot be read again.
    pub async fn add_access_key(&self, user: &str) -> Result<(String, Secret), IdentityError> {
        let UserRoles { user, grants } = self.user(user).await?;
        let mut random = UnwrapErr(SysRng);
        let access: String = (0..ACCESS_LENGTH)
            .map(|_| char::from(ACCESS_ALPHABET[random.random_range(0..ACCESS_ALPHABET.len())]))
            .collect();
        let secret: String = random.sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
        let key = AccessKey {
            access: access.clone(),
            user_id: user.id.clone(),
            secret: self.vault.seal(&access, field::ACCESS_KEY, &secret),
            disabled: false,
            created_at: now(),
        };
        let store = self.audited_for_user(&user, &grants, "access_key.add", &json!({ "access": access }));
        store.add_access_key(&key).await?;
        Ok((access, secret.into()))
    }

    /// Returns all access keys, each with its user's name, by user.
    pub async fn access_keys(&self) -> Result<Vec<(AccessKey, String)>, IdentityError> {
        let users = self.users().await?;
        let name_of = |key: &AccessKey| {
            let user = users.iter().find(|found| found.user.id == key.user_id);
            user.map_or_else(String::new, |found| found.user.name.clone())
        };
        let keys = self.store.access_keys().await?;
        let mut named: Vec<(AccessKey, String)> = keys.into_iter().map(|key| (key.clone(), name_of(&key))).collect();
        named.sort_by(|one, other| one.1.cmp(&other.1));
        Ok(named)
    }

    /// Rejects a key's signatures from now on, or accepts them again.
    pub async fn disable_access_key(&self, access: &str, disabled: bool) -> Result<(), IdentityError> {
        let UserRoles { user, grants } = self.user_of_key(access).await?;
        let action = if disabled { "access_key.disable" } else { "access_key.enable" };
        let store = self.audited_for_user(&user, &grants, action, &json!({ "access": access }));
        Ok(store.disable_access_key(access, disabled).await?)
    }

    /// Removes a key.
    pub async fn remove_access_key(&self, access: &str) -> Result<(), IdentityError> {
        let UserRoles { user, grants } = self.user_of_key(access).await?;
        let store = self.audited_for_user(&user, &grants, "access_key.remove", &json!({ "access": access }));
        Ok(store.remove_access_key(access).await?)
    }

    async fn user_of_key(&self, access: &str) -> Result<UserRoles, IdentityError> {
        let holder = self.key_holder(access).await?.ok_or_else(|| IdentityError::Unknown {
            what: "access key",
            value: access.to_owned(),
            remedy: "`keysweep admin access-key list` lists the known ones",
        })?;
        Ok(UserRoles { user: holder.user, grants: holder.grants })
    }

    /// Returns the access key of this name, with its user and roles.
    pub async fn key_holder(&self, access: &str) -> Result<Option<KeyHolder>, IdentityError> {
        Ok(self.store.key_holder(access).await?)
    }

    /// Returns the secret half of a key, to verify a signature with.
    pub fn open_secret_key(&self, key: &AccessKey) -> Result<Secret, IdentityError> {
        Ok(self.vault.open_sealed(&key.access, field::ACCESS_KEY, &key.secret)?)
    }

    /// Returns whether a signature is used for the first time, and remembers it until it expires.
    pub async fn is_first_use(&self, signature: &[u8], valid_until: Timestamp) -> Result<bool, IdentityError> {
        Ok(self.store.remember_signature(now(), signature, valid_until).await?)
    }
}

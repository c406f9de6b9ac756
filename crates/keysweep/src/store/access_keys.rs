//! Access keys, which sign requests.

use super::{
    Store, StoreError,
    db::{Row, sql},
    users::{grant, user},
};
use crate::model::{AccessKey, KeyHolder};

impl Store {
    /// Adds an access key. `Taken` when its name is in use, `Missing` when its user does not exist.
    pub async fn add_access_key(&self, key: &AccessKey) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("INSERT INTO access_key (access, account_id, secret, disabled, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(&key.access)
            .bind(&key.user_id)
            .bind(&key.secret)
            .bind(key.disabled)
            .bind(key.created_at)
            .refers_to("user")
            .execute(&mut tx)
            .await?;
        self.commit(tx).await
    }

    /// Returns the access key with this name, with its user and the user's roles.
    pub async fn key_holder(&self, access: &str) -> Result<Option<KeyHolder>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let found = sql("SELECT * FROM access_key WHERE access = $1").bind(access).optional(&mut snapshot).await?;
        let Some(key) = found.as_ref().map(access_key).transpose()? else {
            snapshot.commit().await?;
            return Ok(None);
        };
        let found = sql("SELECT * FROM account WHERE id = $1").bind(&key.user_id).one(&mut snapshot).await?;
        let grants = sql("SELECT * FROM role_grant WHERE account_id = $1 ORDER BY project_id")
            .bind(&key.user_id)
            .list(&mut snapshot, grant)
            .await?;
        snapshot.commit().await?;
        Ok(Some(KeyHolder { key, user: user(&found)?, grants }))
    }

    /// Returns all access keys, by user and age.
    pub async fn access_keys(&self) -> Result<Vec<AccessKey>, StoreError> {
        sql("SELECT * FROM access_key ORDER BY account_id, created_at, access")
            .list(&mut self.reader().await?, access_key)
            .await
    }

    /// Disables or enables an access key. `Missing` when the key does not exist.
    pub async fn disable_access_key(&self, access: &str, disabled: bool) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("UPDATE access_key SET disabled = $1 WHERE access = $2")
            .bind(disabled)
            .bind(access)
            .change("access key", &mut tx)
            .await?;
        self.commit(tx).await
    }

    /// Removes an access key. `Missing` when the key does not exist.
    pub async fn remove_access_key(&self, access: &str) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("DELETE FROM access_key WHERE access = $1").bind(access).change("access key", &mut tx).await?;
        self.commit(tx).await
    }
}

fn access_key(row: &Row) -> Result<AccessKey, StoreError> {
    Ok(AccessKey {
        access: row.get("access")?,
        user_id: row.get("account_id")?,
        secret: row.get("secret")?,
        disabled: row.get("disabled")?,
        created_at: row.get("created_at")?,
    })
}

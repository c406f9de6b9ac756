//! All secrets at once, for another master key.

use sqlx::SqliteConnection;

use super::{fault::Fault, row};
use crate::{
    model::Sealed,
    store::{Resealed, SecretAt, SecretField, StoreError, secrets::is_complete},
};

pub(super) async fn all(db: &mut SqliteConnection) -> Result<Vec<SecretAt>, Fault> {
    let rows = sqlx::query(
        "SELECT access AS place, 0 AS field, secret AS sealed FROM access_key
         UNION ALL SELECT id, 1, password FROM instance WHERE password IS NOT NULL
         UNION ALL SELECT id, 2, sentinel_password FROM instance WHERE sentinel_password IS NOT NULL
         UNION ALL SELECT id, 3, client_key FROM instance WHERE client_key IS NOT NULL",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(row::secret).collect::<Result<_, _>>()?)
}

pub(super) async fn reseal(
    db: &mut SqliteConnection,
    now: i64,
    changes: &[Resealed],
    key_id: &str,
    check: &Sealed,
) -> Result<bool, Fault> {
    let busy = sqlx::query("SELECT 1 FROM lease WHERE owner IS NOT NULL AND expires_at > ?")
        .bind(now)
        .fetch_optional(&mut *db)
        .await?;
    if busy.is_some() {
        return Err(StoreError::sweeping().into());
    }
    if !is_complete(changes, all(db).await?) {
        return Ok(false);
    }
    for Resealed { before, after } in changes {
        let sql = match before.field {
            SecretField::AccessKey => "UPDATE access_key SET secret = ? WHERE access = ?",
            SecretField::Password => "UPDATE instance SET password = ? WHERE id = ?",
            SecretField::SentinelPassword => "UPDATE instance SET sentinel_password = ? WHERE id = ?",
            SecretField::ClientKey => "UPDATE instance SET client_key = ? WHERE id = ?",
        };
        sqlx::query(sql).bind(&after.0).bind(&before.row).execute(&mut *db).await?;
    }
    sqlx::query("DELETE FROM master_key_check").execute(&mut *db).await?;
    sqlx::query("INSERT INTO master_key_check (key_id, sealed) VALUES (?, ?)")
        .bind(key_id)
        .bind(&check.0)
        .execute(db)
        .await?;
    Ok(true)
}

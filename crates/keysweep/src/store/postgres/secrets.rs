//! All secrets at once, for another master key.

use sqlx::PgConnection;

use super::{Queue, fault::Fault, queue, row};
use crate::{
    model::Sealed,
    store::{Resealed, SecretAt, SecretField, StoreError, secrets::is_complete},
};

pub(super) async fn all(db: &mut PgConnection) -> Result<Vec<SecretAt>, Fault> {
    let rows = sqlx::query(
        "SELECT access AS place, 0::bigint AS field, secret AS sealed FROM access_key
         UNION ALL SELECT id, 1, password FROM instance WHERE password IS NOT NULL
         UNION ALL SELECT id, 2, sentinel_password FROM instance WHERE sentinel_password IS NOT NULL
         UNION ALL SELECT id, 3, client_key FROM instance WHERE client_key IS NOT NULL",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(row::secret).collect::<Result<_, _>>()?)
}

pub(super) async fn reseal(
    db: &mut PgConnection,
    now: i64,
    changes: &[Resealed],
    key_id: &str,
    check: &Sealed,
) -> Result<bool, Fault> {
    queue(db, Queue::MasterKey).await?;
    // Nobody adds or changes a secret between what is compared and what is written.
    sqlx::query("LOCK TABLE access_key, instance IN SHARE ROW EXCLUSIVE MODE").execute(&mut *db).await?;
    let busy = sqlx::query("SELECT 1 FROM lease WHERE owner IS NOT NULL AND expires_at > $1")
        .bind(now)
        .fetch_optional(&mut *db)
        .await?;
    if busy.is_some() {
        return Err(StoreError::sweeping().into());
    }
    if !is_complete(changes, all(db).await?) {
        return Ok(false);
    }
    for field in SecretField::ALL {
        let of_field = || changes.iter().filter(|change| change.before.field == field);
        let rows: Vec<&str> = of_field().map(|change| change.before.row.as_str()).collect();
        let values: Vec<&[u8]> = of_field().map(|change| change.after.0.as_slice()).collect();
        let sql = match field {
            SecretField::AccessKey => {
                "UPDATE access_key SET secret = value
                 FROM unnest($1::text[], $2::bytea[]) AS new (place, value) WHERE access = place"
            }
            SecretField::Password => {
                "UPDATE instance SET password = value
                 FROM unnest($1::text[], $2::bytea[]) AS new (place, value) WHERE id = place"
            }
            SecretField::SentinelPassword => {
                "UPDATE instance SET sentinel_password = value
                 FROM unnest($1::text[], $2::bytea[]) AS new (place, value) WHERE id = place"
            }
            SecretField::ClientKey => {
                "UPDATE instance SET client_key = value
                 FROM unnest($1::text[], $2::bytea[]) AS new (place, value) WHERE id = place"
            }
        };
        sqlx::query(sql).bind(rows).bind(values).execute(&mut *db).await?;
    }
    sqlx::query("DELETE FROM master_key_check").execute(&mut *db).await?;
    sqlx::query("INSERT INTO master_key_check (key_id, sealed) VALUES ($1, $2)")
        .bind(key_id)
        .bind(&check.0)
        .execute(db)
        .await?;
    Ok(true)
}

//! All encrypted values at once, for a new master key, and the value that checks the key.

use super::{
    Store, StoreError,
    db::{DbSession, Queue, Row, lock, sql, unreadable},
};
use crate::model::Sealed;

/// A field that holds encrypted values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretField {
    /// The secret half of an access key.
    AccessKey,
    /// The password of an instance.
    Password,
    /// An instance's password on its Sentinels.
    SentinelPassword,
    /// The private key of an instance's client certificate.
    ClientKey,
}

impl SecretField {
    /// All fields. A statement refers to a field by its index here.
    pub const ALL: [Self; 4] = [Self::AccessKey, Self::Password, Self::SentinelPassword, Self::ClientKey];

    /// Table, key column and column of the field.
    fn place(self) -> [&'static str; 3] {
        match self {
            Self::AccessKey => ["access_key", "access", "secret"],
            Self::Password => ["instance", "id", "password"],
            Self::SentinelPassword => ["instance", "id", "sentinel_password"],
            Self::ClientKey => ["instance", "id", "client_key"],
        }
    }
}

/// An encrypted value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAt {
    /// The access key, or the instance's id.
    pub row: String,
    /// Which of the row's fields.
    pub field: SecretField,
    /// The value.
    pub sealed: Sealed,
}

/// An encrypted value that replaces another.
#[derive(Debug, Clone)]
pub struct Resealed {
    /// The present value.
    pub before: SecretAt,
    /// The new value.
    pub after: Sealed,
}

/// Values that one statement replaces.
const BATCH: usize = 500;

impl Store {
    /// Returns every encrypted value, as they are at one moment, but not the one that checks the master key.
    pub async fn secrets(&self) -> Result<Vec<SecretAt>, StoreError> {
        all(&mut self.reader().await?).await
    }

    /// Replaces all encrypted values, and the value that checks the master key with `check`, which the key with this id
    /// decrypts: all or nothing. Returns false, and does nothing, when the changes do not begin at exactly the present
    /// values. `Unavailable` while a worker holds a lease: it has the key from before.
    pub async fn reseal(&self, changes: &[Resealed], key_id: &str, check: &Sealed) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        tx.queue(Queue::MasterKey).await?;
        // Keeps secrets from being added or changed between the comparison and the writes.
        lock("LOCK TABLE access_key, instance IN SHARE ROW EXCLUSIVE MODE").execute(&mut tx).await?;
        let busy = sql("SELECT 1 FROM lease WHERE owner IS NOT NULL AND expires_at > $1").bind(now);
        if busy.optional(&mut tx).await?.is_some() {
            tx.roll_back().await;
            return Err(StoreError::scanning());
        }
        if !is_complete(changes, all(&mut tx).await?) {
            tx.roll_back().await;
            return Ok(false);
        }
        for field in SecretField::ALL {
            let of_field: Vec<&Resealed> = changes.iter().filter(|change| change.before.field == field).collect();
            for batch in of_field.chunks(BATCH) {
                replace(&mut tx, field, batch).await?;
            }
        }
        sql("DELETE FROM master_key_check").execute(&mut tx).await?;
        sql("INSERT INTO master_key_check (key_id, sealed) VALUES ($1, $2)")
            .bind(key_id)
            .bind(check)
            .execute(&mut tx)
            .await?;
        self.commit(tx).await?;
        Ok(true)
    }

    /// Returns the check value kept for this key id, which only that master key decrypts. When none is kept for it, returns
    /// the first one kept for another key, so that the caller notices; when there is none at all, saves and returns `sealed`.
    pub async fn key_check(&self, key_id: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut tx = self.begin().await?;
        tx.queue(Queue::MasterKey).await?;
        sql("INSERT INTO master_key_check (key_id, sealed)
             SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM master_key_check)")
        .bind(key_id)
        .bind(sealed)
        .execute(&mut tx)
        .await?;
        let kept = sql("SELECT sealed FROM master_key_check ORDER BY (key_id = $1) DESC, seq LIMIT 1")
            .bind(key_id)
            .one(&mut tx)
            .await?;
        self.commit(tx).await?;
        kept.get("sealed")
    }
}

async fn all(session: &mut DbSession) -> Result<Vec<SecretAt>, StoreError> {
    sql("SELECT access AS place, CAST(0 AS BIGINT) AS field, secret AS sealed FROM access_key
         UNION ALL SELECT id, 1, password FROM instance WHERE password IS NOT NULL
         UNION ALL SELECT id, 2, sentinel_password FROM instance WHERE sentinel_password IS NOT NULL
         UNION ALL SELECT id, 3, client_key FROM instance WHERE client_key IS NOT NULL")
    .list(session, secret)
    .await
}

/// Replaces the values of one field in some hundred rows: one statement a row would take longer than a verb may.
async fn replace(tx: &mut DbSession, field: SecretField, changes: &[&Resealed]) -> Result<(), StoreError> {
    let [table, key, column] = field.place();
    let rows: Vec<String> = (1..=changes.len()).map(|row| format!("(${}, ${})", 2 * row - 1, 2 * row)).collect();
    let rows = rows.join(", ");
    let mut update =
        sql(format!("UPDATE {table} SET {column} = new.column2 FROM (VALUES {rows}) AS new WHERE {key} = new.column1"));
    for change in changes {
        update = update.bind(&change.before.row).bind(&change.after);
    }
    update.execute(tx).await?;
    Ok(())
}

/// Whether `changes` begin at exactly the present values, in whatever order.
fn is_complete(changes: &[Resealed], mut present: Vec<SecretAt>) -> bool {
    let key = |secret: &SecretAt| (secret.field, secret.row.clone());
    let mut before: Vec<&SecretAt> = changes.iter().map(|change| &change.before).collect();
    before.sort_by_key(|secret| key(secret));
    present.sort_by_key(key);
    before.into_iter().eq(present.iter())
}

fn secret(row: &Row) -> Result<SecretAt, StoreError> {
    let index: i64 = row.get("field")?;
    let field = usize::try_from(index).ok().and_then(|index| SecretField::ALL.get(index)).copied();
    let field = field.ok_or_else(|| unreadable("field", format!("no secret has the number {index}")))?;
    Ok(SecretAt { row: row.get("place")?, field, sealed: row.get("sealed")? })
}

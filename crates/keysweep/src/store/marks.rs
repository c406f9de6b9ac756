//! Marks of an instance's history: scans and changes of server settings, beside its estimates.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Store, StoreError,
    db::{DbSession, Row, keys, sql},
};
use crate::model::{LastScan, Mark, MarkKind};

/// Most marks that are kept of an instance; a scan a minute fills them in a day and a half.
const MAX_MARKS: i64 = 2_000;
/// What the detail of a successful scan contains.
const SUCCESS: &str = r#"%"status":"success"%"#;

impl Store {
    /// Adds a mark to an instance's history: something of this kind has happened now. `detail` is JSON without key names and
    /// secrets. The oldest marks beyond 2,000 are removed. `Missing` when the instance does not exist.
    pub async fn mark(&self, instance_id: &str, kind: MarkKind, detail: &Value) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        insert_mark(&mut tx, now, instance_id, kind, detail).await?;
        self.commit(tx).await
    }

    /// Returns an instance's marks from a time on, oldest first.
    pub async fn marks_since(&self, instance_id: &str, from: Timestamp) -> Result<Vec<Mark>, StoreError> {
        marks_of(&mut self.reader().await?, instance_id, from).await
    }

    /// Returns the last successful scans of those of these instances that have one, with the ids of the instances.
    pub async fn last_scans(&self, instance_ids: &[String]) -> Result<Vec<(String, LastScan)>, StoreError> {
        last_scans_of(&mut self.reader().await?, instance_ids).await
    }
}

/// Returns the last successful scans of instances within a transaction.
pub(super) async fn last_scans_of(
    tx: &mut DbSession,
    instance_ids: &[String],
) -> Result<Vec<(String, LastScan)>, StoreError> {
    let found = sql("SELECT mark.* FROM json_each($1/*!::json*/) AS wanted JOIN mark ON mark.seq = (
             SELECT scan.seq FROM mark AS scan
             WHERE scan.instance_id = wanted.key AND scan.kind = $2 AND scan.detail LIKE $3
             ORDER BY scan.seq DESC LIMIT 1
         )");
    let read = |row: &Row| Ok(LastScan::of(&mark(row)?).map(|scan| (row.get("instance_id"), scan)));
    let found = found.bind(keys(instance_ids)).bind(MarkKind::Scan).bind(SUCCESS).list(tx, read).await?;
    found.into_iter().flatten().map(|(id, scan)| Ok((id?, scan))).collect()
}

/// Returns an instance's marks from a time on, oldest first, within a transaction.
pub(super) async fn marks_of(tx: &mut DbSession, instance_id: &str, from: Timestamp) -> Result<Vec<Mark>, StoreError> {
    let found = sql("SELECT * FROM mark WHERE instance_id = $1 AND happened_at >= $2 ORDER BY seq");
    found.bind(instance_id).bind(from).list(tx, mark).await
}

/// Adds a mark within a transaction.
pub(super) async fn insert_mark(
    tx: &mut DbSession,
    now: Timestamp,
    instance_id: &str,
    kind: MarkKind,
    detail: &Value,
) -> Result<(), StoreError> {
    sql("INSERT INTO mark (instance_id, happened_at, kind, detail) VALUES ($1, $2, $3, $4)")
        .bind(instance_id)
        .bind(now)
        .bind(kind)
        .bind(detail.to_string())
        .refers_to("instance")
        .execute(tx)
        .await?;
    sql("DELETE FROM mark WHERE instance_id = $1 AND seq <= (
             SELECT seq FROM mark WHERE instance_id = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2
         )")
    .bind(instance_id)
    .bind(MAX_MARKS)
    .execute(tx)
    .await?;
    Ok(())
}

fn mark(row: &Row) -> Result<Mark, StoreError> {
    let detail: String = row.get("detail")?;
    Ok(Mark {
        happened_at: row.get("happened_at")?,
        kind: row.get("kind")?,
        detail: serde_json::from_str(&detail).unwrap_or_default(),
    })
}

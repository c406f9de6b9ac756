//! Which instances may not be moved or removed: a worker may still write to their servers, or has to restore them.

use jiff::Timestamp;

use super::{
    StoreError,
    db::{DbSession, Row, lock, sql},
    held_servers::free_servers,
};

/// Returns the condition that a worker holds or restores the servers of an instance, or should. `hold`: name of the table of holds
/// in the statement, beside `instance`.
pub(super) fn is_watched(hold: &str) -> String {
    format!("({hold}.changed OR {hold}.level <> 'observe' AND NOT instance.paused)")
}

/// Returns the name of an instance whose servers may have other settings than their own; `None`: they have their own. Workers
/// record no write until the transaction ends.
pub(super) async fn changed_instance(tx: &mut DbSession, instance_id: &str) -> Result<Option<String>, StoreError> {
    lock_hold(tx, instance_id).await?;
    let found = sql("SELECT instance.name FROM hold JOIN instance ON instance.id = hold.instance_id
         WHERE hold.instance_id = $1 AND hold.changed")
    .bind(instance_id)
    .optional(tx)
    .await?;
    found.as_ref().map(name).transpose()
}

/// Returns the name of an instance that a worker holds or restores, or will; `None`: no worker connects to its servers. No
/// worker claims it until the transaction ends.
pub(super) async fn held_instance(
    tx: &mut DbSession,
    now: Timestamp,
    instance_id: &str,
) -> Result<Option<String>, StoreError> {
    lock_hold(tx, instance_id).await?;
    let found = sql(format!(
        "SELECT instance.name FROM hold JOIN instance ON instance.id = hold.instance_id
         WHERE hold.instance_id = $1 AND ({} OR hold.owner IS NOT NULL AND hold.expires_at > $2)",
        is_watched("hold")
    ))
    .bind(instance_id)
    .bind(now)
    .optional(tx)
    .await?;
    found.as_ref().map(name).transpose()
}

/// Removes what is known of the servers at the instance's earlier URL, and ends the lease of a worker that knows them.
/// `restore.json` keeps its records.
pub(super) async fn forget_servers(tx: &mut DbSession, instance_id: &str) -> Result<(), StoreError> {
    sql("DELETE FROM hold_baseline WHERE instance_id = $1").bind(instance_id).execute(tx).await?;
    free_servers(tx, instance_id).await?;
    sql("UPDATE hold SET owner = NULL, expires_at = NULL, epoch = epoch + 1, status = NULL, failure = NULL,
             reported_at = NULL
         WHERE instance_id = $1")
    .bind(instance_id)
    .execute(tx)
    .await?;
    Ok(())
}

async fn lock_hold(tx: &mut DbSession, instance_id: &str) -> Result<(), StoreError> {
    lock("SELECT 1 FROM hold WHERE instance_id = $1 FOR UPDATE").bind(instance_id).execute(tx).await?;
    Ok(())
}

fn name(row: &Row) -> Result<String, StoreError> {
    row.get("name")
}

//! The hosts that an active task's scan puts load on, for the limit of concurrent scans per host.

use super::{
    StoreError,
    db::{DbSession, keys, sql},
};
use crate::model::{Instance, Status, hosts};

/// Adds hosts to those that an active task's scan puts load on.
pub(super) async fn add_hosts(tx: &mut DbSession, task_id: &str, hosts: &[String]) -> Result<(), StoreError> {
    if !hosts.is_empty() {
        sql("INSERT INTO task_host (task_id, host) SELECT $1, key FROM json_each($2/*!::json*/) WHERE TRUE
             ON CONFLICT DO NOTHING")
        .bind(task_id)
        .bind(keys(hosts))
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Removes the hosts of a task that ends.
pub(super) async fn remove_hosts(tx: &mut DbSession, task_id: &str) -> Result<(), StoreError> {
    sql("DELETE FROM task_host WHERE task_id = $1").bind(task_id).execute(tx).await?;
    Ok(())
}

/// Gives the active task of an instance whose URL has changed the hosts of the new one. A running task keeps its old hosts
/// as well, since its worker goes on there until it ends.
pub(super) async fn hosts_after_move(tx: &mut DbSession, instance: &Instance) -> Result<(), StoreError> {
    let active = sql("SELECT id, status FROM task
         WHERE instance_id = $1 AND status IN ('waiting', 'running') /*! FOR NO KEY UPDATE */")
    .bind(&instance.id)
    .optional(tx)
    .await?;
    let Some(task) = active else { return Ok(()) };
    let id: String = task.get("id")?;
    if task.get::<Status>("status")? == Status::Waiting {
        remove_hosts(tx, &id).await?;
    }
    add_hosts(tx, &id, &hosts(instance)).await
}

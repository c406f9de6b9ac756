//! Who counts on `lazyfree-lazy-expire` in which server process.

use sqlx::SqliteConnection;

use super::{
    fault::Fault,
    row::{self, Reader},
};
use crate::{
    model::{Instance, LazyFreeHold},
    store::LazyFreeHolders,
};

pub(super) async fn join(
    db: &mut SqliteConnection,
    now: i64,
    hold: &LazyFreeHold,
) -> Result<Option<LazyFreeHolders>, Fault> {
    let anybody = sqlx::query("SELECT 1 FROM lazyfree_hold WHERE run_id = ? LIMIT 1").bind(&hold.run_id);
    match anybody.fetch_optional(&mut *db).await? {
        Some(_) => Ok(Some(self::hold(db, now, hold).await?)),
        None => Ok(None),
    }
}

pub(super) async fn hold(db: &mut SqliteConnection, now: i64, hold: &LazyFreeHold) -> Result<LazyFreeHolders, Fault> {
    let inserted = sqlx::query(
        "INSERT INTO lazyfree_hold (run_id, task_id, address, held_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(&hold.run_id)
    .bind(&hold.task_id)
    .bind(&hold.address)
    .bind(now)
    .execute(&mut *db)
    .await?;
    let others = others(db, &hold.run_id, &hold.task_id).await?;
    Ok(LazyFreeHolders { held_before: inserted.rows_affected() == 0, others })
}

pub(super) async fn let_go(db: &mut SqliteConnection, run_id: &str, task_id: &str) -> Result<u64, Fault> {
    sqlx::query("DELETE FROM lazyfree_hold WHERE run_id = ? AND task_id = ?")
        .bind(run_id)
        .bind(task_id)
        .execute(&mut *db)
        .await?;
    others(db, run_id, task_id).await
}

async fn others(db: &mut SqliteConnection, run_id: &str, task_id: &str) -> Result<u64, Fault> {
    let counted = sqlx::query("SELECT COUNT(*) AS others FROM lazyfree_hold WHERE run_id = ? AND task_id <> ?")
        .bind(run_id)
        .bind(task_id)
        .fetch_one(db)
        .await?;
    Ok(Reader(&counted).count("others")?)
}

pub(super) async fn abandoned(db: &mut SqliteConnection) -> Result<Vec<(LazyFreeHold, Instance)>, Fault> {
    let rows = sqlx::query(
        "SELECT instance.*, hold.run_id AS hold_run_id, hold.task_id AS hold_task_id, hold.address AS hold_address
         FROM lazyfree_hold AS hold
         JOIN task ON task.id = hold.task_id
         JOIN instance ON instance.id = task.instance_id
         WHERE task.status IN ('success', 'failed')
         ORDER BY hold.held_at",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok((row::lazyfree_hold(row)?, row::instance(row)?))).collect()
}

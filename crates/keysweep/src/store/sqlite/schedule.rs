//! Schedules, and the runs that they lead to.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    fault::Fault,
    row::{self, count, micros},
    task,
};
use crate::{
    model::{NewTask, Task},
    store::{Created, Plan},
};

/// Every plan, for as many conditions as follow.
macro_rules! plans {
    ($conditions:literal) => {
        concat!(
            "SELECT auto_scan.*, instance.*,
                    EXISTS (
                        SELECT 1 FROM task WHERE task.instance_id = instance.id AND status IN ('waiting', 'running')
                    ) AS is_active,
                    (
                        SELECT MAX(finished_at) FROM task
                        WHERE task.instance_id = instance.id AND status IN ('success', 'failed')
                          AND auto_scan.interval_us = 0
                    ) AS last_end
             FROM auto_scan JOIN instance ON instance.id = auto_scan.instance_id
             WHERE enabled AND ",
            $conditions
        )
    };
}

pub(super) async fn due(db: &mut SqliteConnection, now: i64, limit: u32) -> Result<Vec<Plan>, Fault> {
    let rows = sqlx::query(plans!(
        "(look_at IS NULL OR look_at <= ? OR seen_at IS NULL OR seen_at <> updated_at)
         ORDER BY look_at LIMIT ?"
    ))
    .bind(now)
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(row::plan).collect::<Result<_, _>>()?)
}

/// Whether a plan is still as it was when it was read.
async fn is_unchanged(db: &mut SqliteConnection, plan: &Plan) -> Result<bool, Fault> {
    let current =
        sqlx::query(plans!("auto_scan.instance_id = ?")).bind(&plan.config.instance_id).fetch_optional(db).await?;
    Ok(current.as_ref().map(row::plan).transpose()?.is_some_and(|current| current.is_as(plan)))
}

pub(super) async fn start(
    db: &mut SqliteConnection,
    now: i64,
    plan: &Plan,
    new: &NewTask,
    look_at: Timestamp,
) -> Result<Option<Task>, Fault> {
    if !is_unchanged(db, plan).await? {
        return Ok(None);
    }
    let Created::New(task) = task::create(db, now, new).await? else { return Ok(None) };
    note(db, plan, new.due_at, look_at).await?;
    Ok(Some(task))
}

pub(super) async fn put_off(
    db: &mut SqliteConnection,
    plan: &Plan,
    handled: Option<Timestamp>,
    look_at: Timestamp,
) -> Result<(), Fault> {
    match is_unchanged(db, plan).await? {
        true => note(db, plan, handled, look_at).await,
        false => Ok(()),
    }
}

async fn note(
    db: &mut SqliteConnection,
    plan: &Plan,
    handled: Option<Timestamp>,
    look_at: Timestamp,
) -> Result<(), Fault> {
    sqlx::query("UPDATE auto_scan SET handled_at = ?, look_at = ?, seen_at = updated_at WHERE instance_id = ?")
        .bind(handled.map(micros))
        .bind(micros(look_at))
        .bind(&plan.config.instance_id)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets the oldest records of the new task's kind where there are too many: one kind never pushes out the other.
pub(super) async fn make_room(db: &mut SqliteConnection, new: &NewTask) -> Result<(), Fault> {
    sqlx::query(
        "DELETE FROM task WHERE seq IN (
             SELECT seq FROM task WHERE instance_id = ? AND scan_type = ? AND status IN ('success', 'failed')
             ORDER BY seq DESC LIMIT -1 OFFSET ?
         )",
    )
    .bind(&new.instance_id)
    .bind(new.scan_type.as_str())
    .bind(count(u64::from(new.records.saturating_sub(1))))
    .execute(db)
    .await?;
    Ok(())
}

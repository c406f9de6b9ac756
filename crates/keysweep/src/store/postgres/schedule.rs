//! Schedules, and the runs that they lead to.

use jiff::Timestamp;
use sqlx::PgConnection;

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

pub(super) async fn due(db: &mut PgConnection, now: i64, limit: u32) -> Result<Vec<Plan>, Fault> {
    let rows = sqlx::query(plans!(
        "(look_at IS NULL OR look_at <= $1 OR seen_at IS NULL OR seen_at <> updated_at)
         ORDER BY look_at NULLS FIRST LIMIT $2"
    ))
    .bind(now)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(row::plan).collect::<Result<_, _>>()?)
}

/// Whether a plan is still as it was when it was read; it stays so until the transaction ends.
async fn is_unchanged(db: &mut PgConnection, plan: &Plan) -> Result<bool, Fault> {
    // Locks first, and then a look at what they lock; instances before all that belongs to them.
    sqlx::query("SELECT 1 FROM instance WHERE id = $1 FOR SHARE")
        .bind(&plan.config.instance_id)
        .execute(&mut *db)
        .await?;
    sqlx::query("SELECT 1 FROM auto_scan WHERE instance_id = $1 FOR UPDATE")
        .bind(&plan.config.instance_id)
        .execute(&mut *db)
        .await?;
    let current =
        sqlx::query(plans!("auto_scan.instance_id = $1")).bind(&plan.config.instance_id).fetch_optional(db).await?;
    Ok(current.as_ref().map(row::plan).transpose()?.is_some_and(|current| current.is_as(plan)))
}

pub(super) async fn start(
    db: &mut PgConnection,
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
    db: &mut PgConnection,
    plan: &Plan,
    handled: Option<Timestamp>,
    look_at: Timestamp,
) -> Result<(), Fault> {
    match is_unchanged(db, plan).await? {
        true => note(db, plan, handled, look_at).await,
        false => Ok(()),
    }
}

async fn note(db: &mut PgConnection, plan: &Plan, handled: Option<Timestamp>, look_at: Timestamp) -> Result<(), Fault> {
    sqlx::query("UPDATE auto_scan SET handled_at = $1, look_at = $2, seen_at = updated_at WHERE instance_id = $3")
        .bind(handled.map(micros))
        .bind(micros(look_at))
        .bind(&plan.config.instance_id)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets the oldest records of the new task's kind where there are too many: one kind never pushes out the other.
pub(super) async fn make_room(db: &mut PgConnection, new: &NewTask) -> Result<(), Fault> {
    sqlx::query(
        "DELETE FROM task WHERE seq IN (
             SELECT seq FROM task WHERE instance_id = $1 AND scan_type = $2 AND status IN ('success', 'failed')
             ORDER BY seq DESC OFFSET $3
         )",
    )
    .bind(&new.instance_id)
    .bind(new.scan_type.as_str())
    .bind(count(u64::from(new.records.saturating_sub(1))))
    .execute(db)
    .await?;
    Ok(())
}

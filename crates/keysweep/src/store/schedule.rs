//! The schedule's plans and the runs that they lead to. The rule itself is in `task::schedule`.
//!
//! A verb that changes a plan does so only if the plan is still as it was read, settings, window and tasks: replicas read the
//! same plans, and operators change them. A plan that has changed is due again at once.

use jiff::Timestamp;

use super::{
    Created, Store, StoreError,
    auto_scan::auto_scan,
    db::{DbSession, Row, lock, sql},
    instances::instance,
    tasks::create,
};
use crate::model::{AutoScan, Instance, NewTask, Task};

/// An instance's schedule with everything that decides about its next run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The auto-scan settings.
    pub config: AutoScan,
    /// The instance.
    pub instance: Instance,
    /// The latest due time that has led to a run or was skipped.
    pub handled: Option<Timestamp>,
    /// Whether a task of the instance is active.
    pub active: bool,
    /// When the last task of the instance finished, where that decides: with interval 0, and with an adaptive one.
    pub last_end: Option<Timestamp>,
    /// Id of the instance's last successful task, where the interval adapts to what scans measure.
    pub last_scan: Option<String>,
}

impl Plan {
    /// Whether this plan leads to the same step as the one that was read before. The stats of the instance do not decide.
    fn same_decision(&self, before: &Self) -> bool {
        let Instance { stats, stats_error, unreachable, .. } = self.instance.clone();
        *self
            == Self {
                instance: Instance { stats, stats_error, unreachable, ..before.instance.clone() },
                ..before.clone()
            }
    }
}

/// Plans that are due, and by which time.
#[derive(Debug, Clone)]
pub struct DuePlans {
    /// The store's clock.
    pub now: Timestamp,
    /// The plans, the longest overdue first.
    pub plans: Vec<Plan>,
}

/// Selects plans that meet the conditions.
macro_rules! plans {
    ($conditions:literal) => {
        sql(concat!(
            "SELECT auto_scan.*, instance.*,
                    EXISTS (
                        SELECT 1 FROM task WHERE task.instance_id = instance.id AND status IN ('waiting', 'running')
                    ) AS is_active,
                    (
                        SELECT MAX(finished_at) FROM task
                        WHERE task.instance_id = instance.id AND status IN ('success', 'failed')
                          AND (auto_scan.interval_us = 0 OR auto_scan.target_millionths IS NOT NULL)
                    ) AS last_end,
                    (
                        SELECT id FROM task
                        WHERE task.instance_id = instance.id AND status = 'success'
                          AND auto_scan.target_millionths IS NOT NULL
                        ORDER BY seq DESC LIMIT 1
                    ) AS last_scan
             FROM auto_scan JOIN instance ON instance.id = auto_scan.instance_id
             WHERE enabled AND ",
            $conditions
        ))
    };
}

impl Store {
    /// Returns up to `limit` enabled plans that are due to be checked.
    pub async fn due_plans(&self, limit: u32) -> Result<DuePlans, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let now = self.now(&mut snapshot).await?;
        let plans = plans!(
            "(look_at IS NULL OR look_at <= $1 OR seen_at IS NULL OR seen_at <> updated_at)
             ORDER BY look_at NULLS FIRST LIMIT $2"
        );
        let plans = plans.bind(now).bind(limit).list(&mut snapshot, plan).await?;
        snapshot.commit().await?;
        Ok(DuePlans { now, plans })
    }

    /// Creates the run that was due at `new.due_at`, and has the plan checked again at `next_check_at`. Returns `None`, and does
    /// nothing, when the plan has changed.
    pub async fn start_run(
        &self,
        plan: &Plan,
        new: &NewTask,
        next_check_at: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        if !is_unchanged(&mut tx, plan).await? {
            tx.roll_back().await;
            return Ok(None);
        }
        let Created::New(task) = create(&mut tx, now, new).await? else {
            tx.roll_back().await;
            return Ok(None);
        };
        note(&mut tx, plan, new.due_at, next_check_at).await?;
        self.commit(tx).await?;
        Ok(Some(task))
    }

    /// Saves up to which due time a plan is handled, and when it is checked again. Does nothing when the plan has changed.
    pub async fn reschedule(
        &self,
        plan: &Plan,
        handled: Option<Timestamp>,
        next_check_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if !is_unchanged(&mut tx, plan).await? {
            tx.roll_back().await;
            return Ok(());
        }
        note(&mut tx, plan, handled, next_check_at).await?;
        self.commit(tx).await
    }
}

/// Whether a plan is still as it was read; it stays so until the transaction ends.
async fn is_unchanged(tx: &mut DbSession, before: &Plan) -> Result<bool, StoreError> {
    let id = &before.config.instance_id;
    // Locked before they are read; instances before everything that belongs to them.
    lock("SELECT 1 FROM instance WHERE id = $1 FOR SHARE").bind(id).execute(tx).await?;
    lock("SELECT 1 FROM auto_scan WHERE instance_id = $1 FOR UPDATE").bind(id).execute(tx).await?;
    let current = plans!("auto_scan.instance_id = $1").bind(id).optional(tx).await?;
    Ok(current.as_ref().map(plan).transpose()?.is_some_and(|current| current.same_decision(before)))
}

async fn note(
    tx: &mut DbSession,
    plan: &Plan,
    handled: Option<Timestamp>,
    next_check_at: Timestamp,
) -> Result<(), StoreError> {
    sql("UPDATE auto_scan SET handled_at = $1, look_at = $2, seen_at = updated_at WHERE instance_id = $3")
        .bind(handled)
        .bind(next_check_at)
        .bind(&plan.config.instance_id)
        .execute(tx)
        .await?;
    Ok(())
}

fn plan(row: &Row) -> Result<Plan, StoreError> {
    Ok(Plan {
        config: auto_scan(row)?,
        instance: instance(row)?,
        handled: row.get("handled_at")?,
        active: row.get("is_active")?,
        last_end: row.get("last_end")?,
        last_scan: row.get("last_scan")?,
    })
}

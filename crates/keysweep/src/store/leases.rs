//! Leases: what only the worker that holds one may do to its running task.

use std::time::Duration;

use jiff::Timestamp;
use keysweep_engine::Report;
use serde_json::json;

use super::{
    Store, StoreError,
    clock::after,
    db::{DbSession, lock, sql},
    estimates::estimate_soon,
    hosts::remove_hosts,
    marks::insert_mark,
    tasks::DOCUMENT_VERSION,
};
use crate::model::{Lease, MarkKind, Reason, ScanType, Status, Stored, Window};

/// What a worker reports about its task, about once a second.
///
/// The counts stand in the task's columns, which lists and sums read and which never go back, and again in the documents:
/// the checkpoint has those of each shard, from which the next worker continues, progress those of the last second, and the
/// report those that the engine ends with. None can be computed from another: a worker that dies leaves a checkpoint older
/// than its last counts, and shards that merge or are scanned again make their sum differ from the task's.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat {
    /// Running time used, over all workers of the task.
    pub used: Duration,
    /// Expired keys reclaimed so far, over all workers.
    pub reclaimed: u64,
    /// Keys scanned so far, over all workers.
    pub scanned: u64,
    /// Whether `reclaimed` is exact. Once it was not, the task's count stays inexact.
    pub exact: bool,
    /// Live progress, as JSON; `None` keeps the last one.
    pub progress: Option<String>,
    /// State of each shard, as versioned JSON; `None` keeps the last one.
    pub checkpoint: Option<String>,
}

/// The store's answer to a write that needs the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatOutcome {
    /// The worker held the lease, and what it wrote was saved.
    Held {
        /// Whether a user has asked the task to stop.
        cancel_requested: bool,
        /// When the task may be claimed again, if the instance's window is closed for it: when the window opens, or now if
        /// the stored window cannot be read, so that the next claim fails the task and names the field. `None` at the end
        /// of a task.
        closed_until: Option<Timestamp>,
    },
    /// Another worker has the lease: nothing was saved.
    Lost,
}

/// How a task ended.
#[derive(Debug, Clone)]
pub struct TaskResult {
    /// `Ok`: success. `Err`: failed, with the reason and a sentence.
    pub outcome: Result<(), (Reason, String)>,
    /// The last counts.
    pub heartbeat: Heartbeat,
    /// The engine's report, as JSON; `None` when the scan never started.
    pub report: Option<String>,
}

impl Store {
    /// Renews a lease and saves the counts, unless the lease is lost. An expired lease is renewed as long as no other worker
    /// has taken it over: the epoch is the fence, not the time. Counts never go back.
    pub async fn heartbeat(
        &self,
        lease: &Lease,
        renew: Duration,
        heartbeat: &Heartbeat,
    ) -> Result<HeartbeatOutcome, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let Some(cancel_requested) = record(&mut tx, lease, heartbeat, None).await? else {
            tx.roll_back().await;
            return Ok(HeartbeatOutcome::Lost);
        };
        sql("UPDATE lease SET expires_at = $1 WHERE instance_id = $2")
            .bind(after(now, renew))
            .bind(&lease.instance_id)
            .execute(&mut tx)
            .await?;
        // As it is now: the window may have changed since the claim.
        let closed_until = match binding_window(&mut tx, &lease.task_id).await? {
            // A scan must not go on without its window. Its worker releases the task, and the next claim fails it.
            Some(window) => window.value().map_or(Some(now), |window| opens_at(window, now)),
            None => None,
        };
        self.commit(tx).await?;
        Ok(HeartbeatOutcome::Held { cancel_requested, closed_until })
    }

    /// Saves the counts and releases a lease without ending the task: the next worker continues as soon as the instance's
    /// window is open for it.
    pub async fn release_lease(&self, lease: &Lease, heartbeat: &Heartbeat) -> Result<HeartbeatOutcome, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        // A change of the window at this moment is committed before this verb reads it, or waits for it.
        lock("SELECT 1 FROM instance WHERE id = $1 FOR SHARE").bind(&lease.instance_id).execute(&mut tx).await?;
        let Some(cancel_requested) = record(&mut tx, lease, heartbeat, None).await? else {
            tx.roll_back().await;
            return Ok(HeartbeatOutcome::Lost);
        };
        release(&mut tx, &lease.instance_id).await?;
        let window = binding_window(&mut tx, &lease.task_id).await?;
        // A task whose window cannot be read may be claimed at once.
        let closed_until = window.and_then(|window| opens_at(window.value().ok()?, now));
        if let Some(until) = closed_until {
            defer(&mut tx, &lease.task_id, until).await?;
        }
        self.commit(tx).await?;
        Ok(HeartbeatOutcome::Held { cancel_requested, closed_until })
    }

    /// Ends a task and releases its lease. After a successful scan the instance is estimated soon: what was estimated before is
    /// about keys that are reclaimed by now.
    pub async fn finish(&self, lease: &Lease, result: &TaskResult) -> Result<HeartbeatOutcome, StoreError> {
        let report = result.report.as_deref().and_then(|report| serde_json::from_str::<Report>(report).ok());
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        // Instances are locked before everything that belongs to them.
        lock("SELECT 1 FROM instance WHERE id = $1 FOR NO KEY UPDATE")
            .bind(&lease.instance_id)
            .execute(&mut tx)
            .await?;
        let recorded = record(&mut tx, lease, &result.heartbeat, result.report.as_deref()).await?;
        let Some(cancel_requested) = recorded else {
            tx.roll_back().await;
            return Ok(HeartbeatOutcome::Lost);
        };
        let (status, reason, detail) = match &result.outcome {
            Ok(()) => (Status::Success, None, None),
            Err((reason, detail)) => (Status::Failed, Some(reason), Some(detail.as_str())),
        };
        // Never earlier than its start, should the clock have been set back.
        sql("UPDATE task SET status = $1, reason = $2, reason_detail = $3,
                             finished_at = CASE WHEN $4 > started_at THEN $4 ELSE started_at END
             WHERE id = $5")
        .bind(status)
        .bind(reason)
        .bind(detail)
        .bind(now)
        .bind(&lease.task_id)
        .execute(&mut tx)
        .await?;
        remove_hosts(&mut tx, &lease.task_id).await?;
        release(&mut tx, &lease.instance_id).await?;
        // A task that never reached its server has changed nothing there.
        if result.heartbeat.scanned > 0 {
            let detail = json!({
                "task_id": lease.task_id,
                "status": status.as_str(),
                "keys_scanned": result.heartbeat.scanned,
                "keys_reclaimed": result.heartbeat.reclaimed,
                "remaining": report.and_then(|report| report.totals.remaining),
            });
            insert_mark(&mut tx, now, &lease.instance_id, MarkKind::Scan, &detail).await?;
            if status == Status::Success {
                estimate_soon(&mut tx, now, &lease.instance_id).await?;
            }
        }
        self.commit(tx).await?;
        Ok(HeartbeatOutcome::Held { cancel_requested, closed_until: None })
    }
}

/// Saves the counts and documents if the worker still holds the lease, and returns whether the task is to stop.
async fn record(
    tx: &mut DbSession,
    lease: &Lease,
    heartbeat: &Heartbeat,
    report: Option<&str>,
) -> Result<Option<bool>, StoreError> {
    // Locked before the task is changed: a condition on another row than the one that a statement changes would see that row
    // as it was when the statement began.
    let held = sql("SELECT 1 FROM lease
         WHERE instance_id = $1 AND task_id = $2 AND owner = $3 AND epoch = $4 /*! FOR UPDATE */")
    .bind(&lease.instance_id)
    .bind(&lease.task_id)
    .bind(&lease.owner)
    .bind(lease.epoch)
    .optional(tx)
    .await?;
    if held.is_none() {
        return Ok(None);
    }
    let recorded = sql("UPDATE task SET
             used_us = CASE WHEN $1 > used_us THEN $1 ELSE used_us END,
             released = CASE WHEN $2 > released THEN $2 ELSE released END,
             scanned = CASE WHEN $3 > scanned THEN $3 ELSE scanned END,
             exact = exact AND $4
         WHERE id = $5 AND status = 'running' RETURNING cancel_requested")
    .bind(heartbeat.used)
    .bind(heartbeat.reclaimed)
    .bind(heartbeat.scanned)
    .bind(heartbeat.exact)
    .bind(&lease.task_id)
    .optional(tx)
    .await?;
    let Some(task) = recorded else { return Ok(None) };
    let documents = [heartbeat.progress.as_deref(), heartbeat.checkpoint.as_deref(), report];
    if documents != [None; 3] {
        write_documents(tx, &lease.task_id, documents).await?;
    }
    task.get("cancel_requested").map(Some)
}

/// Saves progress, checkpoint and report; `None` keeps the last one, unless another version of keysweep wrote it.
async fn write_documents(tx: &mut DbSession, task_id: &str, documents: [Option<&str>; 3]) -> Result<(), StoreError> {
    let [progress, checkpoint, report] = documents;
    sql("INSERT INTO task_document (task_id, version, progress, checkpoint, report) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (task_id) DO UPDATE SET
             version = excluded.version,
             progress = COALESCE(excluded.progress, CASE WHEN task_document.version = excluded.version THEN task_document.progress END),
             checkpoint = COALESCE(excluded.checkpoint, CASE WHEN task_document.version = excluded.version THEN task_document.checkpoint END),
             report = COALESCE(excluded.report, CASE WHEN task_document.version = excluded.version THEN task_document.report END)")
    .bind(task_id)
    .bind(DOCUMENT_VERSION)
    .bind(progress)
    .bind(checkpoint)
    .bind(report)
    .execute(tx)
    .await?;
    Ok(())
}

/// Returns the maintenance window of a task's instance, if it binds that task.
async fn binding_window(tx: &mut DbSession, task_id: &str) -> Result<Option<Stored<Window>>, StoreError> {
    let row = sql("SELECT scan_type, off_peak_window, window_binds_manual
         FROM task JOIN instance ON instance.id = task.instance_id WHERE task.id = $1")
    .bind(task_id)
    .one(tx)
    .await?;
    let is_bound = row.get::<ScanType>("scan_type")? == ScanType::Auto || row.get("window_binds_manual")?;
    Ok(row.get::<Option<Stored<Window>>>("off_peak_window")?.filter(|_| is_bound))
}

/// Returns when a window opens, if it is closed.
fn opens_at(window: &Window, now: Timestamp) -> Option<Timestamp> {
    Some(window.next_open(now)).filter(|opens| *opens > now)
}

/// Keeps a task from being claimed before a time.
pub(super) async fn defer(tx: &mut DbSession, task_id: &str, until: Timestamp) -> Result<(), StoreError> {
    sql("UPDATE task SET not_before = $1 WHERE id = $2").bind(until).bind(task_id).execute(tx).await?;
    Ok(())
}

/// Leaves the lease without an owner. The row stays: its epoch continues with the next claim.
pub(super) async fn release(tx: &mut DbSession, instance_id: &str) -> Result<(), StoreError> {
    sql("UPDATE lease SET owner = NULL, expires_at = 0 WHERE instance_id = $1").bind(instance_id).execute(tx).await?;
    Ok(())
}

//! Claims: which task a worker runs next.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Store, StoreError,
    clock::after,
    db::{DbSession, Queue, Row, sql},
    hosts::remove_hosts,
    instances::{instance, window_opens_at},
    leases::{defer, release},
    tasks::{DOCUMENT_VERSION, task},
};
use crate::model::{Instance, Lease, Reason, Task};

/// Takeovers without progress in a row that fail a task.
pub const MAX_ATTEMPTS: u32 = 5;
/// Candidates that are read together, and how often that is done for one claim: mostly the first of the first is taken.
const BATCH: u32 = 20;
const BATCHES: u32 = 10;

/// Limits of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimits {
    /// Scans on one host at a time, over all workers.
    pub per_host: u32,
    /// Scans that this worker runs at a time.
    pub places: u32,
}

impl From<u32> for ClaimLimits {
    /// Limits a claim per host alone.
    fn from(per_host: u32) -> Self {
        Self { per_host, places: u32::MAX }
    }
}

impl ClaimLimits {
    /// Returns the places of a worker that one project may have while another one waits: three quarters.
    fn of_a_project(self) -> u32 {
        self.places - self.places / 4
    }

    /// Returns the places after which the last one is kept for projects that run nothing. A worker with one place keeps none.
    fn shared(self) -> u32 {
        if self.places > 1 { self.places - 1 } else { 1 }
    }
}

/// A task that a worker has claimed, with all that it needs to run it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The lease, which every write to the task needs.
    pub lease: Lease,
    /// The task, running by now.
    pub task: Task,
    /// The instance to scan.
    pub instance: Instance,
    /// The last checkpoint of an earlier worker, as JSON; `None` if there is none or another version of keysweep wrote it.
    pub checkpoint: Option<String>,
}

/// A task that may be claimed.
struct Candidate {
    task_id: String,
    instance_id: String,
    /// Epoch of the instance's last lease; `None`: there was none yet.
    epoch: Option<i64>,
    /// Whether that lease was released.
    is_free: bool,
    /// Takeovers in a row without progress, if it is claimed now.
    attempts: u32,
    is_running: bool,
    /// Whether its worker died: keys that it reclaimed after its last heartbeat are in no count.
    orphaned: bool,
}

impl Store {
    /// Claims a running task whose lease has expired or was released, or else a waiting one, for `lease`. Of the waiting
    /// ones, takes the oldest of the project with the fewest running scans; none with a host on which as many scans run
    /// already as may, and none before its time or outside its instance's window, unless it is to be cancelled. A task whose
    /// window is closed stays as it is until the window opens.
    ///
    /// While another project waits, one project gets no more than three quarters of the worker's places; and while there is a
    /// project with instances that runs nothing, the last place is kept for such projects.
    ///
    /// Taking over an expired lease counts as an attempt if the worker before made no progress; after [`MAX_ATTEMPTS`] in a
    /// row the task ends as failed (crashed) instead, and the next one is claimed. Either way its count is no longer exact:
    /// what the worker before reclaimed after its last heartbeat is in no count.
    pub async fn claim(
        &self,
        owner: &str,
        lease: Duration,
        limits: impl Into<ClaimLimits>,
    ) -> Result<Option<Claim>, StoreError> {
        let limits = limits.into();
        let mut tx = self.begin().await?;
        tx.queue(Queue::Claims).await?;
        let now = self.now(&mut tx).await?;
        let claim = next(&mut tx, now, owner, lease, limits).await?;
        // Tasks that were deferred or have crashed are written even when none was claimed.
        self.commit(tx).await?;
        Ok(claim)
    }
}

async fn next(
    tx: &mut DbSession,
    now: Timestamp,
    owner: &str,
    lease: Duration,
    limits: ClaimLimits,
) -> Result<Option<Claim>, StoreError> {
    // Locked by other verbs at this moment: heartbeats, ends, cancels and changes of the instance go first.
    let mut busy: Vec<String> = Vec::new();
    for _ in 0..BATCHES {
        let candidates = candidates(tx, now, owner, limits, &busy).await?;
        if candidates.is_empty() {
            return Ok(None);
        }
        for candidate in candidates {
            let Some(row) = locked(tx, now, &candidate).await? else {
                busy.push(candidate.task_id);
                continue;
            };
            let cancel_requested: bool = row.get("cancel_requested")?;
            let opens_at = window_opens_at(&row, row.get("scan_type")?, now)?;
            match opens_at.filter(|_| !cancel_requested) {
                Some(opens_at) => defer(tx, &candidate.task_id, opens_at).await?,
                None if candidate.attempts >= MAX_ATTEMPTS => crash(tx, now, &candidate).await?,
                None => return take(tx, now, owner, lease, &candidate, instance(&row)?).await.map(Some),
            }
        }
    }
    // So many windows have closed that the next claim continues with deferring the tasks that wait for them.
    Ok(None)
}

/// Returns the next tasks without a worker, without those that are busy. They are chosen before their leases are read: with
/// thousands waiting, joining the lease of each once more would be most of the work.
async fn candidates(
    tx: &mut DbSession,
    now: Timestamp,
    owner: &str,
    limits: ClaimLimits,
    busy: &[String],
) -> Result<Vec<Candidate>, StoreError> {
    // Without MATERIALIZED, SQLite determines the full hosts again for each waiting task; with JOIN in place of CROSS JOIN, it
    // reads the hosts of all tasks to find those of the scans.
    let mut candidates = sql("WITH scan AS MATERIALIZED (
             SELECT task.id, task.project_id, CASE lease.owner WHEN $4 THEN 1 ELSE 0 END AS is_own
             FROM task JOIN lease ON lease.instance_id = task.instance_id
             WHERE task.status = 'running' AND lease.owner IS NOT NULL AND lease.expires_at > $1
         ),
         full_host AS MATERIALIZED (
             SELECT host FROM scan CROSS JOIN task_host WHERE task_host.task_id = scan.id
             GROUP BY host HAVING COUNT(*) >= $2
         ),
         blocked AS MATERIALIZED (
             SELECT task_host.task_id FROM full_host CROSS JOIN task_host WHERE task_host.host = full_host.host
         ),
         project_load AS MATERIALIZED (
             SELECT project_id, COUNT(*) AS scans, SUM(is_own) AS own_scans FROM scan GROUP BY project_id
         ),
         kept AS MATERIALIZED (
             SELECT (SELECT COUNT(*) FROM scan WHERE is_own = 1) >= $6 AND EXISTS (
                 SELECT 1 FROM project
                 WHERE NOT EXISTS (SELECT 1 FROM project_load WHERE project_load.project_id = project.id)
                   AND EXISTS (SELECT 1 FROM instance WHERE instance.project_id = project.id)
             ) AS is_kept
         ),
         next AS MATERIALIZED (
             SELECT task.seq, task.status = 'waiting' AS is_waiting,
                    CASE task.status WHEN 'waiting' THEN COALESCE(project_load.scans, 0) ELSE 0 END AS scans,
                    CASE WHEN task.status = 'waiting' AND project_load.own_scans >= $5 THEN 1 ELSE 0 END AS is_last
             FROM task CROSS JOIN kept
             LEFT JOIN lease ON lease.instance_id = task.instance_id
             LEFT JOIN project_load ON project_load.project_id = task.project_id
             WHERE task.status IN ('waiting', 'running')
               AND (lease.instance_id IS NULL OR lease.owner IS NULL OR lease.expires_at <= $1)
               AND (task.not_before IS NULL OR task.not_before <= $1 OR task.cancel_requested)
               AND task.id NOT IN (SELECT task_id FROM blocked)
               AND NOT (kept.is_kept AND project_load.scans IS NOT NULL)
             ORDER BY is_waiting, is_last, scans, task.seq
             LIMIT $3
         )
         SELECT task.id, task.instance_id, lease.epoch, lease.owner IS NULL AS is_free, task.attempts,
                task.status = 'running' AS is_running,
                lease.task_id = task.id AND lease.owner IS NOT NULL AS is_held, task.scanned > lease.mark AS got_further
         FROM next
         JOIN task ON task.seq = next.seq
         LEFT JOIN lease ON lease.instance_id = task.instance_id
         ORDER BY next.is_waiting, next.is_last, next.scans, next.seq")
    .bind(now)
    .bind(limits.per_host)
    .bind(BATCH + busy.len() as u32)
    .bind(owner)
    .bind(limits.of_a_project())
    .bind(limits.shared())
    .list(tx, candidate)
    .await?;
    candidates.retain(|candidate| !busy.contains(&candidate.task_id));
    Ok(candidates)
}

fn candidate(row: &Row) -> Result<Candidate, StoreError> {
    let is_held: Option<bool> = row.get("is_held")?;
    let got_further: Option<bool> = row.get("got_further")?;
    let is_running = row.get("is_running")?;
    let orphaned = is_running && is_held == Some(true);
    let attempts: u32 = row.get("attempts")?;
    Ok(Candidate {
        task_id: row.get("id")?,
        instance_id: row.get("instance_id")?,
        epoch: row.get("epoch")?,
        is_free: row.get("is_free")?,
        attempts: if orphaned && got_further == Some(false) { attempts + 1 } else { 0 },
        is_running,
        orphaned,
    })
}

/// Locks a candidate's lease, then its task and instance, and returns the row of both. `None`: they have changed since they
/// were read. Only claims create a lease, and claims queue, so an absent one needs no lock.
async fn locked(tx: &mut DbSession, now: Timestamp, candidate: &Candidate) -> Result<Option<Row>, StoreError> {
    if candidate.epoch.is_some() {
        let lease = sql("SELECT 1 FROM lease WHERE instance_id = $1 AND epoch = $2 AND (owner IS NULL) = $3
               AND (owner IS NULL OR expires_at <= $4) /*! FOR UPDATE SKIP LOCKED */")
        .bind(&candidate.instance_id)
        .bind(candidate.epoch)
        .bind(candidate.is_free)
        .bind(now)
        .optional(tx)
        .await?;
        if lease.is_none() {
            return Ok(None);
        }
    }
    sql("SELECT instance.*, task.scan_type, task.cancel_requested
         FROM task JOIN instance ON instance.id = task.instance_id
         WHERE task.id = $1 AND status IN ('waiting', 'running') AND (status = 'running') = $2
         /*! FOR UPDATE OF task SKIP LOCKED FOR SHARE OF instance SKIP LOCKED */")
    .bind(&candidate.task_id)
    .bind(candidate.is_running)
    .optional(tx)
    .await
}

async fn take(
    tx: &mut DbSession,
    now: Timestamp,
    owner: &str,
    lease: Duration,
    candidate: &Candidate,
    instance: Instance,
) -> Result<Claim, StoreError> {
    let started = sql("UPDATE task SET
             status = 'running', attempts = $2, not_before = NULL, exact = exact AND NOT $3,
             started_at = COALESCE(started_at, CASE WHEN $1 > created_at THEN $1 ELSE created_at END)
         WHERE id = $4 RETURNING *")
    .bind(now)
    .bind(candidate.attempts)
    .bind(candidate.orphaned)
    .bind(&candidate.task_id)
    .one(tx)
    .await?;
    let mut task = task(&started)?;
    let acquired =
        sql("INSERT INTO lease (instance_id, task_id, owner, epoch, expires_at, mark) VALUES ($1, $2, $3, 1, $4, $5)
         ON CONFLICT (instance_id) DO UPDATE SET
             task_id = excluded.task_id, owner = excluded.owner, epoch = lease.epoch + 1,
             expires_at = excluded.expires_at, mark = excluded.mark
         RETURNING epoch")
        .bind(&task.instance_id)
        .bind(&task.id)
        .bind(owner)
        .bind(after(now, lease))
        .bind(task.scanned)
        .one(tx)
        .await?;
    let document = sql("SELECT version, checkpoint FROM task_document WHERE task_id = $1").bind(&task.id);
    let checkpoint = match document.optional(tx).await? {
        None => None,
        Some(row) => match row.get::<i64>("version")? {
            DOCUMENT_VERSION => row.get("checkpoint")?,
            version => {
                tracing::warn!(
                    task_id = task.id,
                    version,
                    "checkpoint is of an unknown version; the scan starts again"
                );
                // A scan that starts again counts from zero: the keys that the earlier workers reclaimed would be missing.
                task.exact &= task.scanned == 0;
                None
            }
        },
    };
    let (instance_id, task_id, owner) = (task.instance_id.clone(), task.id.clone(), owner.to_owned());
    let lease = Lease { instance_id, task_id, owner, epoch: acquired.get("epoch")? };
    Ok(Claim { lease, task, instance, checkpoint })
}

/// Ends a task that too many workers in a row have died over, so that it does not crash the next one.
async fn crash(tx: &mut DbSession, now: Timestamp, candidate: &Candidate) -> Result<(), StoreError> {
    sql("UPDATE task SET status = 'failed', reason = $1, reason_detail = $2, attempts = $3, exact = FALSE,
                         finished_at = CASE WHEN $4 > started_at THEN $4 ELSE started_at END
         WHERE id = $5")
    .bind(&Reason::Crashed)
    .bind(format!("{MAX_ATTEMPTS} workers in a row died over this task without getting any further"))
    .bind(candidate.attempts)
    .bind(now)
    .bind(&candidate.task_id)
    .execute(tx)
    .await?;
    remove_hosts(tx, &candidate.task_id).await?;
    release(tx, &candidate.instance_id).await
}

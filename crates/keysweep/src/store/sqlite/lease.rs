//! Claims, and all that only the holder of a lease may do to a running task.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    fault::Fault,
    row::{self, DOCUMENT_VERSION, Reader, count, micros, span},
    task::documents,
};
use crate::{
    model::{Lease, Reason, Status},
    store::{Beat, Claim, Ending, MAX_ATTEMPTS, Pulse},
};

pub(super) async fn claim(
    db: &mut SqliteConnection,
    now: i64,
    owner: &str,
    lease: Duration,
    per_host: u32,
) -> Result<Option<Claim>, Fault> {
    for _ in 0..BATCHES {
        let candidates = claimable(db, now, per_host).await?;
        if candidates.is_empty() {
            return Ok(None);
        }
        for candidate in candidates {
            if let Some(until) = candidate.closed_until {
                put_off(db, &candidate.task_id, until).await?;
            } else if candidate.attempts >= MAX_ATTEMPTS {
                crash(db, now, &candidate).await?;
            } else {
                return take(db, now, owner, lease, candidate).await.map(Some);
            }
        }
    }
    // So many windows have closed that the next claim goes on with putting off what waits for them.
    Ok(None)
}

/// Tasks that are looked at together, and how often that is done for one claim: mostly the first of the first is taken.
const BATCH: u32 = 20;
const BATCHES: u32 = 10;

/// The next task that nobody answers for.
struct Candidate {
    task_id: String,
    instance_id: String,
    /// Takeovers in a row without progress, should it be taken now.
    attempts: u32,
    /// Whether a worker died over it: keys that it released after its last beat are in no count.
    orphaned: bool,
    /// When its instance's window opens, where it is closed for this task. One that is to be cancelled ends at any time.
    closed_until: Option<Timestamp>,
}

async fn claimable(db: &mut SqliteConnection, now: i64, per_host: u32) -> Result<Vec<Candidate>, Fault> {
    // Left to itself, SQLite finds out anew for each task that waits which hosts are full.
    let found = sqlx::query(
        r#"WITH sweep AS MATERIALIZED (
             SELECT task.project_id, task.host FROM task JOIN lease ON lease.instance_id = task.instance_id
             WHERE task.status = 'running' AND lease.owner IS NOT NULL AND lease.expires_at > ?1
         ),
         burden AS MATERIALIZED (
             SELECT value AS host FROM sweep, json_each('["' || replace(sweep.host, ' ', '","') || '"]')
             WHERE sweep.host IS NOT NULL
         ),
         full_host AS MATERIALIZED (SELECT host FROM burden GROUP BY host HAVING COUNT(*) >= ?2),
         project_load AS MATERIALIZED (SELECT project_id, COUNT(*) AS sweeps FROM sweep GROUP BY project_id)
         SELECT task.id, task.instance_id, task.attempts, task.status = 'running' AS is_running,
                lease.task_id = task.id AND lease.owner IS NOT NULL AS is_held, task.scanned > lease.mark AS got_further,
                task.scan_type, task.cancel_requested, instance.off_peak_window, instance.window_binds_manual
         FROM task
         JOIN instance ON instance.id = task.instance_id
         LEFT JOIN lease ON lease.instance_id = task.instance_id
         LEFT JOIN project_load ON project_load.project_id = task.project_id
         WHERE task.status IN ('waiting', 'running')
           AND (lease.instance_id IS NULL OR lease.owner IS NULL OR lease.expires_at <= ?1)
           AND (task.not_before IS NULL OR task.not_before <= ?1 OR task.cancel_requested)
           AND (task.host IS NULL OR NOT EXISTS (
               SELECT 1 FROM full_host WHERE instr(' ' || task.host || ' ', ' ' || full_host.host || ' ') > 0
           ))
         ORDER BY task.status = 'waiting',
                  CASE task.status WHEN 'waiting' THEN COALESCE(project_load.sweeps, 0) ELSE 0 END, task.seq
         LIMIT ?3"#,
    )
    .bind(now)
    .bind(per_host)
    .bind(BATCH)
    .fetch_all(db)
    .await?;
    found.iter().map(|row| candidate(row, now)).collect()
}

fn candidate(row: &SqliteRow, now: i64) -> Result<Candidate, Fault> {
    let found = row;
    let row = Reader(row);
    let is_held: Option<bool> = row.get("is_held")?;
    let got_further: Option<bool> = row.get("got_further")?;
    let orphaned = row.get("is_running")? && is_held == Some(true);
    let attempts: u32 = row.get("attempts")?;
    let cancel_requested: bool = row.get("cancel_requested")?;
    Ok(Candidate {
        task_id: row.get("id")?,
        instance_id: row.get("instance_id")?,
        attempts: if orphaned && got_further == Some(false) { attempts + 1 } else { 0 },
        orphaned,
        closed_until: row::opening(found, row.name("scan_type")?, now)?.filter(|_| !cancel_requested),
    })
}

async fn take(
    db: &mut SqliteConnection,
    now: i64,
    owner: &str,
    lease: Duration,
    candidate: Candidate,
) -> Result<Claim, Fault> {
    let task = sqlx::query(
        "UPDATE task SET status = 'running', started_at = COALESCE(started_at, MAX(?1, created_at)), attempts = ?2,
                         not_before = NULL, exact = exact AND NOT ?3
         WHERE id = ?4 RETURNING *",
    )
    .bind(now)
    .bind(candidate.attempts)
    .bind(candidate.orphaned)
    .bind(&candidate.task_id)
    .fetch_one(&mut *db)
    .await?;
    let task = row::task(&task)?;
    let epoch = sqlx::query_scalar(
        "INSERT INTO lease (instance_id, task_id, owner, epoch, expires_at, mark) VALUES (?, ?, ?, 1, ?, ?)
         ON CONFLICT (instance_id) DO UPDATE SET
             task_id = excluded.task_id, owner = excluded.owner, epoch = lease.epoch + 1,
             expires_at = excluded.expires_at, mark = excluded.mark
         RETURNING epoch",
    )
    .bind(&task.instance_id)
    .bind(&task.id)
    .bind(owner)
    .bind(now.saturating_add(span(lease)))
    .bind(count(task.scanned))
    .fetch_one(&mut *db)
    .await?;
    let instance =
        sqlx::query("SELECT * FROM instance WHERE id = ?").bind(&task.instance_id).fetch_one(&mut *db).await?;
    let [_, checkpoint, _] = documents(db, &task.id).await?;
    Ok(Claim {
        lease: Lease {
            instance_id: task.instance_id.clone(),
            task_id: task.id.clone(),
            owner: owner.to_owned(),
            epoch,
        },
        task,
        instance: row::instance(&instance)?,
        checkpoint,
    })
}

/// Ends a task over which too many workers have died, so that it does not take the next one with it.
async fn crash(db: &mut SqliteConnection, now: i64, candidate: &Candidate) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE task SET status = 'failed', reason = ?, reason_detail = ?, attempts = ?, exact = 0,
                         finished_at = MAX(?, started_at)
         WHERE id = ?",
    )
    .bind(Reason::Crashed.as_str())
    .bind(format!("{MAX_ATTEMPTS} workers in a row died over this task without getting any further"))
    .bind(candidate.attempts)
    .bind(now)
    .bind(&candidate.task_id)
    .execute(&mut *db)
    .await?;
    release(db, &candidate.instance_id).await
}

pub(super) async fn beat(
    db: &mut SqliteConnection,
    now: i64,
    lease: &Lease,
    renew: Duration,
    beat: &Beat,
) -> Result<Pulse, Fault> {
    // A lease that has expired and that nobody has taken over is renewed: the epoch is the fence, not the hour.
    let Some(Pulse::Held { cancel_requested, .. }) = hold(db, lease, beat).await? else { return Ok(Pulse::Lost) };
    sqlx::query("UPDATE lease SET expires_at = ? WHERE instance_id = ?")
        .bind(now.saturating_add(span(renew)))
        .bind(&lease.instance_id)
        .execute(&mut *db)
        .await?;
    // As it is now: the window may have been changed since the claim.
    let closed_until = closed_until(db, now, &lease.task_id).await?;
    Ok(Pulse::Held { cancel_requested, closed_until })
}

pub(super) async fn give_back(db: &mut SqliteConnection, now: i64, lease: &Lease, beat: &Beat) -> Result<Pulse, Fault> {
    let Some(Pulse::Held { cancel_requested, .. }) = hold(db, lease, beat).await? else { return Ok(Pulse::Lost) };
    release(db, &lease.instance_id).await?;
    let closed_until = closed_until(db, now, &lease.task_id).await?;
    if let Some(until) = closed_until {
        put_off(db, &lease.task_id, until).await?;
    }
    Ok(Pulse::Held { cancel_requested, closed_until })
}

/// When the window of a task's instance opens, where it is closed for that task.
async fn closed_until(db: &mut SqliteConnection, now: i64, task_id: &str) -> Result<Option<Timestamp>, Fault> {
    let found = sqlx::query(
        "SELECT scan_type, off_peak_window, window_binds_manual
         FROM task JOIN instance ON instance.id = task.instance_id WHERE task.id = ?",
    )
    .bind(task_id)
    .fetch_one(db)
    .await?;
    Ok(row::opening(&found, Reader(&found).name("scan_type")?, now)?)
}

/// Nobody claims the task before then.
async fn put_off(db: &mut SqliteConnection, task_id: &str, until: Timestamp) -> Result<(), Fault> {
    sqlx::query("UPDATE task SET not_before = ? WHERE id = ?").bind(micros(until)).bind(task_id).execute(db).await?;
    Ok(())
}

pub(super) async fn end(db: &mut SqliteConnection, now: i64, lease: &Lease, ending: &Ending) -> Result<Pulse, Fault> {
    let Some(held) = hold(db, lease, &ending.beat).await? else { return Ok(Pulse::Lost) };
    let (status, reason, detail) = match &ending.outcome {
        Ok(()) => (Status::Success, None, None),
        Err((reason, detail)) => (Status::Failed, Some(reason.as_str()), Some(detail.as_str())),
    };
    sqlx::query(
        "UPDATE task SET status = ?, reason = ?, reason_detail = ?, finished_at = MAX(?, started_at) WHERE id = ?",
    )
    .bind(status.as_str())
    .bind(reason)
    .bind(detail)
    .bind(now)
    .bind(&lease.task_id)
    .execute(&mut *db)
    .await?;
    write_documents(db, &lease.task_id, [None, None, ending.report.as_deref()]).await?;
    release(db, &lease.instance_id).await?;
    Ok(held)
}

/// Keeps the numbers of a beat if the lease is still its holder's, and says whether it was asked to stop.
async fn hold(db: &mut SqliteConnection, lease: &Lease, beat: &Beat) -> Result<Option<Pulse>, Fault> {
    let cancel_requested: Option<bool> = sqlx::query_scalar(
        "UPDATE task SET used_us = MAX(used_us, ?), released = MAX(released, ?), scanned = MAX(scanned, ?),
                         exact = exact AND ?
         WHERE id = ? AND status = 'running' AND EXISTS (
             SELECT 1 FROM lease
             WHERE lease.instance_id = ? AND lease.task_id = task.id AND lease.owner = ? AND lease.epoch = ?
         ) RETURNING cancel_requested",
    )
    .bind(span(beat.used))
    .bind(count(beat.released))
    .bind(count(beat.scanned))
    .bind(beat.exact)
    .bind(&lease.task_id)
    .bind(&lease.instance_id)
    .bind(&lease.owner)
    .bind(lease.epoch)
    .fetch_optional(&mut *db)
    .await?;
    let Some(cancel_requested) = cancel_requested else { return Ok(None) };
    write_documents(db, &lease.task_id, [beat.progress.as_deref(), beat.checkpoint.as_deref(), None]).await?;
    Ok(Some(Pulse::Held { cancel_requested, closed_until: None }))
}

/// Progress, checkpoint and report; what is `None` stays as it is.
async fn write_documents(db: &mut SqliteConnection, task_id: &str, documents: [Option<&str>; 3]) -> Result<(), Fault> {
    if documents == [None; 3] {
        return Ok(());
    }
    let [progress, checkpoint, report] = documents;
    sqlx::query(
        "INSERT INTO task_document (task_id, version, progress, checkpoint, report) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (task_id) DO UPDATE SET
             version = excluded.version,
             progress = COALESCE(excluded.progress, task_document.progress),
             checkpoint = COALESCE(excluded.checkpoint, task_document.checkpoint),
             report = COALESCE(excluded.report, task_document.report)",
    )
    .bind(task_id)
    .bind(DOCUMENT_VERSION)
    .bind(progress)
    .bind(checkpoint)
    .bind(report)
    .execute(db)
    .await?;
    Ok(())
}

/// Leaves the lease with nobody. The row stays: its epoch goes on from here.
async fn release(db: &mut SqliteConnection, instance_id: &str) -> Result<(), Fault> {
    sqlx::query("UPDATE lease SET owner = NULL, expires_at = 0 WHERE instance_id = ?")
        .bind(instance_id)
        .execute(db)
        .await?;
    Ok(())
}

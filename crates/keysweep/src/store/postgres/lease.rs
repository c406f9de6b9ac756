//! Claims, and all that only the holder of a lease may do to a running task.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{PgConnection, postgres::PgRow};

use super::{
    Queue,
    fault::Fault,
    queue,
    row::{self, DOCUMENT_VERSION, Reader, count, micros, span},
    task::documents,
};
use crate::{
    model::{Lease, Reason, Status},
    store::{Beat, Claim, Ending, MAX_ATTEMPTS, Pulse},
};

pub(super) async fn claim(
    db: &mut PgConnection,
    now: i64,
    owner: &str,
    lease: Duration,
    per_host: u32,
) -> Result<Option<Claim>, Fault> {
    queue(db, Queue::Claims).await?;
    // Those that somebody is at in this moment: beats, ends, cancels and changes of the instance go first.
    let mut busy: Vec<String> = Vec::new();
    for _ in 0..BATCHES {
        let candidates = claimable(db, now, per_host, &busy).await?;
        if candidates.is_empty() {
            return Ok(None);
        }
        for candidate in candidates {
            let Some(closed_until) = lock(db, now, &candidate).await? else {
                busy.push(candidate.task_id);
                continue;
            };
            if let Some(until) = closed_until {
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
const BATCH: i64 = 20;
const BATCHES: u32 = 10;

/// The next task that nobody answers for.
struct Candidate {
    task_id: String,
    instance_id: String,
    /// The epoch of the instance's last lease; `None`: there was none yet.
    epoch: Option<i64>,
    /// Whether that lease was given back.
    is_free: bool,
    /// Takeovers in a row without progress, should it be taken now.
    attempts: u32,
    is_running: bool,
    /// Whether a worker died over it: keys that it released after its last beat are in no count.
    orphaned: bool,
}

async fn claimable(db: &mut PgConnection, now: i64, per_host: u32, busy: &[String]) -> Result<Vec<Candidate>, Fault> {
    // Chosen first and looked at then: with thousands waiting, joining the instance of each would be most of the work.
    let found = sqlx::query(
        "WITH sweep AS (
             SELECT task.project_id, task.host FROM task JOIN lease ON lease.instance_id = task.instance_id
             WHERE task.status = 'running' AND lease.owner IS NOT NULL AND lease.expires_at > $1
         ),
         burden AS (SELECT unnest(string_to_array(host, ' ')) AS host FROM sweep),
         full_host AS (SELECT host FROM burden GROUP BY host HAVING COUNT(*) >= $2),
         project_load AS (SELECT project_id, COUNT(*) AS sweeps FROM sweep GROUP BY project_id),
         next AS MATERIALIZED (
             SELECT task.seq, task.status = 'waiting' AS is_waiting,
                    CASE task.status WHEN 'waiting' THEN COALESCE(project_load.sweeps, 0) ELSE 0 END AS sweeps
             FROM task
             LEFT JOIN lease ON lease.instance_id = task.instance_id
             LEFT JOIN project_load ON project_load.project_id = task.project_id
             WHERE task.status IN ('waiting', 'running')
               AND (lease.instance_id IS NULL OR lease.owner IS NULL OR lease.expires_at <= $1)
               AND (task.not_before IS NULL OR task.not_before <= $1 OR task.cancel_requested)
               AND (task.host IS NULL OR NOT string_to_array(task.host, ' ') && ARRAY(SELECT host FROM full_host))
               AND task.id <> ALL ($3)
             ORDER BY is_waiting, sweeps, task.seq
             LIMIT $4
         )
         SELECT task.id, task.instance_id, lease.epoch, lease.owner IS NULL AS is_free, task.attempts,
                task.status = 'running' AS is_running,
                lease.task_id = task.id AND lease.owner IS NOT NULL AS is_held, task.scanned > lease.mark AS got_further
         FROM next
         JOIN task ON task.seq = next.seq
         LEFT JOIN lease ON lease.instance_id = task.instance_id
         ORDER BY next.is_waiting, next.sweeps, next.seq",
    )
    .bind(now)
    .bind(i64::from(per_host))
    .bind(busy)
    .bind(BATCH)
    .fetch_all(db)
    .await?;
    found.iter().map(candidate).collect()
}

fn candidate(row: &PgRow) -> Result<Candidate, Fault> {
    let row = Reader(row);
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

/// Locks the lease, and then the task and what its instance says. `None`: they are not any more as they were when they were
/// looked at. Else when the instance's window opens, where it is closed for this task; one that is to be cancelled ends at
/// any time. A lease that there is none of yet only a claim can make, and claims queue.
async fn lock(db: &mut PgConnection, now: i64, candidate: &Candidate) -> Result<Option<Option<Timestamp>>, Fault> {
    if candidate.epoch.is_some() {
        let locked = sqlx::query(
            "SELECT 1 FROM lease WHERE instance_id = $1 AND epoch = $2 AND (owner IS NULL) = $3
               AND (owner IS NULL OR expires_at <= $4) FOR UPDATE SKIP LOCKED",
        )
        .bind(&candidate.instance_id)
        .bind(candidate.epoch)
        .bind(candidate.is_free)
        .bind(now)
        .fetch_optional(&mut *db)
        .await?;
        if locked.is_none() {
            return Ok(None);
        }
    }
    let locked = sqlx::query(
        "SELECT scan_type, cancel_requested, off_peak_window, window_binds_manual
         FROM task JOIN instance ON instance.id = task.instance_id
         WHERE task.id = $1 AND status IN ('waiting', 'running') AND (status = 'running') = $2
         FOR UPDATE OF task SKIP LOCKED FOR SHARE OF instance SKIP LOCKED",
    )
    .bind(&candidate.task_id)
    .bind(candidate.is_running)
    .fetch_optional(db)
    .await?;
    let Some(locked) = locked else { return Ok(None) };
    let task = Reader(&locked);
    let cancel_requested: bool = task.get("cancel_requested")?;
    Ok(Some(row::opening(&locked, task.name("scan_type")?, now)?.filter(|_| !cancel_requested)))
}

async fn take(
    db: &mut PgConnection,
    now: i64,
    owner: &str,
    lease: Duration,
    candidate: Candidate,
) -> Result<Claim, Fault> {
    let task = sqlx::query(
        "UPDATE task SET status = 'running', started_at = COALESCE(started_at, GREATEST($1, created_at)), attempts = $2,
                         not_before = NULL, exact = exact AND NOT $3
         WHERE id = $4 RETURNING *",
    )
    .bind(now)
    .bind(i64::from(candidate.attempts))
    .bind(candidate.orphaned)
    .bind(&candidate.task_id)
    .fetch_one(&mut *db)
    .await?;
    let task = row::task(&task)?;
    let epoch = sqlx::query_scalar(
        "INSERT INTO lease (instance_id, task_id, owner, epoch, expires_at, mark) VALUES ($1, $2, $3, 1, $4, $5)
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
        sqlx::query("SELECT * FROM instance WHERE id = $1").bind(&task.instance_id).fetch_one(&mut *db).await?;
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
async fn crash(db: &mut PgConnection, now: i64, candidate: &Candidate) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE task SET status = 'failed', reason = $1, reason_detail = $2, attempts = $3, exact = FALSE,
                         finished_at = GREATEST($4, started_at)
         WHERE id = $5",
    )
    .bind(Reason::Crashed.as_str())
    .bind(format!("{MAX_ATTEMPTS} workers in a row died over this task without getting any further"))
    .bind(i64::from(candidate.attempts))
    .bind(now)
    .bind(&candidate.task_id)
    .execute(&mut *db)
    .await?;
    release(db, &candidate.instance_id).await
}

pub(super) async fn beat(
    db: &mut PgConnection,
    now: i64,
    lease: &Lease,
    renew: Duration,
    beat: &Beat,
) -> Result<Pulse, Fault> {
    // A lease that has expired and that nobody has taken over is renewed: the epoch is the fence, not the hour.
    let Some(Pulse::Held { cancel_requested, .. }) = hold(db, lease, beat).await? else { return Ok(Pulse::Lost) };
    sqlx::query("UPDATE lease SET expires_at = $1 WHERE instance_id = $2")
        .bind(now.saturating_add(span(renew)))
        .bind(&lease.instance_id)
        .execute(&mut *db)
        .await?;
    // As it is now: the window may have been changed since the claim.
    let closed_until = closed_until(db, now, &lease.task_id).await?;
    Ok(Pulse::Held { cancel_requested, closed_until })
}

pub(super) async fn give_back(db: &mut PgConnection, now: i64, lease: &Lease, beat: &Beat) -> Result<Pulse, Fault> {
    // Whoever opens the window in this moment comes before, or after the commit.
    sqlx::query("SELECT 1 FROM instance WHERE id = $1 FOR SHARE").bind(&lease.instance_id).execute(&mut *db).await?;
    let Some(Pulse::Held { cancel_requested, .. }) = hold(db, lease, beat).await? else { return Ok(Pulse::Lost) };
    release(db, &lease.instance_id).await?;
    let closed_until = closed_until(db, now, &lease.task_id).await?;
    if let Some(until) = closed_until {
        put_off(db, &lease.task_id, until).await?;
    }
    Ok(Pulse::Held { cancel_requested, closed_until })
}

/// When the window of a task's instance opens, where it is closed for that task.
async fn closed_until(db: &mut PgConnection, now: i64, task_id: &str) -> Result<Option<Timestamp>, Fault> {
    let found = sqlx::query(
        "SELECT scan_type, off_peak_window, window_binds_manual
         FROM task JOIN instance ON instance.id = task.instance_id WHERE task.id = $1",
    )
    .bind(task_id)
    .fetch_one(db)
    .await?;
    Ok(row::opening(&found, Reader(&found).name("scan_type")?, now)?)
}

/// Nobody claims the task before then.
async fn put_off(db: &mut PgConnection, task_id: &str, until: Timestamp) -> Result<(), Fault> {
    sqlx::query("UPDATE task SET not_before = $1 WHERE id = $2").bind(micros(until)).bind(task_id).execute(db).await?;
    Ok(())
}

pub(super) async fn end(db: &mut PgConnection, now: i64, lease: &Lease, ending: &Ending) -> Result<Pulse, Fault> {
    let Some(held) = hold(db, lease, &ending.beat).await? else { return Ok(Pulse::Lost) };
    let (status, reason, detail) = match &ending.outcome {
        Ok(()) => (Status::Success, None, None),
        Err((reason, detail)) => (Status::Failed, Some(reason.as_str()), Some(detail.as_str())),
    };
    sqlx::query(
        "UPDATE task SET status = $1, reason = $2, reason_detail = $3, finished_at = GREATEST($4, started_at) WHERE id = $5",
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
async fn hold(db: &mut PgConnection, lease: &Lease, beat: &Beat) -> Result<Option<Pulse>, Fault> {
    // The lock, and a look at what it locks: a condition on another row than the one that a statement changes would be
    // judged by how that row was when the statement began.
    let held = sqlx::query(
        "SELECT 1 FROM lease WHERE instance_id = $1 AND task_id = $2 AND owner = $3 AND epoch = $4 FOR UPDATE",
    )
    .bind(&lease.instance_id)
    .bind(&lease.task_id)
    .bind(&lease.owner)
    .bind(lease.epoch)
    .fetch_optional(&mut *db)
    .await?;
    if held.is_none() {
        return Ok(None);
    }
    let cancel_requested: Option<bool> = sqlx::query_scalar(
        "UPDATE task SET used_us = GREATEST(used_us, $1), released = GREATEST(released, $2),
                         scanned = GREATEST(scanned, $3), exact = exact AND $4
         WHERE id = $5 AND status = 'running' RETURNING cancel_requested",
    )
    .bind(span(beat.used))
    .bind(count(beat.released))
    .bind(count(beat.scanned))
    .bind(beat.exact)
    .bind(&lease.task_id)
    .fetch_optional(&mut *db)
    .await?;
    let Some(cancel_requested) = cancel_requested else { return Ok(None) };
    write_documents(db, &lease.task_id, [beat.progress.as_deref(), beat.checkpoint.as_deref(), None]).await?;
    Ok(Some(Pulse::Held { cancel_requested, closed_until: None }))
}

/// Progress, checkpoint and report; what is `None` stays as it is.
async fn write_documents(db: &mut PgConnection, task_id: &str, documents: [Option<&str>; 3]) -> Result<(), Fault> {
    if documents == [None; 3] {
        return Ok(());
    }
    let [progress, checkpoint, report] = documents;
    sqlx::query(
        "INSERT INTO task_document (task_id, version, progress, checkpoint, report) VALUES ($1, $2, $3, $4, $5)
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
async fn release(db: &mut PgConnection, instance_id: &str) -> Result<(), Fault> {
    sqlx::query("UPDATE lease SET owner = NULL, expires_at = 0 WHERE instance_id = $1")
        .bind(instance_id)
        .execute(db)
        .await?;
    Ok(())
}

//! Tasks as those see them who ask for one, watch it or cancel it. What changes a running one is in `lease`.

use sqlx::SqliteConnection;

use super::{
    fault::{Fault, missing},
    row::{self, Reader, count, micros, span},
    schedule::make_room,
};
use crate::{
    model::{NewTask, Reason, Task, TaskDetail},
    store::{Created, Page, PageRequest, StoreError},
};

pub(super) async fn create(db: &mut SqliteConnection, now: i64, new: &NewTask) -> Result<Created, Fault> {
    let instance = sqlx::query("SELECT * FROM instance WHERE id = ? AND project_id = ?")
        .bind(&new.instance_id)
        .bind(&new.project_id)
        .fetch_optional(&mut *db)
        .await?
        .ok_or(StoreError::Missing("instance"))?;
    if Reader(&instance).get("paused")? {
        return Ok(Created::Paused);
    }
    let created = sqlx::query(
        "INSERT INTO task (
             id, project_id, instance_id, status, scan_type, requested_by, created_at, due_at, timeout_us, keys_per_second,
             not_before, host
         ) VALUES (?, ?, ?, 'waiting', ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (instance_id) WHERE status IN ('waiting', 'running') DO NOTHING
         RETURNING *",
    )
    .bind(&new.id)
    .bind(&new.project_id)
    .bind(&new.instance_id)
    .bind(new.scan_type.as_str())
    .bind(&new.requested_by)
    .bind(now)
    .bind(new.due_at.map(micros))
    .bind(span(new.timeout))
    .bind(new.keys_per_second.map(count))
    .bind(row::opening(&instance, new.scan_type, now)?.map(micros))
    .bind(hosts(new))
    .fetch_optional(&mut *db)
    .await
    .map_err(missing("instance"))?;
    if let Some(created) = created {
        make_room(db, new).await?;
        return Ok(Created::New(row::task(&created)?));
    }
    let active = sqlx::query("SELECT * FROM task WHERE instance_id = ? AND status IN ('waiting', 'running')")
        .bind(&new.instance_id)
        .fetch_one(db)
        .await?;
    Ok(Created::Active(row::task(&active)?))
}

/// Separated by spaces, which no host holds; NULL where none is known.
fn hosts(new: &NewTask) -> Option<String> {
    (!new.hosts.is_empty()).then(|| new.hosts.join(" "))
}

/// A task of the project, without its documents.
async fn get(db: &mut SqliteConnection, project_id: &str, id: &str) -> Result<Option<Task>, Fault> {
    let found = sqlx::query("SELECT * FROM task WHERE id = ? AND project_id = ?")
        .bind(id)
        .bind(project_id)
        .fetch_optional(db)
        .await?;
    Ok(found.as_ref().map(row::task).transpose()?)
}

pub(super) async fn detail(db: &mut SqliteConnection, project_id: &str, id: &str) -> Result<Option<TaskDetail>, Fault> {
    let Some(task) = get(db, project_id, id).await? else { return Ok(None) };
    let [progress, checkpoint, report] = documents(db, id).await?;
    Ok(Some(TaskDetail { task, progress, checkpoint, report }))
}

pub(super) async fn details(
    db: &mut SqliteConnection,
    project_id: &str,
    ids: &[String],
) -> Result<Vec<TaskDetail>, Fault> {
    let found = sqlx::query(
        "SELECT task.*, task_document.version, progress, checkpoint, report
         FROM task LEFT JOIN task_document ON task_document.task_id = task.id
         WHERE task.project_id = ? AND task.id IN (SELECT value FROM json_each(?)) ORDER BY task.seq DESC",
    )
    .bind(project_id)
    .bind(row::texts(ids)?)
    .fetch_all(db)
    .await?;
    Ok(found.iter().map(row::task_detail).collect::<Result<_, _>>()?)
}

pub(super) async fn newest(db: &mut SqliteConnection, instance_ids: &[String]) -> Result<Vec<Task>, Fault> {
    let found = sqlx::query(
        "SELECT * FROM task
         WHERE seq IN (SELECT (SELECT MAX(seq) FROM task WHERE instance_id = wanted.value) FROM json_each(?) AS wanted)",
    )
    .bind(row::texts(instance_ids)?)
    .fetch_all(db)
    .await?;
    Ok(found.iter().map(row::task).collect::<Result<_, _>>()?)
}

/// Progress, checkpoint and report of a task.
pub(super) async fn documents(db: &mut SqliteConnection, id: &str) -> Result<[Option<String>; 3], Fault> {
    let row = sqlx::query("SELECT * FROM task_document WHERE task_id = ?").bind(id).fetch_optional(db).await?;
    Ok(row::documents(row.as_ref())?)
}

pub(super) async fn page(db: &mut SqliteConnection, instance_id: &str, page: &PageRequest) -> Result<Page, Fault> {
    let status = page.status.map(|status| status.as_str());
    let totals = sqlx::query(
        "SELECT COUNT(*) AS count, COALESCE(SUM(released), 0) AS released FROM task
         WHERE instance_id = ?1 AND (?2 IS NULL OR status = ?2)",
    )
    .bind(instance_id)
    .bind(status)
    .fetch_one(&mut *db)
    .await?;
    let rows = sqlx::query(
        "SELECT * FROM task WHERE instance_id = ?1 AND (?2 IS NULL OR status = ?2)
         ORDER BY seq DESC LIMIT ?3 OFFSET ?4",
    )
    .bind(instance_id)
    .bind(status)
    .bind(count(page.limit))
    .bind(count(page.offset))
    .fetch_all(db)
    .await?;
    let totals = Reader(&totals);
    Ok(Page {
        tasks: rows.iter().map(row::task).collect::<Result<_, _>>()?,
        count: totals.count("count")?,
        released: totals.count("released")?,
    })
}

/// The second half: whether the task was not asked before, and could be.
pub(super) async fn request_cancel(
    db: &mut SqliteConnection,
    now: i64,
    project_id: &str,
    id: &str,
) -> Result<(Option<Task>, bool), Fault> {
    let asked = sqlx::query("UPDATE task SET cancel_requested = 1 WHERE id = ? AND project_id = ? AND status = 'running' AND cancel_requested = 0")
        .bind(id)
        .bind(project_id)
        .execute(&mut *db)
        .await?;
    // Never earlier than what came before, should the clock have been set back.
    let ended = sqlx::query(
        "UPDATE task SET cancel_requested = 1, status = 'failed', reason = ?, finished_at = MAX(?, created_at),
                         reason_detail = 'the task was cancelled before it started'
         WHERE id = ? AND project_id = ? AND status = 'waiting'",
    )
    .bind(Reason::Cancelled.as_str())
    .bind(now)
    .bind(id)
    .bind(project_id)
    .execute(&mut *db)
    .await?;
    Ok((get(db, project_id, id).await?, asked.rows_affected() + ended.rows_affected() > 0))
}

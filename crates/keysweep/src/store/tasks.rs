//! Tasks as clients see them: created, listed, cancelled. What changes a running one is in `leases`.

use jiff::Timestamp;

use super::{
    Store, StoreError,
    db::{DbSession, Row, keys, sql},
    hosts::{add_hosts, remove_hosts},
    instances::window_opens_at,
};
use crate::model::{NewTask, Reason, Status, Task, TaskDetail};

/// What became of a request for a task.
#[derive(Debug, Clone)]
pub enum Created {
    /// A new one was created.
    New(Task),
    /// The instance had an active one already, which is this.
    Active(Task),
    /// None: the instance is paused.
    Paused,
}

/// Which tasks of an instance a list shows. The filter comes first, the counts after it, the page last.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Only tasks in this state.
    pub status: Option<Status>,
    /// Tasks to leave out at the newest end.
    pub offset: u64,
    /// At most this many.
    pub limit: u64,
}

/// A page of tasks, newest first.
#[derive(Debug, Clone)]
pub struct Page {
    /// The tasks of this page.
    pub tasks: Vec<Task>,
    /// Tasks that pass the filter, on all pages.
    pub count: u64,
    /// Expired keys that these reclaimed.
    pub reclaimed: u64,
}

/// Which tasks of a project a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct ProjectPageRequest {
    /// Only tasks in this state.
    pub status: Option<Status>,
    /// Only tasks that are active, or finished at this time or later.
    pub since: Option<Timestamp>,
    /// Only tasks of these instances; `None`: of all.
    pub instance_ids: Option<Vec<String>>,
    /// Only tasks older than this one.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u64,
}

/// A task in a list of a project's tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectTask {
    /// The task.
    pub task: Task,
    /// Name of its instance.
    pub instance_name: String,
}

/// How often a creation repeats when the active task that stood in its way has ended meanwhile.
const ATTEMPTS: u32 = 5;

impl Store {
    /// Creates a task, unless the instance is paused or has an active one. Of an instance's manual and of its scheduled tasks
    /// only the newest are kept, as many of each as the new task says; the oldest are removed. `Missing` when the instance
    /// does not exist.
    pub async fn create_task(&self, new: &NewTask) -> Result<Created, StoreError> {
        // Clients re-send creates: where nothing is to be written, they wait for no other write.
        if let Some(present) = self.present(new).await? {
            return Ok(present);
        }
        let mut tx = self.begin_request().await?;
        let now = self.now(&mut tx).await?;
        let created = create(&mut tx, now, new).await?;
        if matches!(created, Created::New(_)) {
            self.commit(tx).await?;
        }
        Ok(created)
    }

    /// Returns what a creation comes to that writes nothing: the instance is paused, or has an active task.
    async fn present(&self, new: &NewTask) -> Result<Option<Created>, StoreError> {
        let row = sql("SELECT instance.paused AS is_paused, task.* FROM instance
             LEFT JOIN task ON task.instance_id = instance.id AND task.status IN ('waiting', 'running')
             WHERE instance.id = $1 AND instance.project_id = $2")
        .bind(&new.instance_id)
        .bind(&new.project_id)
        .optional(&mut self.reader().await?)
        .await?
        .ok_or(StoreError::Missing("instance"))?;
        if row.get("is_paused")? {
            return Ok(Some(Created::Paused));
        }
        match row.get::<Option<i64>>("seq")? {
            Some(_) => Ok(Some(Created::Active(task(&row)?))),
            None => Ok(None),
        }
    }

    /// Returns a task of the project, with its documents.
    pub async fn task(&self, project_id: &str, id: &str) -> Result<Option<TaskDetail>, StoreError> {
        Ok(self.details(project_id, &[id.to_owned()]).await?.pop())
    }

    /// Returns those of these tasks of the project that exist, newest first, with their documents.
    pub async fn details(&self, project_id: &str, ids: &[String]) -> Result<Vec<TaskDetail>, StoreError> {
        sql("SELECT task.*, task_document.version, progress, checkpoint, report
             FROM task LEFT JOIN task_document ON task_document.task_id = task.id
             WHERE task.project_id = $1 AND task.id IN (SELECT key FROM json_each($2/*!::json*/))
             ORDER BY task.seq DESC")
        .bind(project_id)
        .bind(keys(ids))
        .list(&mut self.reader().await?, task_detail)
        .await
    }

    /// Returns the newest task of each of these instances that has any.
    pub async fn newest_tasks(&self, instance_ids: &[String]) -> Result<Vec<Task>, StoreError> {
        sql("SELECT * FROM task WHERE seq IN (
                 SELECT (SELECT MAX(seq) FROM task WHERE instance_id = wanted.key)
                 FROM json_each($1/*!::json*/) AS wanted
             )")
        .bind(keys(instance_ids))
        .list(&mut self.reader().await?, task)
        .await
    }

    /// Returns a page of an instance's tasks, newest first.
    pub async fn tasks(&self, instance_id: &str, page: &PageRequest) -> Result<Page, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let totals = sql("SELECT COUNT(*) AS count, CAST(COALESCE(SUM(released), 0) AS BIGINT) AS released FROM task
             WHERE instance_id = $1 AND ($2 IS NULL OR status = $2)")
        .bind(instance_id)
        .bind(page.status)
        .one(&mut snapshot)
        .await?;
        let tasks = sql("SELECT * FROM task WHERE instance_id = $1 AND ($2 IS NULL OR status = $2)
             ORDER BY seq DESC LIMIT $3 OFFSET $4")
        .bind(instance_id)
        .bind(page.status)
        .bind(page.limit)
        .bind(page.offset)
        .list(&mut snapshot, task)
        .await?;
        snapshot.commit().await?;
        Ok(Page { tasks, count: totals.get("count")?, reclaimed: totals.get("released")? })
    }

    /// Returns a page of the tasks of all instances of a project, newest first.
    ///
    /// The statement walks the tasks from the newest one: 600,000 of them, the full histories of 300 instances, take SQLite 0.2 s.
    pub async fn project_tasks(
        &self,
        project_id: &str,
        page: &ProjectPageRequest,
    ) -> Result<Vec<ProjectTask>, StoreError> {
        sql("SELECT task.*, (SELECT name FROM instance WHERE instance.id = task.instance_id) AS instance_name FROM task
             WHERE project_id = $1 AND ($2 IS NULL OR status = $2)
                 AND ($3 IS NULL OR finished_at IS NULL OR finished_at >= $3)
                 AND ($4 IS NULL OR instance_id IN (SELECT key FROM json_each($4/*!::json*/)))
                 AND ($5 IS NULL OR seq < $5)
             ORDER BY seq DESC LIMIT $6")
        .bind(project_id)
        .bind(page.status)
        .bind(page.since)
        .bind(page.instance_ids.as_ref().map(keys))
        .bind(page.before)
        .bind(page.limit)
        .list(&mut self.reader().await?, |row| {
            Ok(ProjectTask { task: task(row)?, instance_name: row.get("instance_name")? })
        })
        .await
    }

    /// Returns the expired keys reclaimed by those tasks of these instances that finished at this time or later.
    pub async fn reclaimed_since(
        &self,
        project_id: &str,
        instance_ids: &[String],
        from: Timestamp,
    ) -> Result<u64, StoreError> {
        sql("SELECT CAST(COALESCE(SUM(released), 0) AS BIGINT) AS released FROM task
             WHERE project_id = $1 AND finished_at >= $2
                 AND instance_id IN (SELECT key FROM json_each($3/*!::json*/))")
        .bind(project_id)
        .bind(from)
        .bind(keys(instance_ids))
        .one(&mut self.reader().await?)
        .await?
        .get("released")
    }

    /// Asks a task to stop: a waiting one ends at once as failed (cancelled), a running one stops at its next heartbeat, one
    /// that has finished is left alone. Returns the task as it is then.
    pub async fn request_cancel(&self, project_id: &str, id: &str) -> Result<Option<Task>, StoreError> {
        let mut tx = self.begin_request().await?;
        let now = self.now(&mut tx).await?;
        // Locked before its state is read: a claim at this moment goes before or after.
        let found = sql("SELECT * FROM task WHERE id = $1 AND project_id = $2 /*! FOR UPDATE */")
            .bind(id)
            .bind(project_id)
            .optional(&mut tx)
            .await?;
        let Some(before) = found.as_ref().map(task).transpose()? else {
            tx.roll_back().await;
            return Ok(None);
        };
        let after = match before.status {
            Status::Waiting => {
                remove_hosts(&mut tx, id).await?;
                // Never earlier than its creation, should the clock have been set back.
                sql("UPDATE task SET cancel_requested = TRUE, status = 'failed', reason = $2, finished_at = $3,
                                     reason_detail = 'the task was cancelled before it started'
                     WHERE id = $1 RETURNING *")
                .bind(id)
                .bind(&Reason::Cancelled)
                .bind(now.max(before.created_at))
            }
            Status::Running if !before.cancel_requested => {
                sql("UPDATE task SET cancel_requested = TRUE WHERE id = $1 RETURNING *").bind(id)
            }
            Status::Running | Status::Success | Status::Failed => {
                tx.roll_back().await;
                return Ok(Some(before));
            }
        };
        let after = after.one(&mut tx).await?;
        self.commit(tx).await?;
        task(&after).map(Some)
    }
}

/// Creates a task within a transaction, as [`Store::create_task`] says.
pub(super) async fn create(tx: &mut DbSession, now: Timestamp, new: &NewTask) -> Result<Created, StoreError> {
    // A change of the instance's pause or window at this moment is committed before this verb reads it, or waits for it.
    let instance = sql("SELECT * FROM instance WHERE id = $1 AND project_id = $2 /*! FOR SHARE */")
        .bind(&new.instance_id)
        .bind(&new.project_id)
        .optional(tx)
        .await?
        .ok_or(StoreError::Missing("instance"))?;
    if instance.get("paused")? {
        return Ok(Created::Paused);
    }
    let not_before = window_opens_at(&instance, new.scan_type, now)?;
    for _ in 0..ATTEMPTS {
        let created = sql("INSERT INTO task (
                 id, project_id, instance_id, status, scan_type, requested_by, created_at, due_at, timeout_us,
                 keys_per_second, not_before
             ) VALUES ($1, $2, $3, 'waiting', $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (instance_id) WHERE status IN ('waiting', 'running') DO NOTHING
             RETURNING *")
        .bind(&new.id)
        .bind(&new.project_id)
        .bind(&new.instance_id)
        .bind(new.scan_type)
        .bind(new.triggered_by.as_deref())
        .bind(now)
        .bind(new.due_at)
        .bind(new.timeout)
        .bind(new.keys_per_second)
        .bind(not_before)
        .refers_to("instance")
        .optional(tx)
        .await?;
        if let Some(created) = created {
            add_hosts(tx, &new.id, &new.hosts).await?;
            prune_history(tx, new).await?;
            return Ok(Created::New(task(&created)?));
        }
        let active = sql("SELECT * FROM task WHERE instance_id = $1 AND status IN ('waiting', 'running')")
            .bind(&new.instance_id)
            .optional(tx)
            .await?;
        if let Some(active) = active {
            return Ok(Created::Active(task(&active)?));
        }
    }
    Err(StoreError::Unavailable("the instance's tasks come and go; try again".into()))
}

/// Removes the oldest tasks of the new task's kind where there are too many: one kind never pushes out the other.
async fn prune_history(tx: &mut DbSession, new: &NewTask) -> Result<(), StoreError> {
    sql("DELETE FROM task WHERE instance_id = $1 AND scan_type = $2 AND status IN ('success', 'failed') AND seq <= (
             SELECT seq FROM task WHERE instance_id = $1 AND scan_type = $2 AND status IN ('success', 'failed')
             ORDER BY seq DESC LIMIT 1 OFFSET $3
         )")
    .bind(&new.instance_id)
    .bind(new.scan_type)
    .bind(new.history_retention.saturating_sub(1))
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) fn task(row: &Row) -> Result<Task, StoreError> {
    Ok(Task {
        seq: row.get("seq")?,
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        instance_id: row.get("instance_id")?,
        status: row.get("status")?,
        reason: row.get("reason")?,
        reason_detail: row.get("reason_detail")?,
        scan_type: row.get("scan_type")?,
        triggered_by: row.get("requested_by")?,
        created_at: row.get("created_at")?,
        started_at: row.get("started_at")?,
        finished_at: row.get("finished_at")?,
        due_at: row.get("due_at")?,
        cancel_requested: row.get("cancel_requested")?,
        timeout: row.get("timeout_us")?,
        used: row.get("used_us")?,
        attempts: row.get("attempts")?,
        keys_per_second: row.get("keys_per_second")?,
        reclaimed: row.get("released")?,
        scanned: row.get("scanned")?,
        exact: row.get("exact")?,
    })
}

/// The form of the JSON documents that this version writes.
pub(super) const DOCUMENT_VERSION: i64 = 1;

/// Reads a task and the documents beside it, if it has any. Documents of another version are left out: they do not make the
/// task unreadable.
fn task_detail(row: &Row) -> Result<TaskDetail, StoreError> {
    let bare = TaskDetail { task: task(row)?, progress: None, checkpoint: None, report: None, documents_error: None };
    Ok(match row.get("version")? {
        None => bare,
        Some(DOCUMENT_VERSION) => TaskDetail {
            progress: row.get("progress")?,
            checkpoint: row.get("checkpoint")?,
            report: row.get("report")?,
            ..bare
        },
        Some(other) => TaskDetail { documents_error: Some(format!("version {other} is not known")), ..bare },
    })
}

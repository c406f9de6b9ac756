//! Expired key scan tasks: creating, watching and cancelling them, the schedule, and the workers that carry them out.

pub mod background;
pub mod clock;
pub mod schedule;
mod scheduler;
pub mod state;
pub mod worker;

mod checkpoint;
mod drive;
mod lazyfree;
mod listener;
mod tracer;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Notify;

use self::clock::{ClockOff, ClockWatch};
use crate::{
    metrics::Counts,
    model::{AuditEvent, Instance, NewTask, ScanType, Task, TaskDetail, hosts},
    random::new_id,
    store::{Created, Page, PageRequest, ProjectPageRequest, ProjectTask, Store, StoreError},
    telemetry::traces::{OpenSpan, Traces},
};

/// Running time that a manual scan may use.
pub const MANUAL_TIMEOUT: Duration = Duration::from_secs(360 * 60);

/// Task records of each kind, manual and scheduled, that an instance keeps by default.
pub const HISTORY_RETENTION: u32 = 1_000;

/// Why no task was created, or none can be shown.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The instance is paused.
    #[error("the instance is paused; resume it before scanning")]
    Paused,
    /// The server cannot be scanned.
    #[error("instance {name:?} cannot be scanned: {cause}")]
    Unsupported {
        /// Name of the instance.
        name: String,
        /// Why, a sentence.
        cause: String,
    },
    /// The instance was removed meanwhile.
    #[error("the instance no longer exists")]
    NoInstance,
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl TaskError {
    /// Returns whether the same request may succeed a moment later, because the database was away or busy.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

impl From<StoreError> for TaskError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing("instance") => Self::NoInstance,
            other => Self::Store(other),
        }
    }
}

/// Why a process is not ready.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker claims nothing.
    #[error(transparent)]
    Clock(#[from] ClockOff),
}

/// The tasks of a store. Clones share them.
#[derive(Clone)]
pub struct Tasks {
    store: Store,
    /// Wakes this process's worker for a new task, so that it need not wait for its timer.
    hint: Arc<Notify>,
    /// Metrics of the tasks of this process.
    counts: Counts,
    traces: Traces,
    /// Task records of each kind that an instance keeps.
    history_retention: u32,
    /// Whether this process's clock lets its worker claim tasks.
    clock: ClockWatch,
}

impl Tasks {
    /// Returns the tasks of a store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            hint: Arc::new(Notify::new()),
            counts: Counts::default(),
            traces: Traces::default(),
            history_retention: HISTORY_RETENTION,
            clock: ClockWatch::default(),
        }
    }

    /// Returns the same tasks, with this history retention.
    #[must_use]
    pub fn with_history_retention(self, history_retention: u32) -> Self {
        Self { history_retention, ..self }
    }

    /// Returns the same tasks, which write their spans to these traces.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Returns the metrics of the tasks of this process.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Creates a manual task. Where the instance has an active task already, returns that one: clients re-send creates over
    /// broken connections.
    ///
    /// A task for an instance with an unreadable setting is created, and its worker ends it with the field as the reason.
    pub async fn submit(&self, instance: &Instance, by: Option<String>) -> Result<Task, TaskError> {
        if let Some(cause) = instance.unsupported() {
            return Err(TaskError::Unsupported { name: instance.name.clone(), cause });
        }
        let new = NewTask {
            id: new_id(),
            project_id: instance.project_id.clone(),
            instance_id: instance.id.clone(),
            scan_type: ScanType::Manual,
            triggered_by: by.clone(),
            timeout: MANUAL_TIMEOUT,
            keys_per_second: None,
            due_at: None,
            hosts: hosts(instance),
            history_retention: self.history_retention,
        };
        let span = self.begin_creation(&new);
        let store = self.audited(&new.project_id, &new.id, &new.instance_id, by.as_deref(), "task.create");
        match store.create_task(&new).await? {
            Created::New(task) => {
                tracing::info!(
                    task_id = task.id,
                    instance_id = task.instance_id,
                    triggered_by = task.triggered_by,
                    "task created"
                );
                self.hint.notify_one();
                Ok(task)
            }
            Created::Active(task) => {
                span.forget();
                Ok(task)
            }
            Created::Paused => {
                span.forget();
                Err(TaskError::Paused)
            }
        }
    }

    /// Begins the span of a task's creation, which the spans of its scans descend from.
    fn begin_creation(&self, new: &NewTask) -> OpenSpan {
        let mut span = self.traces.begin_root(&new.id, "task.create");
        span.note("keysweep.instance.id", new.instance_id.as_str());
        span.note("keysweep.scan_type", new.scan_type.as_str());
        span
    }

    /// Requests that a task stops, and returns it as it is then; a finished task is left alone. `None`: it does not exist.
    pub async fn cancel(&self, project_id: &str, id: &str, by: Option<&str>) -> Result<Option<TaskDetail>, TaskError> {
        let Some(before) = self.store.task(project_id, id).await? else { return Ok(None) };
        let store = self.audited(project_id, id, &before.task.instance_id, by, "task.cancel");
        let Some(task) = store.request_cancel(project_id, id).await? else { return Ok(None) };
        if before.task.status.is_active() && !before.task.cancel_requested {
            tracing::info!(task_id = task.id, by, "task cancelled");
            if !task.status.is_active() {
                self.counts.task_finished(task.reason.as_ref());
            }
        }
        Ok(Some(TaskDetail { task, ..before }))
    }

    /// Returns the store for one change of a task, which is recorded in the audit trail in the same transaction.
    fn audited(
        &self,
        project_id: &str,
        task_id: &str,
        instance_id: &str,
        actor: Option<&str>,
        action: &'static str,
    ) -> Store {
        let event = AuditEvent { project_id: Some(project_id), actor, action, subject: task_id };
        self.store.with_audit(vec![event.entry(&json!({ "instance_id": instance_id }))])
    }

    /// Returns a task of the project, with its documents.
    pub async fn detail(&self, project_id: &str, id: &str) -> Result<Option<TaskDetail>, TaskError> {
        Ok(self.store.task(project_id, id).await?)
    }

    /// Returns several tasks of the project with their documents, newest first.
    pub async fn details<'t>(
        &self,
        project_id: &str,
        tasks: impl IntoIterator<Item = &'t Task>,
    ) -> Result<Vec<TaskDetail>, TaskError> {
        let ids: Vec<String> = tasks.into_iter().map(|task| task.id.clone()).collect();
        Ok(if ids.is_empty() { Vec::new() } else { self.store.details(project_id, &ids).await? })
    }

    /// Returns the newest task of each of these instances that has any.
    pub async fn newest(&self, instances: &[Instance]) -> Result<Vec<Task>, TaskError> {
        let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
        Ok(self.store.newest_tasks(&ids).await?)
    }

    /// Returns the expired keys reclaimed by those tasks of these instances of a project that finished at this time or later.
    pub async fn reclaimed_since<'i>(
        &self,
        project_id: &str,
        instances: impl IntoIterator<Item = &'i Instance>,
        from: Timestamp,
    ) -> Result<u64, TaskError> {
        let ids: Vec<String> = instances.into_iter().map(|instance| instance.id.clone()).collect();
        Ok(self.store.reclaimed_since(project_id, &ids, from).await?)
    }

    /// Returns a page of an instance's tasks, newest first.
    pub async fn page(&self, instance: &Instance, request: &PageRequest) -> Result<Page, TaskError> {
        Ok(self.store.tasks(&instance.id, request).await?)
    }

    /// Returns a page of the tasks of all instances of a project, newest first.
    pub async fn in_project(
        &self,
        project_id: &str,
        request: &ProjectPageRequest,
    ) -> Result<Vec<ProjectTask>, TaskError> {
        Ok(self.store.project_tasks(project_id, request).await?)
    }

    /// Checks that the store answers and takes writes, and that the clock lets this process's worker claim tasks.
    pub async fn ready(&self) -> Result<(), Unready> {
        self.store.ping().await?;
        Ok(self.clock.verdict()?)
    }
}

//! Expired key scan tasks: asking for one, watching it, and the workers that carry it out.

pub mod schedule;
pub mod state;
pub mod upkeep;
pub mod worker;

mod drive;
mod lazyfree;
mod rounds;
mod tracer;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::Notify;

use crate::{
    fleet::{Deed, new_id},
    metrics::Counts,
    model::{Instance, NewTask, ScanType, Task, TaskDetail, hosts},
    store::{Created, Page, PageRequest, Store, StoreError},
    telemetry::traces::{OpenSpan, Traces},
};

/// Running time that a manual scan may use.
pub const MANUAL_TIMEOUT: Duration = Duration::from_secs(360 * 60);

/// Records of each kind, manual and scheduled, that an instance keeps unless told otherwise.
pub const RECORDS: u32 = 1_000;

/// Why there is no task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Its operator has paused the instance.
    #[error("the instance is paused; resume it before scanning")]
    Paused,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What doors ask about tasks.
#[derive(Clone)]
pub struct Tasks {
    store: Store,
    /// Tells this process's worker that there is something to do, so that it need not wait for its timer.
    hint: Arc<Notify>,
    /// What becomes of tasks in this process, for metrics.
    counts: Counts,
    traces: Traces,
    /// Records of each kind that an instance keeps.
    records: u32,
}

impl Tasks {
    /// The tasks of a store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            hint: Arc::new(Notify::new()),
            counts: Counts::default(),
            traces: Traces::default(),
            records: RECORDS,
        }
    }

    /// The same, with so many records of each kind kept of an instance.
    #[must_use]
    pub fn keeping(self, records: u32) -> Self {
        Self { records, ..self }
    }

    /// The same, with what becomes of them told to these traces.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// What has become of tasks in this process.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Asks for a manual scan; where the instance has an active task already, that one is the answer: clients
    /// re-send creates over broken connections.
    pub async fn submit(&self, instance: &Instance, by: Option<String>) -> Result<Task, TaskError> {
        let new = NewTask {
            id: new_id(),
            project_id: instance.project_id.clone(),
            instance_id: instance.id.clone(),
            scan_type: ScanType::Manual,
            requested_by: by.clone(),
            timeout: MANUAL_TIMEOUT,
            keys_per_second: None,
            due_at: None,
            hosts: hosts(instance),
            records: self.records,
        };
        let span = self.begin_creation(&new);
        match self
            .telling(&new.project_id, &new.id, &new.instance_id, by.as_deref(), "task.create")
            .create_task(&new)
            .await?
        {
            Created::New(task) => {
                tracing::info!(
                    task_id = task.id,
                    instance_id = task.instance_id,
                    requested_by = task.requested_by,
                    "task accepted"
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

    /// The span of a task's creation, which those of its sweeps descend from.
    fn begin_creation(&self, new: &NewTask) -> OpenSpan {
        let mut span = self.traces.begin_root(&new.id, "task.create");
        span.note("keysweep.instance.id", new.instance_id.as_str());
        span.note("keysweep.scan_type", new.scan_type.as_str());
        span
    }

    /// Asks a task to stop, and returns it as it is then; one that has ended is left alone. `None`: there is none.
    pub async fn cancel(&self, project_id: &str, id: &str, by: Option<&str>) -> Result<Option<TaskDetail>, TaskError> {
        let Some(before) = self.store.task(project_id, id).await? else { return Ok(None) };
        let store = self.telling(project_id, id, &before.task.instance_id, by, "task.cancel");
        let Some(task) = store.request_cancel(project_id, id).await? else { return Ok(None) };
        if before.task.status.is_active() && !before.task.cancel_requested {
            tracing::info!(task_id = task.id, by, "task cancelled");
            if !task.status.is_active() {
                self.counts.task_finished(task.reason.as_ref());
            }
        }
        Ok(Some(TaskDetail { task, ..before }))
    }

    /// The store for one change of a task, which the audit trail tells of as it is made.
    fn telling(
        &self,
        project_id: &str,
        task_id: &str,
        instance_id: &str,
        actor: Option<&str>,
        action: &'static str,
    ) -> Store {
        let deed = Deed { project_id: Some(project_id), actor, action, subject: task_id };
        self.store.telling(vec![deed.entry(&json!({ "instance_id": instance_id }))])
    }

    /// A task of the project, with its documents.
    pub async fn detail(&self, project_id: &str, id: &str) -> Result<Option<TaskDetail>, TaskError> {
        Ok(self.store.task(project_id, id).await?)
    }

    /// The same for several tasks of it, newest first.
    pub async fn details<'t>(
        &self,
        project_id: &str,
        tasks: impl IntoIterator<Item = &'t Task>,
    ) -> Result<Vec<TaskDetail>, TaskError> {
        let ids: Vec<String> = tasks.into_iter().map(|task| task.id.clone()).collect();
        Ok(if ids.is_empty() { Vec::new() } else { self.store.details(project_id, &ids).await? })
    }

    /// The newest task of each of these instances that has any.
    pub async fn newest(&self, instances: &[Instance]) -> Result<Vec<Task>, TaskError> {
        let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
        Ok(self.store.newest_tasks(&ids).await?)
    }

    /// A page of an instance's tasks, newest first.
    pub async fn page(&self, instance: &Instance, request: &PageRequest) -> Result<Page, TaskError> {
        Ok(self.store.tasks(&instance.id, request).await?)
    }

    /// Whether the store answers.
    pub async fn ready(&self) -> Result<(), TaskError> {
        Ok(self.store.ping().await?)
    }
}

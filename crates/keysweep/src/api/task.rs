//! A task with its live progress, shards and report; cancelling a task.

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ApiState,
    error::{ApiError, OnSubject},
};
use crate::{
    auth::Authorized,
    model::{Reason, Role, ScanType, Status, Task, TaskDetail, exact_document, exact_in_json},
    store::ProjectTask,
};

/// A task without its documents. Times are UTC, durations are in seconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskView {
    id: String,
    /// Position in lists, newest first. Send the last one as `before` to get the next page.
    seq: i64,
    project_id: String,
    instance_id: String,
    /// waiting, running, success or failed.
    status: Status,
    /// Why the task failed.
    reason: Option<ReasonView>,
    /// manual or auto.
    scan_type: ScanType,
    /// User that created the task; null for scheduled scans and without authentication.
    requested_by: Option<String>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    cancel_requested: bool,
    timeout_seconds: f64,
    /// Running time so far, of all workers.
    used_seconds: f64,
    attempts: u32,
    /// Keys visited; null: above 2^53.
    keys_scanned: Option<u64>,
    /// Stale keys reclaimed; null: above 2^53.
    keys_reclaimed: Option<u64>,
    /// Whether `keys_reclaimed` is exact; false after a worker crashed while it ran the task.
    exact: bool,
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        Self {
            reason: ReasonView::of(&task),
            id: task.id,
            seq: task.seq,
            project_id: task.project_id,
            instance_id: task.instance_id,
            status: task.status,
            scan_type: task.scan_type,
            requested_by: task.triggered_by,
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            cancel_requested: task.cancel_requested,
            timeout_seconds: task.timeout.as_secs_f64(),
            used_seconds: task.used.as_secs_f64(),
            attempts: task.attempts,
            keys_scanned: exact_in_json(task.scanned),
            keys_reclaimed: exact_in_json(task.reclaimed),
            exact: task.exact,
        }
    }
}

/// Why a task failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReasonView {
    #[schema(value_type = String)]
    code: Reason,
    message: Option<String>,
}

impl ReasonView {
    pub(super) fn of(task: &Task) -> Option<Self> {
        let message = task.reason_detail.clone();
        task.reason.clone().map(|code| Self { code, message })
    }
}

/// A task with its live progress or its report.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskDetailView {
    #[serde(flatten)]
    task: TaskView,
    /// Live progress of a running task.
    #[schema(value_type = Option<Object>)]
    progress: Option<Value>,
    /// Report of a finished task: the object that `keysweep scan --json` prints.
    #[schema(value_type = Option<Object>)]
    report: Option<Value>,
    /// Why stored documents of the task cannot be read: progress or report of another version of keysweep, a sentence each.
    problems: Vec<String>,
}

impl From<TaskDetail> for TaskDetailView {
    fn from(detail: TaskDetail) -> Self {
        let mut problems = Vec::new();
        let mut readable = |document: Result<Option<Value>, String>| {
            document.unwrap_or_else(|problem| {
                problems.push(problem);
                None
            })
        };
        let progress = readable(detail.read_progress().map(|progress| progress.map(exact_document)));
        let report = readable(detail.read_report().map(|report| report.map(exact_document)));
        Self { task: detail.task.into(), progress, report, problems }
    }
}

/// A task in a list, with the name of its instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListedTaskView {
    #[serde(flatten)]
    task: TaskView,
    instance_name: String,
}

impl From<ProjectTask> for ListedTaskView {
    fn from(ProjectTask { task, instance_name }: ProjectTask) -> Self {
        Self { task: task.into(), instance_name }
    }
}

/// Show a task with its live progress or its report
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/tasks/{task_id}", tag = "tasks", operation_id = "show_task",
    params(("project_id" = String, Path, description = "Project"), ("task_id" = String, Path, description = "Task")),
    responses((status = 200, body = TaskDetailView), OnSubject)
)]
pub(super) async fn show(State(state): State<ApiState>, request: Request) -> Result<Json<TaskDetailView>, ApiError> {
    let Authorized { project_id, subject_id, .. } = state.authorize(request, Role::Reader).await?;
    let detail = state.tasks.detail(&project_id, &subject_id).await?.ok_or(ApiError::NotFound("task"))?;
    Ok(Json(TaskDetailView::from(detail)))
}

/// Cancel a task
///
/// A waiting task fails at once with the reason `cancelled`. A running task stops within about two seconds. A finished task
/// does not change.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/tasks/{task_id}/cancel", tag = "tasks", operation_id = "cancel_task",
    params(("project_id" = String, Path, description = "Project"), ("task_id" = String, Path, description = "Task")),
    responses((status = 200, body = TaskDetailView), OnSubject)
)]
pub(super) async fn cancel(State(state): State<ApiState>, request: Request) -> Result<Json<TaskDetailView>, ApiError> {
    let Authorized { caller, project_id, subject_id, .. } = state.authorize(request, Role::Operator).await?;
    let cancelled = state.tasks.cancel(&project_id, &subject_id, caller.name.as_deref()).await?;
    Ok(Json(TaskDetailView::from(cancelled.ok_or(ApiError::NotFound("task"))?)))
}

//! A task with all that is known of it: live progress, shards, report.

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Admitted, Door,
    error::{ApiError, OnSubject},
};
use crate::model::{Reason, Role, ScanType, Status, TaskDetail};

/// The answer. Times are UTC, durations seconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskView {
    id: String,
    project_id: String,
    instance_id: String,
    /// waiting, running, success or failed.
    #[schema(value_type = String)]
    status: Status,
    /// Why it failed.
    reason: Option<ReasonView>,
    /// manual or auto.
    #[schema(value_type = String)]
    scan_type: ScanType,
    requested_by: Option<String>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    cancel_requested: bool,
    timeout_seconds: f64,
    /// Running time used so far, by all workers.
    used_seconds: f64,
    attempts: u32,
    keys_scanned: u64,
    keys_released: u64,
    /// Whether `keys_released` is exact; not so after a worker crashed over the task.
    exact: bool,
    /// Live while it runs.
    #[schema(value_type = Option<Object>)]
    progress: Option<Box<RawValue>>,
    /// Once it has ended: the object that `keysweep scan --json` prints.
    #[schema(value_type = Option<Object>)]
    report: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReasonView {
    #[schema(value_type = String)]
    code: Reason,
    message: Option<String>,
}

impl From<TaskDetail> for TaskView {
    fn from(detail: TaskDetail) -> Self {
        let task = detail.task;
        let json = |text: Option<String>| text.and_then(|text| RawValue::from_string(text).ok());
        Self {
            id: task.id,
            project_id: task.project_id,
            instance_id: task.instance_id,
            status: task.status,
            reason: task.reason.map(|code| ReasonView { code, message: task.reason_detail }),
            scan_type: task.scan_type,
            requested_by: task.requested_by,
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            cancel_requested: task.cancel_requested,
            timeout_seconds: task.timeout.as_secs_f64(),
            used_seconds: task.used.as_secs_f64(),
            attempts: task.attempts,
            keys_scanned: task.scanned,
            keys_released: task.released,
            exact: task.exact,
            progress: json(detail.progress),
            report: json(detail.report),
        }
    }
}

/// Show a task with its live progress, or its report
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/tasks/{task_id}", tag = "tasks", operation_id = "show_task",
    params(("project_id" = String, Path, description = "Project"), ("task_id" = String, Path, description = "Task")),
    responses((status = 200, body = TaskView), OnSubject)
)]
pub(super) async fn show(State(door): State<Door>, request: Request) -> Result<Json<TaskView>, ApiError> {
    let Admitted { project_id, subject_id, .. } = door.admit(request, Role::Reader).await?;
    let detail = door.tasks.detail(&project_id, &subject_id).await?.ok_or(ApiError::NotFound("task"))?;
    Ok(Json(TaskView::from(detail)))
}

/// Cancel a task
///
/// One that waits has failed (cancelled) by the answer; one that runs stops within two seconds or so; one that has ended
/// is left as it is.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/tasks/{task_id}/cancel", tag = "tasks", operation_id = "cancel_task",
    params(("project_id" = String, Path, description = "Project"), ("task_id" = String, Path, description = "Task")),
    responses((status = 200, body = TaskView), OnSubject)
)]
pub(super) async fn cancel(State(door): State<Door>, request: Request) -> Result<Json<TaskView>, ApiError> {
    let Admitted { caller, project_id, subject_id, .. } = door.admit(request, Role::Operator).await?;
    let cancelled = door.tasks.cancel(&project_id, &subject_id, caller.name.as_deref()).await?;
    Ok(Json(TaskView::from(cancelled.ok_or(ApiError::NotFound("task"))?)))
}

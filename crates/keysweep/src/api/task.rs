//! A task with all that is known of it: live progress, shards, report.

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Admitted, Door, error::ApiError};
use crate::model::{Reason, Role, ScanType, Status, TaskDetail};

/// The answer. Times are UTC, durations seconds.
#[derive(Debug, Serialize)]
pub struct TaskView {
    id: String,
    project_id: String,
    instance_id: String,
    status: Status,
    /// Why it failed.
    reason: Option<ReasonView>,
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
    progress: Option<Box<RawValue>>,
    /// Once it has ended: the object that `keysweep scan --json` prints.
    report: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
struct ReasonView {
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

/// Shows a task.
pub(super) async fn show(State(door): State<Door>, request: Request) -> Result<Json<TaskView>, ApiError> {
    let Admitted { project_id, subject_id, .. } = door.admit(request, Role::Reader).await?;
    let detail = door.tasks.detail(&project_id, &subject_id).await?.ok_or(ApiError::NotFound("task"))?;
    Ok(Json(TaskView::from(detail)))
}

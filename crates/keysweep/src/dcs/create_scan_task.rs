//! CreateAutoExpireScanTask, and ScanExpireKey, its older name.

use axum::{
    Json,
    extract::{Request, State},
};

use super::{
    Door,
    error::{DcsError, OnInstance},
    task_body::TaskBody,
};

/// Create an expired key scan task
///
/// Where the instance has an active task already, that one is the answer.
#[utoipa::path(
    post, path = "/v2/{project_id}/instances/{instance_id}/scan-expire-keys-task", tag = "DCS v2", operation_id = "CreateAutoExpireScanTask",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = TaskBody), OnInstance)
)]
pub(super) async fn create(door: State<Door>, request: Request) -> Result<Json<TaskBody>, DcsError> {
    handle(door, request).await
}

/// The same, by its older name
#[utoipa::path(
    post, path = "/v2/{project_id}/instances/{instance_id}/auto-expire/scan", tag = "DCS v2", operation_id = "ScanExpireKey",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = TaskBody), OnInstance)
)]
pub(super) async fn scan(door: State<Door>, request: Request) -> Result<Json<TaskBody>, DcsError> {
    handle(door, request).await
}

async fn handle(State(door): State<Door>, request: Request) -> Result<Json<TaskBody>, DcsError> {
    let admitted = door.admit_create(request).await?;
    super::supported(&admitted.instance)?;
    let task = door.tasks.submit(&admitted.instance, admitted.caller.name).await?;
    Ok(Json(TaskBody::from(&task)))
}

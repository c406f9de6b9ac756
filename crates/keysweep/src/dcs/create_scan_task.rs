//! CreateAutoExpireScanTask and its older name ScanExpireKey.

use axum::{
    Json,
    extract::{Request, State},
};

use super::{
    DcsState,
    error::{DcsError, OnInstance},
    task_body::TaskBody,
};

/// Create an expired key scan task
///
/// If the instance has an active task, the answer is that task.
#[utoipa::path(
    post, path = "/v2/{project_id}/instances/{instance_id}/scan-expire-keys-task", tag = "DCS v2", operation_id = "CreateAutoExpireScanTask",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = TaskBody), OnInstance)
)]
pub(super) async fn create(state: State<DcsState>, request: Request) -> Result<Json<TaskBody>, DcsError> {
    handle(state, request).await
}

/// Create an expired key scan task, by the operation's older name
#[utoipa::path(
    post, path = "/v2/{project_id}/instances/{instance_id}/auto-expire/scan", tag = "DCS v2", operation_id = "ScanExpireKey",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = TaskBody), OnInstance)
)]
pub(super) async fn scan(state: State<DcsState>, request: Request) -> Result<Json<TaskBody>, DcsError> {
    handle(state, request).await
}

async fn handle(State(state): State<DcsState>, request: Request) -> Result<Json<TaskBody>, DcsError> {
    let (authorized, instance) = state.authorize_create(request).await?;
    let task = state.tasks.submit(&instance, authorized.caller.name).await?;
    Ok(Json(TaskBody::from(&task)))
}

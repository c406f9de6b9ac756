//! CreateAutoExpireScanTask, and ScanExpireKey, its older name.

use axum::{
    Json,
    extract::{Request, State},
};

use super::{Door, error::DcsError, task_body::TaskBody};

/// Creates an expired key scan task; answers with the active one where there is one already.
pub(super) async fn handle(State(door): State<Door>, request: Request) -> Result<Json<TaskBody>, DcsError> {
    let admitted = door.admit_create(request).await?;
    super::supported(&admitted.instance)?;
    let task = door.tasks.submit(&admitted.instance, admitted.caller.name).await?;
    Ok(Json(TaskBody::from(&task)))
}

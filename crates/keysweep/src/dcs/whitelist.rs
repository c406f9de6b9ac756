//! ShowIpWhitelist: Terraform's instance resource reads the whitelist of an instance beside it.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    DcsState,
    error::{DcsError, OnInstance},
};
use crate::model::Role;

/// The addresses that may connect to an instance. keysweep restricts none, so that the list is empty and not in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct Whitelist {
    instance_id: String,
    enable_whitelist: bool,
    #[schema(value_type = Vec<Object>)]
    whitelist: Vec<()>,
}

/// Show an instance's whitelist, which is always empty and not in force
#[utoipa::path(
    get, path = "/v2/{project_id}/instance/{instance_id}/whitelist", tag = "DCS v2", operation_id = "ShowIpWhitelist",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = Whitelist), OnInstance)
)]
pub(super) async fn show(State(state): State<DcsState>, request: Request) -> Result<Json<Whitelist>, DcsError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    Ok(Json(Whitelist { instance_id: instance.id, enable_whitelist: false, whitelist: Vec::new() }))
}

//! ListConfigurations: Terraform's instance resource reads the parameters of a server beside the instance.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    DcsState,
    described::status,
    error::{DcsError, OnInstance},
};
use crate::model::Role;

/// The parameters of an instance's server. keysweep manages none, so that the list is empty.
#[derive(Debug, Serialize, ToSchema)]
pub struct Configurations {
    instance_id: String,
    /// Status of the instance.
    status: &'static str,
    #[schema(value_type = Vec<Object>)]
    redis_config: Vec<()>,
}

/// List the parameters of an instance's server, of which keysweep manages none
#[utoipa::path(
    get, path = "/v2/{project_id}/instances/{instance_id}/configs", tag = "DCS v2", operation_id = "ListConfigurations",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = Configurations), OnInstance)
)]
pub(super) async fn list(State(state): State<DcsState>, request: Request) -> Result<Json<Configurations>, DcsError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    Ok(Json(Configurations { status: status(&instance), instance_id: instance.id, redis_config: Vec::new() }))
}

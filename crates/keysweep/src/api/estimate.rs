//! The estimate of an instance's stale keys, as `keysweep estimate` makes it.

use axum::{
    Json,
    extract::{Request, State},
};
use keysweep_engine::{Estimate, Method};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ApiState,
    error::{ApiError, OnServer},
};
use crate::model::Role;

/// An estimate: the object that `keysweep estimate --json` prints.
#[derive(Debug, Serialize, ToSchema)]
pub struct EstimateView {
    /// URL of the target, without credentials.
    target: String,
    /// The nodes that answered, separated by commas.
    address: String,
    /// replica-count: every key was counted on a replica; replica-sample: a share of them; info: no replica was available
    /// and the server's own running average was used.
    #[schema(value_type = String)]
    method: Method,
    /// Keys in memory, stale keys included.
    keys: u64,
    /// Estimated stale keys.
    stale_keys: u64,
    /// `stale_keys` divided by `keys`, 0–1.
    share: f64,
    /// Estimated bytes that stale keys take.
    bytes: Option<u64>,
}

impl From<Estimate> for EstimateView {
    fn from(found: Estimate) -> Self {
        let Estimate { target, address, method, keys, stale_keys, share, bytes } = found;
        Self { target, address, method, keys, stale_keys, share, bytes }
    }
}

/// Estimate the stale keys of an instance
///
/// Reclaims nothing. Counts on a replica at the instance's pace; without a replica the answer is the server's own running
/// average. Takes up to 30 seconds.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/estimate", tag = "instances", operation_id = "estimate_instance",
    params(
        ("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance"),
        ("sample" = Option<f64>, Query, exclusive_minimum = 0.0, maximum = 1.0, description = "Share of the keys to count [default: all]"),
    ),
    responses((status = 200, body = EstimateView), OnServer)
)]
pub(super) async fn estimate(State(state): State<ApiState>, request: Request) -> Result<Json<EstimateView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Operator).await?;
    let mut pairs = url::form_urlencoded::parse(authorized.query.as_bytes());
    let sample = pairs.find(|(name, _)| name == "sample").map(|(_, value)| {
        let share = value.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
        share.ok_or_else(|| ApiError::Invalid("the parameter sample must be a share above 0 and up to 1".into()))
    });
    let estimated = state.instances.estimate(&instance, sample.transpose()?).await?;
    Ok(Json(EstimateView::from(estimated)))
}

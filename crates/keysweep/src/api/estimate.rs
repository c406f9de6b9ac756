//! How much of an instance's keyspace is dead, as `keysweep estimate` finds it out.

use axum::{
    Json,
    extract::{Request, State},
};
use keysweep_engine::{Estimate, Method};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Door,
    error::{ApiError, OnServer},
};
use crate::model::Role;

/// The answer: the object that `keysweep estimate --json` prints.
#[derive(Debug, Serialize, ToSchema)]
pub struct EstimateView {
    /// What was asked about, without credentials.
    target: String,
    /// The nodes that answered, separated by commas.
    address: String,
    /// replica-count: every key counted on a replica; replica-sample: a part of them; info: the server's own running
    /// average, for want of a replica.
    #[schema(value_type = String)]
    method: Method,
    /// Keys that are held, dead ones included.
    keys: u64,
    /// Keys that are probably dead.
    dead_keys: u64,
    /// `dead_keys` by `keys`, 0–1.
    dead_share: f64,
    /// Bytes that they probably take.
    dead_bytes: Option<u64>,
}

impl From<Estimate> for EstimateView {
    fn from(found: Estimate) -> Self {
        let Estimate { target, address, method, keys, stale_keys, share, bytes } = found;
        Self { target, address, method, keys, dead_keys: stale_keys, dead_share: share, dead_bytes: bytes }
    }
}

/// Estimate how much of an instance's keyspace is dead
///
/// Releases nothing. Counts on a replica, at the instance's pace; where there is none the server's own running average is
/// the answer. Waits up to 30 seconds.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/estimate", tag = "instances", operation_id = "estimate_instance",
    params(
        ("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance"),
        ("sample" = Option<f64>, Query, exclusive_minimum = 0.0, maximum = 1.0, description = "Share of the keys to count [default: all]"),
    ),
    responses((status = 200, body = EstimateView), OnServer)
)]
pub(super) async fn make(State(door): State<Door>, request: Request) -> Result<Json<EstimateView>, ApiError> {
    let (admitted, instance) = door.admit_to_instance(request, Role::Operator).await?;
    let mut pairs = url::form_urlencoded::parse(admitted.query.as_bytes());
    let sample = pairs.find(|(name, _)| name == "sample").map(|(_, value)| {
        let share = value.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
        share.ok_or_else(|| ApiError::Invalid("the parameter sample must be a share above 0 and up to 1".into()))
    });
    let estimated = door.fleet.estimate(&instance, sample.transpose()?).await?;
    Ok(Json(EstimateView::from(estimated)))
}

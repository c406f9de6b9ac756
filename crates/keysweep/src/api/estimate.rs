//! The estimate of an instance's stale keys, as `keysweep estimate` makes it.

use axum::{
    Json,
    extract::{Request, State},
};
use keysweep_engine::{DatabaseEstimate, Estimate, Finding, Method, PrimaryEstimate};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ApiState,
    error::{ApiError, OnServer},
};
use crate::{
    model::{Role, exact_in_json},
    request::query_value,
};

/// An estimate: the object that `keysweep estimate --json` prints.
#[derive(Debug, Serialize, ToSchema)]
pub struct EstimateView {
    /// URL of the target, without credentials.
    target: String,
    /// All primaries together.
    total: FindingView,
    /// Each primary.
    primaries: Vec<PrimaryEstimateView>,
}

/// Estimate of one primary.
#[derive(Debug, Serialize, ToSchema)]
pub struct PrimaryEstimateView {
    /// Address of the primary.
    address: String,
    /// Address of the node whose keys were counted.
    source: String,
    #[serde(flatten)]
    finding: FindingView,
    /// Each database that holds keys.
    databases: Vec<DatabaseEstimateView>,
    /// What the estimate lacks, and why.
    notes: Vec<String>,
    /// Bytes that the data of the primary takes.
    used_memory: Option<u64>,
}

/// Estimate of one database.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatabaseEstimateView {
    /// Number of the database.
    database: u32,
    #[serde(flatten)]
    finding: FindingView,
}

/// What was found of some keys. Shares are 0–1; null stands for what is unknown, and for numbers above 2^53.
#[derive(Debug, Serialize, ToSchema)]
pub struct FindingView {
    /// Keys in memory, stale keys included.
    keys: Option<u64>,
    /// Keys with a TTL among them.
    keys_with_ttl: Option<u64>,
    /// Stale keys as a share of all keys.
    share: Option<f64>,
    /// Lower end of its 95 % interval.
    share_low: Option<f64>,
    /// Upper end of its 95 % interval.
    share_high: Option<f64>,
    /// Stale keys as a share of the keys with a TTL.
    share_of_expiring: Option<f64>,
    /// Estimated stale keys.
    stale_keys: Option<u64>,
    /// Estimated bytes that stale keys take.
    bytes: Option<u64>,
    /// Lower end of their 95 % interval.
    bytes_low: Option<u64>,
    /// Upper end of their 95 % interval.
    bytes_high: Option<u64>,
    /// replica: counted on a replica; slots: counted there in some slots; sample: sampled on the primary, which reclaims the
    /// stale keys of the sample; info: the server's own running average, which is too high in steady state and says nothing
    /// otherwise.
    #[schema(value_type = Option<String>)]
    method: Option<Method>,
    /// Stale keys that the estimate itself has reclaimed.
    reclaimed: Option<u64>,
    /// Time for which the estimate kept the main threads of servers, seconds.
    server_seconds: Option<f64>,
    /// Keys that expire a second.
    expiry_rate: Option<f64>,
    /// Cycles a second of the server (hz).
    hz: Option<u32>,
    /// active-expire-effort of the server, 1–10.
    effort: Option<u8>,
    /// Share of all keys that the server's own cycle holds in steady state.
    predicted_share: Option<f64>,
    /// Whether the share is what the cycle holds.
    steady: Option<bool>,
}

impl From<Estimate> for EstimateView {
    fn from(Estimate { target, total, primaries }: Estimate) -> Self {
        Self { target, total: FindingView::from(&total), primaries: primaries.into_iter().map(Into::into).collect() }
    }
}

impl From<PrimaryEstimate> for PrimaryEstimateView {
    fn from(PrimaryEstimate { address, source, finding, databases, notes, used_memory, .. }: PrimaryEstimate) -> Self {
        let databases = databases.into_iter().map(Into::into).collect();
        let used_memory = used_memory.and_then(exact_in_json);
        Self { address, source, finding: FindingView::from(&finding), databases, notes, used_memory }
    }
}

impl From<DatabaseEstimate> for DatabaseEstimateView {
    fn from(DatabaseEstimate { database, finding }: DatabaseEstimate) -> Self {
        Self { database, finding: FindingView::from(&finding) }
    }
}

impl From<&Finding> for FindingView {
    fn from(found: &Finding) -> Self {
        Self {
            keys: exact_in_json(found.keys),
            keys_with_ttl: exact_in_json(found.keys_with_ttl),
            share: found.share,
            share_low: found.share_low,
            share_high: found.share_high,
            share_of_expiring: found.share_of_expiring,
            stale_keys: found.stale_keys.and_then(exact_in_json),
            bytes: found.bytes.and_then(exact_in_json),
            bytes_low: found.bytes_low.and_then(exact_in_json),
            bytes_high: found.bytes_high.and_then(exact_in_json),
            method: found.method,
            reclaimed: exact_in_json(found.reclaimed),
            server_seconds: found.server_seconds,
            expiry_rate: found.expiry_rate,
            hz: found.hz,
            effort: found.effort,
            predicted_share: found.predicted_share,
            steady: found.steady,
        }
    }
}

/// Estimate the stale keys of an instance
///
/// Counts on a replica at the instance's pace, and reclaims nothing; without a replica the answer is the server's own running
/// average. The method sample samples the primary: it reclaims the stale keys of the sample, and is refused for at least
/// five minutes after the last one. Takes up to 30 seconds. The result becomes the latest estimate of the instance and part of
/// its history.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/estimate", tag = "instances", operation_id = "estimate_instance",
    params(
        ("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance"),
        ("method" = Option<String>, Query, description = "auto, replica, slots, sample or info [default: auto, which reclaims nothing]"),
    ),
    responses((status = 200, body = EstimateView), OnServer)
)]
pub(super) async fn estimate(State(state): State<ApiState>, request: Request) -> Result<Json<EstimateView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Operator).await?;
    let method = match query_value(&authorized.query, "method").as_deref() {
        None | Some("auto") => None,
        Some("replica") => Some(Method::Replica),
        Some("slots") => Some(Method::Slots),
        Some("sample") => Some(Method::Sample),
        Some("info") => Some(Method::Info),
        Some(_) => {
            return Err(ApiError::Invalid("the parameter method must be auto, replica, slots, sample or info".into()));
        }
    };
    let estimated = state.instances.estimate(&instance, method).await?;
    Ok(Json(EstimateView::from(estimated)))
}

//! The stored estimates of an instance: the latest, and the history with its marks.

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::{Timestamp, ToSpan};
use keysweep_engine::stale::{Advice, Code};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ApiState,
    error::{ApiError, OnSubject},
    estimate::FindingView,
};
use crate::{
    model::{
        EstimatePoint, EstimatedPrimary, InstanceEstimate, LastScan, Mark, PrimaryPoint, Role, exact_document,
        exact_in_json,
    },
    request::query_value,
};

/// Hours of history that are returned without `from`.
const DEFAULT_HOURS: i64 = 7 * 24;

/// Estimates of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct EstimatesView {
    /// The latest estimate; null: there was none yet.
    latest: Option<LatestEstimateView>,
    /// Why there is no newer estimate; null: the latest attempt succeeded.
    failure: Option<String>,
    /// The successful scan that has finished since the latest estimate, whose shares and verdicts are from before it; null: none has.
    scanned_since: Option<ScannedSinceView>,
    /// The history, oldest first: one point an hour for seven days, then one a day for 90 days.
    points: Vec<PointView>,
    /// Scans and changes of server settings, oldest first.
    marks: Vec<MarkView>,
}

/// A scan that has reclaimed the stale keys of an estimate.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScannedSinceView {
    finished_at: Timestamp,
    /// Stale keys that it left, about; null: its report does not say.
    stale_keys: Option<u64>,
    /// The same as a share of all keys, 0–1.
    share: Option<f64>,
}

/// An estimate with a verdict for each primary.
#[derive(Debug, Serialize, ToSchema)]
pub struct LatestEstimateView {
    taken_at: Timestamp,
    /// All primaries together, as far as their shares were measured.
    total: FindingView,
    /// Each primary.
    primaries: Vec<EstimatedPrimaryView>,
}

/// What was found of a primary, and what to do about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EstimatedPrimaryView {
    /// Address of the primary.
    address: String,
    #[serde(flatten)]
    finding: FindingView,
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    approximate: bool,
    /// Bytes that the data of the primary takes.
    used_memory: Option<u64>,
    /// What the finding lacks, and why.
    notes: Vec<String>,
    verdict: VerdictView,
}

/// What to do so that the stale share stays below a target: that of the survey, else that of the instance (what it is held at, else
/// what its auto-scan keeps, else 10 %).
#[derive(Debug, Serialize, ToSchema)]
pub struct VerdictView {
    /// unsupported: cannot be scanned; unknown: too little is known; pointless: nothing to gain; scan_once: a batch has expired;
    /// scan_every: regular scans hold the target; set_effort: another setting of the server holds it; cannot_hold: neither does.
    #[schema(value_type = String)]
    code: Code,
    /// Why, a sentence.
    reason: String,
    /// What to do; null: nothing.
    remedy: Option<String>,
    /// Seconds between scans, for scan_every.
    interval_seconds: Option<f64>,
    /// active-expire-effort, for set_effort.
    effort: Option<u8>,
    /// hz, for set_effort.
    hz: Option<u32>,
}

/// An instance at one time of its history.
#[derive(Debug, Serialize, ToSchema)]
pub struct PointView {
    taken_at: Timestamp,
    /// The primaries, of a cluster with more than 256 the largest ones.
    primaries: Vec<PrimaryPointView>,
}

/// A primary at one time of the history. Null stands for what is unknown, and for numbers above 2^53.
#[derive(Debug, Serialize, ToSchema)]
pub struct PrimaryPointView {
    /// Address of the primary.
    address: String,
    /// Keys in memory, stale keys included.
    keys: Option<u64>,
    /// Stale keys as a share of all keys, 0–1.
    share: Option<f64>,
    /// Lower end of its 95 % interval.
    share_low: Option<f64>,
    /// Upper end of its 95 % interval.
    share_high: Option<f64>,
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    approximate: bool,
    /// Estimated bytes that stale keys take.
    bytes: Option<u64>,
    /// Keys that expire a second.
    expiry_rate: Option<f64>,
    /// Bytes that the data of the primary takes.
    used_memory: Option<u64>,
}

/// What happened to an instance at one time of its history.
#[derive(Debug, Serialize, ToSchema)]
pub struct MarkView {
    happened_at: Timestamp,
    /// scan: a scan ended; config: settings of the servers were changed, by keysweep or by others between two estimates.
    kind: &'static str,
    /// Details, for example `task_id`, `keys_reclaimed` and `remaining`, the stale keys that it left, of a scan.
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<LastScan> for ScannedSinceView {
    fn from(LastScan { finished_at, remaining }: LastScan) -> Self {
        Self {
            finished_at,
            stale_keys: remaining.and_then(|remaining| exact_in_json(remaining.stale_keys)),
            share: remaining.map(|remaining| remaining.share),
        }
    }
}

impl From<&Advice> for VerdictView {
    fn from(advice: &Advice) -> Self {
        Self {
            code: advice.code,
            reason: advice.reason.clone(),
            remedy: advice.remedy.clone(),
            interval_seconds: advice.interval_seconds,
            effort: advice.setting.map(|setting| setting.effort),
            hz: advice.setting.map(|setting| setting.hz),
        }
    }
}

impl From<&EstimatedPrimary> for EstimatedPrimaryView {
    fn from(primary: &EstimatedPrimary) -> Self {
        Self {
            address: primary.address.clone(),
            finding: FindingView::from(&primary.finding),
            approximate: primary.approximate,
            used_memory: primary.used_memory.and_then(exact_in_json),
            notes: primary.notes.clone(),
            verdict: VerdictView::from(&primary.verdict),
        }
    }
}

impl From<&InstanceEstimate> for LatestEstimateView {
    fn from(estimate: &InstanceEstimate) -> Self {
        Self {
            taken_at: estimate.taken_at,
            total: FindingView::from(&estimate.total),
            primaries: estimate.primaries.iter().map(Into::into).collect(),
        }
    }
}

impl From<PrimaryPoint> for PrimaryPointView {
    fn from(point: PrimaryPoint) -> Self {
        Self {
            address: point.address,
            keys: exact_in_json(point.keys),
            share: point.share,
            share_low: point.share_low,
            share_high: point.share_high,
            approximate: point.approximate,
            bytes: point.bytes.and_then(exact_in_json),
            expiry_rate: point.expiry_rate,
            used_memory: point.used_memory.and_then(exact_in_json),
        }
    }
}

impl From<EstimatePoint> for PointView {
    fn from(EstimatePoint { taken_at, primaries }: EstimatePoint) -> Self {
        Self { taken_at, primaries: primaries.into_iter().map(Into::into).collect() }
    }
}

impl From<Mark> for MarkView {
    fn from(Mark { happened_at, kind, detail }: Mark) -> Self {
        Self { happened_at, kind: kind.as_str(), detail: exact_document(detail) }
    }
}

/// Show the estimates of an instance
///
/// The latest one with a verdict for each primary, and the history with marks for scans and changes of settings. The service
/// estimates by itself every five minutes at most, as the instance's `sampling` allows.
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/instances/{instance_id}/estimates", tag = "instances", operation_id = "list_estimates",
    params(
        ("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance"),
        ("from" = Option<String>, Query, description = "Time from which on the history is returned, as 2026-01-31T12:00:00Z [default: seven days ago]"),
    ),
    responses((status = 200, body = EstimatesView), OnSubject)
)]
pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<Json<EstimatesView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Reader).await?;
    let from = match query_value(&authorized.query, "from") {
        None => Timestamp::now() - DEFAULT_HOURS.hours(),
        Some(text) => text.parse().map_err(|_| {
            ApiError::Invalid(format!("invalid parameter from {text:?}: write a time such as 2026-01-31T12:00:00Z"))
        })?,
    };
    let latest = state.instances.latest_estimate(&instance).await?;
    let (points, marks) = state.instances.estimates_since(&instance, from).await?;
    Ok(Json(EstimatesView {
        latest: latest.estimate.as_ref().map(Into::into),
        failure: latest.failure,
        scanned_since: latest.scanned_since.map(Into::into),
        points: points.into_iter().map(Into::into).collect(),
        marks: marks.into_iter().map(Into::into).collect(),
    }))
}

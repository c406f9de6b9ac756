//! Surveys of a project's instances.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use jiff::Timestamp;
use keysweep_engine::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState, body,
    error::{ApiError, CREATED, OnChange, OnSubject},
    estimates::VerdictView,
};
use crate::{
    instances::SurveyRequest,
    model::{Labels, Role, Survey, SurveyOrder, SurveyRow, exact_in_json},
    request::query_value,
};

/// What to survey.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSurveyBody {
    /// Labels that the instances have, as an object from names to values [default: all instances].
    labels: Option<BTreeMap<String, String>>,
    /// Stale share to stay below, 0–1 [default: 0.1].
    #[schema(exclusive_minimum = 0, exclusive_maximum = 1)]
    below: Option<f64>,
    /// Whether no key is reclaimed, whatever the sampling of the instances allows [default: false].
    no_reclaim: Option<bool>,
}

/// A survey with the rows that it has so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct SurveyView {
    id: String,
    project_id: String,
    /// running; done: every instance has its rows; interrupted: the process that ran it has ended.
    status: &'static str,
    /// Why there are no more rows; null: they come, or are all there.
    reason: Option<&'static str>,
    /// User who created it; null: no authentication.
    triggered_by: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// Stale share to stay below, 0–1.
    below: f64,
    /// Labels that the instances have.
    labels: BTreeMap<String, String>,
    /// Instances to survey.
    instances: u64,
    /// Instances that have their rows.
    surveyed: u64,
    rows: Vec<SurveyRowView>,
}

/// One primary, or an instance that was not reached. Shares are 0–1; null stands for what is unknown, and for numbers above 2^53.
#[derive(Debug, Serialize, ToSchema)]
pub struct SurveyRowView {
    /// Name of the instance.
    name: String,
    instance_id: Option<String>,
    /// Address of the primary; null: the instance was not reached.
    address: Option<String>,
    /// When it was estimated, which is before the survey where a server may not be sampled again yet; null: it was not reached.
    taken_at: Option<Timestamp>,
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
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    approximate: bool,
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
    /// replica, slots, sample or info.
    #[schema(value_type = Option<String>)]
    method: Option<Method>,
    /// Stale keys that the survey itself has reclaimed.
    reclaimed: Option<u64>,
    /// Time for which the survey kept the main thread, seconds.
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
    /// Bytes that the data of the primary takes.
    used_memory: Option<u64>,
    /// What the row lacks, and why.
    notes: Vec<String>,
    verdict: VerdictView,
}

impl From<Survey> for SurveyView {
    fn from(survey: Survey) -> Self {
        Self {
            id: survey.id,
            project_id: survey.project_id,
            status: survey.status.as_str(),
            reason: survey.status.reason(),
            triggered_by: survey.triggered_by,
            created_at: survey.created_at,
            finished_at: survey.finished_at,
            below: survey.target,
            labels: survey.labels.as_map().clone(),
            instances: survey.instances,
            surveyed: survey.surveyed,
            rows: survey.rows.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<SurveyRow> for SurveyRowView {
    fn from(row: SurveyRow) -> Self {
        Self {
            verdict: VerdictView::from(&row.verdict),
            name: row.name,
            instance_id: row.instance_id,
            address: row.address,
            taken_at: row.taken_at,
            keys: row.keys.and_then(exact_in_json),
            keys_with_ttl: row.keys_with_ttl.and_then(exact_in_json),
            share: row.share,
            share_low: row.share_low,
            share_high: row.share_high,
            approximate: row.approximate,
            share_of_expiring: row.share_of_expiring,
            stale_keys: row.stale_keys.and_then(exact_in_json),
            bytes: row.bytes.and_then(exact_in_json),
            bytes_low: row.bytes_low.and_then(exact_in_json),
            bytes_high: row.bytes_high.and_then(exact_in_json),
            method: row.method,
            reclaimed: row.reclaimed.and_then(exact_in_json),
            server_seconds: row.server_seconds,
            expiry_rate: row.expiry_rate,
            hz: row.hz,
            effort: row.effort,
            predicted_share: row.predicted_share,
            steady: row.steady,
            used_memory: row.used_memory.and_then(exact_in_json),
            notes: row.notes,
        }
    }
}

/// Survey a project's instances
///
/// Estimates the stale share of each primary, eight instances at a time, as the sampling of each instance allows, and says what
/// to do about it. The rows are read with show_survey while they come. One survey of a project runs at a time, of at most
/// 1,000 instances; the newest ten are kept.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/survey", tag = "surveys", operation_id = "create_survey",
    params(("project_id" = String, Path, description = "Project")), request_body = Option<NewSurveyBody>,
    responses((status = 201, body = SurveyView), OnChange)
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    request: Request,
) -> Result<(StatusCode, Json<SurveyView>), ApiError> {
    let authorized = state.authorize(request, Role::Operator).await?;
    let wanted: NewSurveyBody = match authorized.body.trim_ascii().is_empty() {
        true => NewSurveyBody::default(),
        false => body::read(&authorized.body)?,
    };
    let labels = wanted.labels.map(Labels::new).transpose()?;
    let defaults = SurveyRequest::default();
    let request = SurveyRequest {
        target: wanted.below.unwrap_or(defaults.target),
        labels: labels.unwrap_or_default(),
        no_reclaim: wanted.no_reclaim.unwrap_or_default(),
    };
    let by = authorized.caller.name.as_deref();
    let survey = state.instances.start_survey(&authorized.project_id, request, by).await?;
    Ok((CREATED, Json(survey.into())))
}

/// Show a survey
///
/// With the rows that it has so far. A survey whose process has ended is interrupted within half a minute.
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/survey/{survey_id}", tag = "surveys", operation_id = "show_survey",
    params(
        ("project_id" = String, Path, description = "Project"), ("survey_id" = String, Path, description = "Survey"),
        ("sort" = Option<String>, Query, description = "Order of the rows: bytes, share or name [default: bytes]"),
    ),
    responses((status = 200, body = SurveyView), OnSubject)
)]
pub(super) async fn show(State(state): State<ApiState>, request: Request) -> Result<Json<SurveyView>, ApiError> {
    let authorized = state.authorize(request, Role::Reader).await?;
    let order: SurveyOrder = match query_value(&authorized.query, "sort") {
        None => SurveyOrder::default(),
        Some(name) => name.parse()?,
    };
    let survey = state.instances.survey(&authorized.project_id, &authorized.subject_id).await?;
    let mut survey = survey.ok_or(ApiError::NotFound("survey"))?;
    order.sort(&mut survey.rows);
    Ok(Json(survey.into()))
}

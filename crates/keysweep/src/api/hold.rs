//! Operations on how the stale share of an instance is held.

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use keysweep_engine::{HoldLevel, HoldPolicy, stale::CycleSetting};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState, body,
    error::{ApiError, OnChange, OnSubject},
};
use crate::model::{HeldInstance, HeldServer, Role};

/// How the stale share of an instance is held. Fields that are left out have their defaults.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldBody {
    /// observe: nothing is sampled or written; advise: the setting that would hold the target is reported; hold: it is
    /// written.
    level: String,
    /// Share of all keys below which the stale keys are held, 0.02–0.3; default 0.1.
    below: Option<f64>,
    /// Highest active-expire-effort that is written, 1–10; default 7.
    max_effort: Option<u8>,
    /// Highest hz that is written, 1–100; without it hz is not written.
    max_hz: Option<u32>,
    /// Longest time that a cycle may block clients beyond today's, milliseconds; default 1.
    max_added_stall_ms: Option<f64>,
    /// Share of a core that the cycle may take beyond today's; default 0.03.
    max_added_cpu: Option<f64>,
    /// Seconds between two observations; default 60.
    interval_seconds: Option<u64>,
    /// Seconds without another write after each write, at least; default 60.
    settle_floor_seconds: Option<u64>,
}

impl HoldBody {
    fn policy(self) -> Result<HoldPolicy, ApiError> {
        let default = HoldPolicy::default();
        Ok(HoldPolicy {
            level: self.level.parse().map_err(ApiError::Invalid)?,
            below: self.below.unwrap_or(default.below),
            max_effort: self.max_effort.unwrap_or(default.max_effort),
            max_hz: self.max_hz,
            max_added_stall_ms: self.max_added_stall_ms.unwrap_or(default.max_added_stall_ms),
            max_added_cpu: self.max_added_cpu.unwrap_or(default.max_added_cpu),
            interval_seconds: self.interval_seconds.unwrap_or(default.interval_seconds),
            settle_floor_seconds: self.settle_floor_seconds.unwrap_or(default.settle_floor_seconds),
        })
    }
}

/// How the stale share of an instance is held, and what is known of its servers.
#[derive(Debug, Serialize, ToSchema)]
pub struct HoldView {
    /// observe, advise or hold.
    #[schema(value_type = String)]
    level: HoldLevel,
    /// Share of all keys below which the stale keys are held.
    below: f64,
    /// Highest active-expire-effort that is written.
    max_effort: u8,
    /// Highest hz that is written; null: hz is not written.
    max_hz: Option<u32>,
    /// Longest time that a cycle may block clients beyond today's, milliseconds.
    max_added_stall_ms: f64,
    /// Share of a core that the cycle may take beyond today's.
    max_added_cpu: f64,
    /// Seconds between two observations.
    interval_seconds: u64,
    /// Seconds without another write after each write, at least.
    settle_floor_seconds: u64,
    /// Whether a server may have other settings than its own.
    changed: bool,
    /// When the worker has reported last; null: not yet.
    reported_at: Option<Timestamp>,
    /// Why its last round could not find or observe all servers; null: it could.
    failure: Option<String>,
    /// What it has reported about each server.
    servers: Vec<HeldServerView>,
}

/// What is known of one server. Shares are of all keys, 0–1; null stands for what is unknown.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeldServerView {
    /// Address of the server.
    address: String,
    /// off, measuring, scanning, settling, holding, advising, cannot_hold, backing_off, foreign or restoring.
    state: &'static str,
    /// What is done and why.
    sentence: String,
    /// The last sample of the stale share.
    share: Option<f64>,
    /// Lower end of its 95 % interval.
    share_low: Option<f64>,
    /// Upper end of its 95 % interval.
    share_high: Option<f64>,
    /// What the current setting holds, by the model.
    expected: Option<f64>,
    /// What the server's own setting would hold, by the model.
    without: Option<f64>,
    /// Keys that expire a second.
    expiry_rate: Option<f64>,
    /// Settings of the expiry cycle now.
    setting: Option<SettingView>,
    /// The server's own settings.
    baseline: Option<SettingView>,
    /// The setting that would be written next, where the level or a limit prevents it.
    advised: Option<SettingView>,
    /// Seconds for which one cycle blocks clients, measured.
    stall_seconds: Option<f64>,
    /// Share of the main thread that the cycle takes, measured.
    cycle_cpu: Option<f64>,
}

/// Settings of an expiry cycle.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettingView {
    /// active-expire-effort.
    effort: u8,
    /// hz.
    hz: u32,
}

impl From<CycleSetting> for SettingView {
    fn from(CycleSetting { effort, hz }: CycleSetting) -> Self {
        Self { effort, hz }
    }
}

impl From<HeldServer> for HeldServerView {
    fn from(HeldServer { address, status }: HeldServer) -> Self {
        Self {
            address: address.to_string(),
            state: status.state.as_str(),
            sentence: status.sentence,
            share: status.share.map(|share| share.share),
            share_low: status.share.map(|share| share.low),
            share_high: status.share.map(|share| share.high),
            expected: status.expected,
            without: status.without,
            expiry_rate: status.rate,
            setting: status.setting.map(Into::into),
            baseline: status.baseline.map(Into::into),
            advised: status.advised.map(Into::into),
            stall_seconds: status.stall_seconds,
            cycle_cpu: status.cycle_cpu,
        }
    }
}

impl From<HeldInstance> for HoldView {
    fn from(hold: HeldInstance) -> Self {
        let policy = hold.policy;
        Self {
            level: policy.level,
            below: policy.below,
            max_effort: policy.max_effort,
            max_hz: policy.max_hz,
            max_added_stall_ms: policy.max_added_stall_ms,
            max_added_cpu: policy.max_added_cpu,
            interval_seconds: policy.interval_seconds,
            settle_floor_seconds: policy.settle_floor_seconds,
            changed: hold.changed,
            reported_at: hold.reported_at,
            failure: hold.failure,
            servers: hold.servers.into_iter().map(Into::into).collect(),
        }
    }
}

/// Show how the stale share of an instance is held
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/instances/{instance_id}/hold", tag = "instances", operation_id = "show_hold",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = HoldView), OnSubject)
)]
pub(super) async fn show(State(state): State<ApiState>, request: Request) -> Result<Json<HoldView>, ApiError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    Ok(Json(state.holds.get(&instance).await?.into()))
}

/// Set how the stale share of an instance is held
///
/// The level hold lets keysweep change active-expire-effort, and hz with max_hz, on the instance's servers. Their own settings are
/// recorded first, and restored when the level is changed to observe.
#[utoipa::path(
    put, path = "/api/v1/projects/{project_id}/instances/{instance_id}/hold", tag = "instances", operation_id = "set_hold",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    request_body = HoldBody,
    responses((status = 200, body = HoldView), OnChange)
)]
pub(super) async fn set(State(state): State<ApiState>, request: Request) -> Result<Json<HoldView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Admin).await?;
    let wanted: HoldBody = body::read(&authorized.body)?;
    let hold = state.holds.set(&instance, wanted.policy()?, authorized.caller.name.as_deref()).await?;
    Ok(Json(hold.into()))
}

/// Restore the own settings of an instance's servers
///
/// Sets the level to observe. A worker restores the settings within seconds; `changed` is false when it has.
#[utoipa::path(
    post, path = "/api/v1/projects/{project_id}/instances/{instance_id}/hold/restore", tag = "instances", operation_id = "restore_hold",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = HoldView), OnSubject)
)]
pub(super) async fn restore(State(state): State<ApiState>, request: Request) -> Result<Json<HoldView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Operator).await?;
    Ok(Json(state.holds.restore(&instance, authorized.caller.name.as_deref()).await?.into()))
}

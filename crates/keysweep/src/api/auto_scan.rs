//! The auto-scan of an instance, with the mean stale share that it may keep. The DCS API shows and sets the same settings
//! without that share.

use std::time::Duration;

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState, body,
    error::{ApiError, OnChange, OnSubject},
};
use crate::{
    instances::{AutoScanFault, AutoScanUpdate, TargetUpdate},
    model::{Adaptive, AutoScan, Gathering, Instance, Role, TargetShare},
    task::schedule::next_run,
};

/// Keys every 5 ms of an auto-scan that is set for the first time with a share to keep: DCS's default of 10 would take too long
/// to keep it.
const ADAPTIVE_SCAN_KEYS_COUNT: u32 = 1_000;

/// Auto-scan settings of an instance: those of the DCS API under their names there, and the share to keep.
#[derive(Debug, Serialize, ToSchema)]
pub struct AutoScanView {
    instance_id: String,
    enable_auto_scan: bool,
    first_scan_at: Option<Timestamp>,
    /// Seconds between due times; 0: a minute after the previous scan has finished. With `below` it applies until scans have
    /// measured how fast stale keys gather.
    interval: u64,
    /// Longest duration of a run in seconds.
    timeout: u64,
    /// Keys every 5 ms.
    scan_keys_count: u32,
    /// Mean stale share to keep, 0–1; null: the interval is fixed.
    below: Option<f64>,
    /// The interval that keeps it; null: the interval is fixed.
    adaptive: Option<AdaptiveView>,
    /// When the next scheduled scan starts, if no other task is active then; null: none is due.
    next_scan_at: Option<Timestamp>,
    /// Null: the settings were never changed.
    updated_at: Option<Timestamp>,
}

/// The interval of an adaptive auto-scan, and what scans have measured.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdaptiveView {
    /// measuring: no interval is known yet; holding: the interval keeps a mean of at most 1.1 times `below`; cannot_hold: even the
    /// shortest one, ten times the duration of a scan, leaves more.
    state: &'static str,
    /// Seconds from the start of one scan to the next.
    interval: f64,
    /// Mean stale share that this interval keeps, 0–1; null: unknown.
    expected_share: Option<f64>,
    /// Duration of the last successful scan, seconds; null, as are the following: there was none.
    scan_seconds: Option<f64>,
    /// Stale share that it found, 0–1.
    found_share: Option<f64>,
    /// Keys that expire a second, averaged over scans; null: unknown.
    expiry_rate: Option<f64>,
    /// When it started.
    measured_at: Option<Timestamp>,
}

/// Auto-scan settings to change. Those that are not given stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoScanChangeBody {
    enable_auto_scan: Option<bool>,
    /// In the future, or the stored value. Not given and never set: now.
    #[schema(value_type = Option<String>, format = DateTime, example = "2030-01-31T02:00:00Z")]
    first_scan_at: Option<Timestamp>,
    /// Seconds between due times; 0: start again after the last run has finished. Without `below` a new one ends the share to
    /// keep.
    interval: Option<u64>,
    /// Longest duration of a run in seconds: at least twice the interval and more than one.
    timeout: Option<u64>,
    /// Keys every 5 ms: 10–100000. Not given and never set, with `below`: 1000.
    scan_keys_count: Option<u32>,
    /// Mean stale share to keep, 0.001–0.5: the interval adapts to how fast stale keys gather. 0: the interval is fixed.
    below: Option<f64>,
}

impl AutoScanView {
    fn new(config: &AutoScan, next_scan_at: Option<Timestamp>) -> Self {
        Self {
            instance_id: config.instance_id.clone(),
            enable_auto_scan: config.enabled,
            first_scan_at: config.first_scan_at,
            interval: config.interval.as_secs(),
            timeout: config.timeout.as_secs(),
            scan_keys_count: config.scan_keys_count,
            below: config.target.map(TargetShare::share),
            adaptive: config.adaptive().map(|adaptive| AdaptiveView::new(adaptive, config.gathering.as_ref())),
            next_scan_at,
            updated_at: Some(config.updated_at).filter(|at| *at > Timestamp::UNIX_EPOCH),
        }
    }
}

impl AdaptiveView {
    fn new(adaptive: Adaptive, gathering: Option<&Gathering>) -> Self {
        Self {
            state: adaptive.hold.as_str(),
            interval: adaptive.interval.as_secs_f64(),
            expected_share: adaptive.expected_share,
            scan_seconds: gathering.map(|gathering| gathering.scan_seconds),
            found_share: gathering.map(|gathering| gathering.share),
            expiry_rate: gathering.and_then(|gathering| gathering.expiry_rate),
            measured_at: gathering.map(|gathering| gathering.started_at),
        }
    }
}

impl AutoScanChangeBody {
    /// Returns the settings after this change, or what is wrong with it.
    fn apply(&self, before: AutoScan, now: Timestamp) -> Result<AutoScan, ApiError> {
        let is_new = before.updated_at == Timestamp::UNIX_EPOCH;
        let adapts = self.below.is_some_and(|below| below > 0.0);
        let count = if is_new && adapts { ADAPTIVE_SCAN_KEYS_COUNT } else { before.scan_keys_count };
        let update = AutoScanUpdate {
            enabled: self.enable_auto_scan.unwrap_or(before.enabled),
            first_scan_at: self.first_scan_at.or(before.first_scan_at).or_else(|| now.checked_add(1.second()).ok()),
            first_scan_text: None,
            interval: Some(self.interval.map_or(before.interval, Duration::from_secs)),
            timeout: Some(self.timeout.map_or(before.timeout, Duration::from_secs)),
            scan_keys_count: Some(self.scan_keys_count.unwrap_or(count)),
            target: match self.below {
                None => TargetUpdate::Unknown,
                Some(0.0) => TargetUpdate::Set(None),
                Some(share) => {
                    TargetShare::new(share).map_or(TargetUpdate::Invalid, |target| TargetUpdate::Set(Some(target)))
                }
            },
        };
        let first_scan_at = update.first_scan_at;
        update.check(before, now).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(|fault| self.sentence(*fault, first_scan_at)).collect();
            ApiError::Invalid(faults.join("; "))
        })
    }

    fn sentence(&self, fault: AutoScanFault, first_scan_at: Option<Timestamp>) -> String {
        let text = |value: Option<u64>| value.map_or_else(|| "of the settings".to_owned(), |value| value.to_string());
        match fault {
            AutoScanFault::FirstScanAt => {
                let time = first_scan_at.map_or_else(String::new, |time| time.to_string());
                format!("first_scan_at {time} is past; give a time in the future")
            }
            AutoScanFault::Interval => {
                format!("interval {} is too long; give at most 2147483647 seconds", text(self.interval))
            }
            AutoScanFault::Timeout => {
                format!(
                    "timeout {} is too short; give at least twice the interval, and more than a second",
                    text(self.timeout)
                )
            }
            AutoScanFault::ScanKeysCount => {
                let count = text(self.scan_keys_count.map(u64::from));
                format!("scan_keys_count {count} is out of range; give 10 to 100000")
            }
            AutoScanFault::Target => format!(
                "below {} is out of range; give a share {}, or 0 for a fixed interval",
                self.below.unwrap_or_default(),
                TargetShare::RANGE
            ),
        }
    }
}

impl ApiState {
    async fn auto_scan_view(&self, instance: &Instance, config: &AutoScan) -> Result<Json<AutoScanView>, ApiError> {
        let newest = self.tasks.newest(std::slice::from_ref(instance)).await?.pop();
        let last_end = newest.and_then(|task| task.finished_at);
        Ok(Json(AutoScanView::new(config, next_run(Timestamp::now(), config, instance, last_end))))
    }
}

/// Show the auto-scan of an instance
#[utoipa::path(
    get, path = "/api/v1/projects/{project_id}/instances/{instance_id}/auto-scan", tag = "instances", operation_id = "show_auto_scan",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    responses((status = 200, body = AutoScanView), OnSubject)
)]
pub(super) async fn show(State(state): State<ApiState>, request: Request) -> Result<Json<AutoScanView>, ApiError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    let saved = state.instances.auto_scan(&instance).await?;
    let config = saved.unwrap_or_else(|| AutoScan::unset(&instance.id));
    state.auto_scan_view(&instance, &config).await
}

/// Change the auto-scan of an instance
///
/// With `below` the interval adapts: scans run as often as keeps the mean stale share there.
#[utoipa::path(
    patch, path = "/api/v1/projects/{project_id}/instances/{instance_id}/auto-scan", tag = "instances", operation_id = "change_auto_scan",
    params(("project_id" = String, Path, description = "Project"), ("instance_id" = String, Path, description = "Instance")),
    request_body = AutoScanChangeBody,
    responses((status = 200, body = AutoScanView), OnChange)
)]
pub(super) async fn change(State(state): State<ApiState>, request: Request) -> Result<Json<AutoScanView>, ApiError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Operator).await?;
    let wanted: AutoScanChangeBody = body::read(&authorized.body)?;
    let actor = authorized.caller.name.as_deref();
    let saved =
        state.instances.set_auto_scan(&instance, actor, |before| wanted.apply(before, Timestamp::now())).await?;
    state.auto_scan_view(&instance, &saved).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(body: &str, before: AutoScan) -> Result<AutoScan, String> {
        let body: AutoScanChangeBody = body::read(body.as_bytes()).expect("a body");
        let now: Timestamp = "2026-11-24T08:00:00Z".parse().expect("a time");
        body.apply(before, now).map_err(|error| match error {
            ApiError::Invalid(text) => text,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_share_to_keep_needs_nothing_else() {
        let saved = apply(r#"{"enable_auto_scan": true, "below": 0.05}"#, AutoScan::unset("i")).expect("valid");
        assert_eq!((saved.enabled, saved.target, saved.scan_keys_count), (true, TargetShare::new(0.05), 1_000));
        assert_eq!(saved.first_scan_at, "2026-11-24T08:00:01Z".parse().ok());
        let set = AutoScan { updated_at: Timestamp::MAX, ..saved };
        let again = apply(r#"{"below": 0.1}"#, AutoScan { scan_keys_count: 20, ..set.clone() }).expect("valid");
        assert_eq!((again.enabled, again.target, again.scan_keys_count), (true, TargetShare::new(0.1), 20));
        assert_eq!(apply(r#"{"below": 0}"#, set.clone()).expect("valid").target, None);
        assert_eq!(apply(r#"{"interval": 3600}"#, set.clone()).expect("valid").target, None);
        assert_eq!(apply(r#"{"timeout": 180000}"#, set).expect("valid").target, TargetShare::new(0.05));
    }

    #[test]
    fn an_invalid_value_is_named_with_its_field_and_the_remedy() {
        for (body, sentence) in [
            (r#""first_scan_at": "2020-01-01T00:00:00Z""#, "first_scan_at 2020-01-01T00:00:00Z is past; give"),
            (r#""interval": 2147483648"#, "interval 2147483648 is too long; give"),
            (r#""timeout": 7"#, "timeout 7 is too short; give"),
            (r#""scan_keys_count": 9"#, "scan_keys_count 9 is out of range; give"),
            (r#""below": 0.7"#, "below 0.7 is out of range; give a share from 0.001 to 0.5"),
            (r#""below": -0.1"#, "below -0.1 is out of range"),
        ] {
            let wrong = apply(&format!(r#"{{"enable_auto_scan": true, {body}}}"#), AutoScan::unset("i"));
            assert!(wrong.clone().is_err_and(|error| error.contains(sentence)), "{wrong:?}");
        }
    }
}

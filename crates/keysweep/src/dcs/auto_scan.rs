//! ShowExpireAutoScanConfig and UpdateExpireAutoScanConfig: the auto-scan settings of an instance.

use std::time::Duration;

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    DcsState, body,
    error::{DcsError, OnInstance},
    task_body::utc_millis,
};
use crate::{
    instances::{AutoScanFault, AutoScanUpdate, TargetUpdate},
    model::{AutoScan, Role},
};

/// Longest `first_scan_at` that is accepted, in bytes: nine decimals and an offset with seconds.
const LONGEST_TIME: usize = "2023-07-07T15:00:05.000000000+00:00:00".len();

/// Auto-scan settings to save.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents the body, which is parsed field by field: each has an error code of its own")]
pub struct AutoScanConfigBody {
    enable_auto_scan: bool,
    /// In the future, or the stored value. UTC where no offset is given; answers repeat the text as it was sent.
    #[schema(example = "2030-01-31T02:00:00.000Z")]
    first_scan_at: Option<String>,
    /// Seconds between due times; 0: start again after the last run has finished.
    interval: Option<u64>,
    /// Longest duration of a run in seconds: at least twice the interval and more than one.
    timeout: Option<u64>,
    /// Keys every 5 ms: 10–100000.
    scan_keys_count: Option<u32>,
}

/// Auto-scan settings. Fields without a value are left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct AutoScanConfig {
    instance_id: String,
    enable_auto_scan: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_scan_at: Option<String>,
    /// Seconds between due times; 0: start again after the last run has finished.
    interval: u64,
    /// Longest duration of a run in seconds.
    timeout: u64,
    /// Keys every 5 ms.
    scan_keys_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

impl AutoScanConfig {
    fn new(config: &AutoScan) -> Self {
        Self {
            instance_id: config.instance_id.clone(),
            enable_auto_scan: config.enabled,
            first_scan_at: config.first_scan_text.clone().or_else(|| config.first_scan_at.map(utc_millis)),
            interval: config.interval.as_secs(),
            timeout: config.timeout.as_secs(),
            scan_keys_count: config.scan_keys_count,
            updated_at: (config.updated_at > Timestamp::UNIX_EPOCH).then(|| utc_millis(config.updated_at)),
        }
    }
}

/// Show the auto-scan settings of an instance
#[utoipa::path(
    get, path = "/v2/{project_id}/instances/{instance_id}/scan-expire-keys/autoscan-config", tag = "DCS v2", operation_id = "ShowExpireAutoScanConfig",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")),
    responses((status = 200, body = AutoScanConfig), OnInstance)
)]
pub(super) async fn show(State(state): State<DcsState>, request: Request) -> Result<Json<AutoScanConfig>, DcsError> {
    let (_, instance) = state.authorize_instance(request, Role::Reader).await?;
    let saved = state.instances.auto_scan(&instance).await?;
    let config = saved.unwrap_or_else(|| AutoScan::unset(&instance.id));
    Ok(Json(AutoScanConfig::new(&config)))
}

/// Change the auto-scan settings of an instance
#[utoipa::path(
    put, path = "/v2/{project_id}/instances/{instance_id}/scan-expire-keys/autoscan-config", tag = "DCS v2", operation_id = "UpdateExpireAutoScanConfig",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID")), request_body = AutoScanConfigBody,
    responses((status = 200, body = AutoScanConfig), OnInstance)
)]
pub(super) async fn update(State(state): State<DcsState>, request: Request) -> Result<Json<AutoScanConfig>, DcsError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Operator).await?;
    let wanted = body::object(&authorized.body)?;
    let actor = authorized.caller.name.as_deref();
    let saved = state.instances.set_auto_scan(&instance, actor, |before| parse(&wanted, before, Timestamp::now()));
    Ok(Json(AutoScanConfig::new(&saved.await?)))
}

/// Parses a request into the settings to save. Of several invalid values the error names the first in documented order.
fn parse(wanted: &Map<String, Value>, before: AutoScan, now: Timestamp) -> Result<AutoScan, DcsError> {
    let enabled =
        wanted.get("enable_auto_scan").and_then(Value::as_bool).ok_or(DcsError::Parameter("enable_auto_scan"))?;
    let count = wanted.get("scan_keys_count").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
    let first_scan_text = wanted.get("first_scan_at").and_then(Value::as_str);
    let wish = AutoScanUpdate {
        enabled,
        first_scan_at: first_scan_text.and_then(time),
        first_scan_text: first_scan_text.map(str::to_owned),
        interval: seconds(wanted.get("interval")),
        timeout: seconds(wanted.get("timeout")),
        scan_keys_count: count,
        target: TargetUpdate::Unknown,
    };
    wish.check(before, now).map_err(|faults| match faults.first() {
        Some(AutoScanFault::FirstScanAt) => DcsError::FirstScanAt,
        Some(AutoScanFault::Interval) => DcsError::Interval,
        Some(AutoScanFault::Timeout) => DcsError::Timeout,
        Some(AutoScanFault::ScanKeysCount) => DcsError::ScanKeysCount,
        Some(AutoScanFault::Target) | None => DcsError::Internal(None),
    })
}

fn seconds(value: Option<&Value>) -> Option<Duration> {
    Some(Duration::from_secs(value?.as_u64()?))
}

/// Parses `2023-07-07T15:00:05.000`, optionally followed by Z, z or an offset, as UTC where it has none.
fn time(text: &str) -> Option<Timestamp> {
    let (_, clock) = text.split_once('T')?;
    // The parser accepts the names of time zones, too. A text without them is short, and the store keeps it.
    if text.len() > LONGEST_TIME || !clock.chars().all(|one| one.is_ascii_digit() || ":.+-Zz".contains(one)) {
        return None;
    }
    match clock.contains(['Z', 'z', '+', '-']) {
        true => text.parse().ok(),
        false => format!("{text}Z").parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T08:00:00Z".parse().expect("a time")
    }

    fn wanted() -> Map<String, Value> {
        let value = json!({
            "enable_auto_scan": true, "first_scan_at": "2026-11-24T09:00:00.000Z", "interval": 3600, "timeout": 7200,
            "scan_keys_count": 1000,
        });
        value.as_object().expect("an object").clone()
    }

    fn with(name: &str, value: Value) -> Map<String, Value> {
        let mut wanted = wanted();
        match value {
            Value::Null => drop(wanted.remove(name)),
            value => drop(wanted.insert(name.into(), value)),
        }
        wanted
    }

    fn code(wanted: &Map<String, Value>) -> Option<&'static str> {
        parse(wanted, AutoScan::unset("i"), now()).err().map(|error| error.code())
    }

    #[rstest]
    #[case("2026-11-24T09:00:00.000", true)]
    #[case("2026-11-24T09:00:00.000Z", true)]
    #[case("2026-11-24T09:00:00.000z", true)]
    #[case("2026-11-24T09:00:00Z", true)]
    #[case::now_is_not_later("2026-11-24T08:00:00Z", false)]
    #[case::past("2026-11-24T07:59:59.999Z", false)]
    #[case::a_date("2026-11-25", false)]
    #[case::utc_as_an_offset("2026-11-24T09:00:00.000+00:00", true)]
    #[case::another_offset("2026-11-24T17:00:00.000+08:00", true)]
    #[case::an_offset_that_makes_it_past("2026-11-24T09:00:00+08:00", false)]
    #[case::an_offset_behind_utc("2026-11-24T04:00:00-0500", true)]
    #[case::a_zone("2026-11-24T19:00:00+08:00[Asia/Shanghai]", false)]
    #[case::two_zones("2026-11-24T19:00:00+08:00Z", false)]
    #[case::no_such_day("2026-11-31T09:00:00Z", false)]
    #[case::words("tomorrow", false)]
    #[case::empty("", false)]
    fn a_first_time_is_in_the_future_and_utc_without_an_offset(#[case] text: &str, #[case] good: bool) {
        assert_eq!(code(&with("first_scan_at", json!(text))), (!good).then_some("DCS.4819"), "{text}");
    }

    #[rstest]
    #[case("enable_auto_scan", json!("true"), "DCS.4800")]
    #[case("enable_auto_scan", Value::Null, "DCS.4800")]
    #[case("first_scan_at", Value::Null, "DCS.4819")]
    #[case("first_scan_at", json!(1_790_000_000), "DCS.4819")]
    #[case("interval", Value::Null, "DCS.4820")]
    #[case("interval", json!(-1), "DCS.4820")]
    #[case("interval", json!(2_147_483_648_u64), "DCS.4820")]
    #[case("timeout", Value::Null, "DCS.4821")]
    #[case("timeout", json!(7199), "DCS.4821")]
    #[case("scan_keys_count", Value::Null, "DCS.4822")]
    #[case("scan_keys_count", json!(9), "DCS.4822")]
    #[case("scan_keys_count", json!(100_001), "DCS.4822")]
    #[case("scan_keys_count", json!(10.5), "DCS.4822")]
    fn each_invalid_value_has_its_own_code(#[case] name: &str, #[case] value: Value, #[case] expected: &str) {
        assert_eq!(code(&with(name, value)), Some(expected));
    }

    #[test]
    fn of_several_invalid_values_the_first_in_documented_order_decides() {
        let mut wanted = with("scan_keys_count", json!(0));
        for (name, expected) in [("timeout", "DCS.4821"), ("interval", "DCS.4820"), ("first_scan_at", "DCS.4819")] {
            wanted.insert(name.into(), json!(-1));
            assert_eq!(code(&wanted), Some(expected));
        }
    }

    #[rstest]
    #[case(0, 1, false)]
    #[case(0, 2, true)]
    #[case(1, 2, true)]
    #[case(2, 3, false)]
    #[case(2, 4, true)]
    fn a_timeout_is_at_least_twice_the_interval_and_more_than_a_second(
        #[case] interval: u64,
        #[case] timeout: u64,
        #[case] good: bool,
    ) {
        let mut wanted = with("interval", json!(interval));
        wanted.insert("timeout".into(), json!(timeout));
        assert_eq!(code(&wanted).is_none(), good);
    }

    #[test]
    fn counts_that_the_real_service_accepts_are_accepted() {
        for count in [10, 1000, 20_000, 100_000] {
            assert_eq!(code(&with("scan_keys_count", json!(count))), None, "{count}");
        }
    }

    #[test]
    fn the_stored_first_time_may_be_sent_again_when_it_is_past() {
        let saved = parse(&wanted(), AutoScan::unset("i"), now()).expect("valid");
        let later: Timestamp = "2026-11-25T08:00:00Z".parse().expect("a time");
        let again = with("scan_keys_count", json!(20));
        assert_eq!(parse(&again, saved.clone(), later).expect("valid").scan_keys_count, 20);
        let moved = with("first_scan_at", json!("2026-11-24T09:00:00.001Z"));
        assert!(matches!(parse(&moved, saved, later), Err(DcsError::FirstScanAt)), "another past time is refused");
    }

    #[test]
    fn a_first_time_is_repeated_as_it_was_sent() {
        let saved = |text: &str| {
            let config = parse(&with("first_scan_at", json!(text)), AutoScan::unset("i"), now()).expect("valid");
            AutoScanConfig::new(&config).first_scan_at
        };
        for text in ["2026-11-24T09:00:05.000z", "2026-11-24T09:00:05", "2026-11-24T17:00:05+08:00"] {
            assert_eq!(saved(text).as_deref(), Some(text));
        }
        let elsewhere = AutoScan { first_scan_at: Some(now()), ..AutoScan::unset("i") };
        assert_eq!(AutoScanConfig::new(&elsewhere).first_scan_at.as_deref(), Some("2026-11-24T08:00:00.000Z"));
    }

    #[test]
    fn disabling_validates_nothing_and_saves_the_valid_values() {
        let before = parse(&wanted(), AutoScan::unset("i"), now()).expect("valid");
        let off = json!({ "enable_auto_scan": false, "first_scan_at": "2020-01-01T00:00:00.000Z", "interval": -5,
                          "timeout": "x", "scan_keys_count": 50 });
        let saved = parse(off.as_object().expect("an object"), before, now()).expect("disabling always works");
        assert!(!saved.enabled);
        assert_eq!(saved.first_scan_at, Some("2020-01-01T00:00:00Z".parse().expect("a time")));
        assert_eq!((saved.interval, saved.timeout), (Duration::from_secs(3600), Duration::from_secs(7200)));
        assert_eq!(saved.scan_keys_count, 50);
    }
}

//! The form of an instance's auto-scan settings, with an error beside each invalid field.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{
    fields::Fields,
    format::{self, typed_duration},
};
use crate::{
    instances::{AutoScanFault, AutoScanUpdate, InstanceError, TargetUpdate},
    model::{AutoScan, Hold, TargetShare},
    units,
};

/// The form as shown: with typed or with saved values.
#[derive(Debug, Clone, Default)]
pub(super) struct AutoScanForm {
    pub(super) enabled: bool,
    /// UTC, in the format of browsers.
    pub(super) first_scan_at: String,
    pub(super) interval: String,
    pub(super) timeout: String,
    pub(super) scan_keys_count: String,
    /// Percent; empty: the interval is fixed.
    pub(super) below: String,
    pub(super) first_scan_at_error: &'static str,
    pub(super) interval_error: &'static str,
    pub(super) timeout_error: &'static str,
    pub(super) scan_keys_count_error: &'static str,
    pub(super) below_error: &'static str,
}

impl AutoScanForm {
    /// Returns the form with saved settings. Unless there are any, the first scan is proposed for the next full hour.
    pub(super) fn saved(config: &AutoScan, now: Timestamp) -> Self {
        let next_hour = Timestamp::from_second((now.as_second() / 3_600 + 1) * 3_600).unwrap_or(now);
        Self {
            enabled: config.enabled,
            first_scan_at: config.first_scan_at.unwrap_or(next_hour).strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            interval: typed_duration(config.interval),
            timeout: typed_duration(config.timeout),
            scan_keys_count: config.scan_keys_count.to_string(),
            below: config.target.map_or_else(String::new, |target| target.to_string()),
            ..Self::default()
        }
    }

    /// Returns the form as typed.
    pub(super) fn typed(form: &Fields) -> Self {
        Self {
            enabled: form.is_ticked("enabled"),
            first_scan_at: form.text("first_scan_at").to_owned(),
            interval: form.text("interval").to_owned(),
            timeout: form.text("timeout").to_owned(),
            scan_keys_count: form.text("scan_keys_count").to_owned(),
            below: form.text("below").to_owned(),
            ..Self::default()
        }
    }

    /// Returns the update that the form asks for. Its field shows whole seconds, so an unchanged first time means the saved
    /// one with its milliseconds.
    pub(super) fn update(&self, before: &AutoScan, now: Timestamp) -> AutoScanUpdate {
        let is_unchanged = self.first_scan_at == Self::saved(before, now).first_scan_at;
        let saved = before.first_scan_at.filter(|_| is_unchanged);
        AutoScanUpdate {
            enabled: self.enabled,
            first_scan_at: saved.or_else(|| utc_time(&self.first_scan_at)),
            first_scan_text: None,
            interval: seconds(&self.interval),
            timeout: seconds(&self.timeout),
            scan_keys_count: self.scan_keys_count.parse().ok(),
            target: target(&self.below),
        }
    }

    /// Adds an error beside each invalid field.
    pub(super) fn with_faults(mut self, faults: &[AutoScanFault]) -> Self {
        for fault in faults {
            match fault {
                AutoScanFault::FirstScanAt => {
                    self.first_scan_at_error = "Give a time in the future, in UTC, such as 2030-01-31T02:00.";
                }
                AutoScanFault::Interval => {
                    self.interval_error = "Write it as 24h, 90m or 1h 30m; 0 scans again one minute after the previous scan has finished.";
                }
                AutoScanFault::Timeout => {
                    self.timeout_error = "It must be at least twice the interval, and more than a second, such as 48h.";
                }
                AutoScanFault::ScanKeysCount => {
                    self.scan_keys_count_error = "Give a whole number from 10 to 100000.";
                }
                AutoScanFault::Target => {
                    self.below_error =
                        "Give a percentage from 0.1 to 50, such as 5%, or leave it empty for a fixed interval.";
                }
            }
        }
        self
    }

    /// Returns the name of the first field with an error, which takes the focus; empty: none has one.
    pub(super) fn first_fault(&self) -> &'static str {
        let fields = [
            ("first_scan_at", self.first_scan_at_error),
            ("interval", self.interval_error),
            ("below", self.below_error),
            ("timeout", self.timeout_error),
            ("scan_keys_count", self.scan_keys_count_error),
        ];
        fields.into_iter().find(|(_, error)| !error.is_empty()).map_or("", |(field, _)| field)
    }

    /// Returns a hint with the keys per second that the typed count allows.
    pub(super) fn rate(&self) -> String {
        let per_second = self.scan_keys_count.parse::<u64>().ok().and_then(|count| count.checked_mul(200));
        per_second.map_or_else(String::new, |rate| format!("= at most {} keys per second", format::count(rate)))
    }
}

/// Why auto-scan settings were not saved.
pub(super) enum Unsaved {
    /// Fields of the form are invalid.
    Faults(Vec<AutoScanFault>),
    Failed(InstanceError),
}

impl From<InstanceError> for Unsaved {
    fn from(error: InstanceError) -> Self {
        Self::Failed(error)
    }
}

/// Returns what an adaptive auto-scan does now, a sentence; `None`: its interval is fixed, or it is disabled.
pub(super) fn describe(config: &AutoScan) -> Option<AdaptiveView> {
    let adaptive = config.adaptive().filter(|_| config.enabled)?;
    let every = format::seconds(adaptive.interval.as_secs_f64());
    let target = adaptive.target;
    let text = match (adaptive.hold, adaptive.expected_share) {
        (Hold::CannotHold, Some(share)) => format!(
            "{target} cannot be held by scanning: a scan takes too long for how fast stale keys gather. A scan every {every} \
             keeps a mean of about {}. Raise the pace, the keys per 5 ms or the server's active-expire-effort.",
            format::percent(share)
        ),
        (_, Some(share)) => {
            format!("A scan every {every} keeps a mean stale share of about {}.", format::percent(share))
        }
        (_, None) => format!("The interval is {every} until scans have measured how fast stale keys gather."),
    };
    Some(AdaptiveView { is_held: adaptive.hold != Hold::CannotHold, text })
}

/// State of an adaptive auto-scan.
pub(super) struct AdaptiveView {
    pub(super) is_held: bool,
    pub(super) text: String,
}

/// Reads `5%` or `5`; nothing is a fixed interval.
fn target(text: &str) -> TargetUpdate {
    match text.trim() {
        "" => TargetUpdate::Set(None),
        percent => match units::percent(percent).and_then(TargetShare::new) {
            Some(target) => TargetUpdate::Set(Some(target)),
            None => TargetUpdate::Invalid,
        },
    }
}

fn seconds(text: &str) -> Option<Duration> {
    units::seconds(text).ok().map(Duration::from_secs)
}

/// Parses `2026-11-24T15:00`, with or without seconds, as UTC.
fn utc_time(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_form_keeps_the_saved_settings() {
        let now: Timestamp = "2026-11-24T15:00:00Z".parse().expect("a time");
        let saved = AutoScan {
            enabled: true,
            first_scan_at: Some("2026-11-20T02:00:00.123Z".parse().expect("a time")),
            first_scan_text: Some("2026-11-20T02:00:00.123z".into()),
            target: TargetShare::new(0.025),
            ..AutoScan::unset("i")
        };
        let update = AutoScanForm::saved(&saved, now).update(&saved, now);
        assert_eq!(update.check(saved.clone(), now).expect("valid, although its time is past"), saved);
    }

    #[test]
    fn every_fault_is_shown_beside_its_field() {
        let now: Timestamp = "2026-11-24T15:00:00Z".parse().expect("a time");
        let form = AutoScanForm {
            enabled: true,
            first_scan_at: "2020-01-01T00:00".into(),
            interval: "often".into(),
            timeout: "0".into(),
            scan_keys_count: "9".into(),
            below: "all".into(),
            ..AutoScanForm::default()
        };
        let unset = AutoScan::unset("i");
        let faults = form.update(&unset, now).check(unset, now).expect_err("faults");
        let form = form.with_faults(&faults);
        assert_eq!(form.first_fault(), "first_scan_at", "the first one takes the focus");
        let AutoScanForm { first_scan_at_error, interval_error, timeout_error, .. } = form;
        let errors = [first_scan_at_error, interval_error, timeout_error, form.scan_keys_count_error, form.below_error];
        assert!(errors.iter().all(|error| !error.is_empty()), "{errors:?}");
    }
}

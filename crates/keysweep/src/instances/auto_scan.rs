//! Auto-scan settings: which values are valid, and setting them.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{InstanceError, Instances, error::gone};
use crate::{
    model::{AutoScan, Instance, TargetShare, now},
    store::StoreError,
};

/// Keys every 5 ms. DCS documents at most 1000, and accepts more.
const SCAN_KEYS_COUNT: std::ops::RangeInclusive<u32> = 10..=100_000;
/// Clients read durations into 32 bits.
const MAX_DURATION: Duration = Duration::from_secs(i32::MAX as u64);
/// How often a change is tried that changes of other replicas overtake.
const ATTEMPTS: u32 = 5;

/// Auto-scan settings as a client sends them; `None`: not given, or not readable.
#[derive(Debug, Clone, Default)]
pub struct AutoScanUpdate {
    /// Whether scheduled scans run.
    pub enabled: bool,
    /// When the first run is due.
    pub first_scan_at: Option<Timestamp>,
    /// The same as the client wrote it, to be read back so; `None`: the text does not matter.
    pub first_scan_text: Option<String>,
    /// Interval between due times; zero: a minute after the previous scan finished.
    pub interval: Option<Duration>,
    /// Running time that each run may use.
    pub timeout: Option<Duration>,
    /// Keys scanned every 5 ms at most.
    pub scan_keys_count: Option<u32>,
    /// The mean stale share to keep.
    pub target: TargetUpdate,
}

/// What becomes of the mean stale share to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TargetUpdate {
    /// The client does not know of it, as clients of DCS do not. A new interval is meant to apply, and ends the target.
    #[default]
    Unknown,
    /// The share to keep; `None`: the interval is fixed.
    Set(Option<TargetShare>),
    /// Not a share within the range.
    Invalid,
}

/// A missing or invalid value of auto-scan settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoScanFault {
    /// Must be in the future, or the stored time again.
    FirstScanAt,
    /// Must fit into 32 bits of seconds.
    Interval,
    /// Must be at least twice the interval, and more than a second.
    Timeout,
    /// Must be 10 to 100,000.
    ScanKeysCount,
    /// Must be a share within the range.
    Target,
}

impl AutoScanUpdate {
    /// Returns the settings to store in place of `before`, or what is wrong, in the order of the documentation.
    ///
    /// An update that enables the auto-scan must have all four values of DCS, and valid ones. One that disables it may carry
    /// anything: valid values are stored, the others stay as they were.
    pub fn check(self, before: AutoScan, now: Timestamp) -> Result<AutoScan, Vec<AutoScanFault>> {
        let enabled = self.enabled;
        // A client for which the text does not matter leaves another's text as it is, as long as the time is the same.
        let is_same_time = self.first_scan_at.is_none() || self.first_scan_at == before.first_scan_at;
        let kept_text = before.first_scan_text.clone().filter(|_| is_same_time);
        let first_scan_text = self.first_scan_text.filter(|_| self.first_scan_at.is_some()).or(kept_text);
        let interval = self.interval.filter(|interval| *interval <= MAX_DURATION);
        let timeout = self.timeout.filter(|timeout| *timeout <= MAX_DURATION);
        let count = self.scan_keys_count.filter(|count| SCAN_KEYS_COUNT.contains(count));
        let target = match self.target {
            TargetUpdate::Set(target) => Some(target),
            TargetUpdate::Unknown => Some(before.target.filter(|_| interval.is_none_or(|new| new == before.interval))),
            TargetUpdate::Invalid => None,
        };
        if !enabled {
            return Ok(AutoScan {
                enabled,
                first_scan_at: self.first_scan_at.or(before.first_scan_at),
                first_scan_text,
                interval: interval.unwrap_or(before.interval),
                timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(before.timeout),
                scan_keys_count: count.unwrap_or(before.scan_keys_count),
                target: target.unwrap_or(before.target),
                ..before
            });
        }
        // Clients that change another value send the stored time again, in milliseconds, even when it is past.
        let stored = before.first_scan_at.map(Timestamp::as_millisecond);
        let first_scan_at = self.first_scan_at.filter(|time| *time > now || stored == Some(time.as_millisecond()));
        let least = interval.unwrap_or_default() * 2;
        let timeout = timeout.filter(|timeout| *timeout >= least && *timeout > Duration::from_secs(1));
        match (first_scan_at, interval, timeout, count, target) {
            (Some(_), Some(interval), Some(timeout), Some(scan_keys_count), Some(target)) => Ok(AutoScan {
                enabled,
                first_scan_at,
                first_scan_text,
                interval,
                timeout,
                scan_keys_count,
                target,
                ..before
            }),
            _ => {
                let faults = [
                    (first_scan_at.is_none(), AutoScanFault::FirstScanAt),
                    (interval.is_none(), AutoScanFault::Interval),
                    (timeout.is_none(), AutoScanFault::Timeout),
                    (count.is_none(), AutoScanFault::ScanKeysCount),
                    (target.is_none(), AutoScanFault::Target),
                ];
                Err(faults.into_iter().filter(|(is_invalid, _)| *is_invalid).map(|(_, fault)| fault).collect())
            }
        }
    }
}

impl Instances {
    /// Returns an instance's auto-scan settings, if any were saved.
    pub async fn auto_scan(&self, instance: &Instance) -> Result<Option<AutoScan>, InstanceError> {
        Ok(self.store.auto_scan(&instance.id).await?)
    }

    /// Returns the saved auto-scan settings of several instances.
    pub async fn auto_scans(&self, instances: &[Instance]) -> Result<Vec<AutoScan>, InstanceError> {
        let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
        Ok(self.store.auto_scans(&ids).await?)
    }

    /// Sets an instance's auto-scan to what `update` returns for the settings so far, and returns what is stored.
    ///
    /// `update` is called again with newer settings when another client has changed them meanwhile. `Unsupported`: the
    /// auto-scan of a server that cannot be scanned cannot be enabled. `Gone`: the instance was removed meanwhile.
    pub async fn set_auto_scan<E: From<InstanceError>>(
        &self,
        instance: &Instance,
        actor: Option<&str>,
        update: impl Fn(AutoScan) -> Result<AutoScan, E>,
    ) -> Result<AutoScan, E> {
        let busy = || InstanceError::Store(StoreError::Busy);
        let _turn = self.changes.turn(&instance.id).await.ok_or_else(busy)?;
        for _ in 0..ATTEMPTS {
            let before = self.auto_scan(instance).await?;
            let config = update(before.clone().unwrap_or_else(|| AutoScan::unset(&instance.id)))?;
            if let (true, Some(cause)) = (config.enabled, instance.unsupported()) {
                return Err(InstanceError::Unsupported { name: instance.name.clone(), cause }.into());
            }
            let config = AutoScan { instance_id: instance.id.clone(), updated_at: now(), ..config };
            let detail = json!({
                "enabled": config.enabled,
                "first_scan_at": config.first_scan_at,
                "interval_seconds": config.interval.as_secs(),
                "timeout_seconds": config.timeout.as_secs(),
                "scan_keys_count": config.scan_keys_count,
                "below": config.target.map(TargetShare::share),
            });
            let store = self.audited(instance, actor, "auto_scan.set", &detail);
            if let Some(stored) = store.set_auto_scan(before.as_ref(), &config).await.map_err(gone)? {
                return Ok(stored);
            }
        }
        Err(busy().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_know_the_target_keeps_it_unless_it_sets_another_interval() {
        let target = TargetShare::new(0.05);
        let before = AutoScan { target, ..AutoScan::unset("i") };
        let now = Timestamp::UNIX_EPOCH;
        let update = |enabled, hours: u64, target| AutoScanUpdate {
            enabled,
            first_scan_at: "2030-01-01T00:00:00Z".parse().ok(),
            interval: Some(Duration::from_secs(hours * 3_600)),
            timeout: Some(Duration::from_secs(172_800)),
            scan_keys_count: Some(10),
            target,
            ..AutoScanUpdate::default()
        };
        let other = TargetShare::new(0.1);
        for enabled in [true, false] {
            for (hours, update_of_target, expected) in [
                (24, TargetUpdate::Unknown, target),
                (12, TargetUpdate::Unknown, None),
                (12, TargetUpdate::Set(other), other),
                (24, TargetUpdate::Set(None), None),
            ] {
                let saved = update(enabled, hours, update_of_target).check(before.clone(), now).expect("valid");
                assert_eq!(saved.target, expected, "{enabled}, {hours}, {update_of_target:?}");
            }
        }
        let faults = update(true, 24, TargetUpdate::Invalid).check(before.clone(), now).expect_err("out of range");
        assert_eq!(faults, [AutoScanFault::Target]);
        let off = update(false, 24, TargetUpdate::Invalid).check(before, now).expect("disabling always works");
        assert_eq!(off.target, target);
    }
}

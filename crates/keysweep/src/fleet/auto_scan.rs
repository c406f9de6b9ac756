//! How instances are swept by themselves: what is kept, and what holds before anybody has said anything.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{Deed, Fleet, FleetError, now};
use crate::model::{AutoScan, Instance};

/// As DCS documents it, for an instance that nobody has configured.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(86_400);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(172_800);
const DEFAULT_SCAN_KEYS_COUNT: u32 = 10;

/// Keys every 5 ms. DCS documents at most 1000, and takes more.
const SCAN_KEYS_COUNT: std::ops::RangeInclusive<u32> = 10..=100_000;
/// Clients read durations into 32 bits.
const LONGEST: Duration = Duration::from_secs(i32::MAX as u64);

/// How an instance is to be swept by itself, as somebody asks for it; `None`: not given, or not readable.
#[derive(Debug, Clone, Default)]
pub struct AutoScanWish {
    /// Whether it is.
    pub enabled: bool,
    /// When the first run is due.
    pub first_scan_at: Option<Timestamp>,
    /// From one due time to the next; zero: again after the last has ended.
    pub interval: Option<Duration>,
    /// Running time that each run may use.
    pub timeout: Option<Duration>,
    /// Keys every 5 ms.
    pub scan_keys_count: Option<u32>,
}

/// A value that an auto-scan cannot have, or lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoScanFault {
    /// It must be in the future, or the stored one again.
    FirstScanAt,
    /// It must fit into 32 bits of seconds.
    Interval,
    /// It must be at least twice the interval, and more than a second.
    Timeout,
    /// It must be 10 to 100,000.
    ScanKeysCount,
}

impl AutoScanWish {
    /// What is to be kept of it, or what stands in the way, in the order of the documentation.
    ///
    /// Who enables must give all four values, and good ones. Who disables may send whatever was there before: what is good
    /// of it is kept, the rest stays as it was.
    pub fn check(self, before: AutoScan, now: Timestamp) -> Result<AutoScan, Vec<AutoScanFault>> {
        let enabled = self.enabled;
        let interval = self.interval.filter(|interval| *interval <= LONGEST);
        let timeout = self.timeout.filter(|timeout| *timeout <= LONGEST);
        let count = self.scan_keys_count.filter(|count| SCAN_KEYS_COUNT.contains(count));
        if !enabled {
            return Ok(AutoScan {
                enabled,
                first_scan_at: self.first_scan_at.or(before.first_scan_at),
                interval: interval.unwrap_or(before.interval),
                timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(before.timeout),
                scan_keys_count: count.unwrap_or(before.scan_keys_count),
                ..before
            });
        }
        // Clients that change another value send the stored time again, past as it may be by then, and in milliseconds.
        let stored = before.first_scan_at.map(Timestamp::as_millisecond);
        let first_scan_at = self.first_scan_at.filter(|time| *time > now || stored == Some(time.as_millisecond()));
        let least = interval.unwrap_or_default() * 2;
        let timeout = timeout.filter(|timeout| *timeout >= least && *timeout > Duration::from_secs(1));
        match (first_scan_at, interval, timeout, count) {
            (Some(_), Some(interval), Some(timeout), Some(scan_keys_count)) => {
                Ok(AutoScan { enabled, first_scan_at, interval, timeout, scan_keys_count, ..before })
            }
            _ => {
                let faults = [
                    (first_scan_at.is_none(), AutoScanFault::FirstScanAt),
                    (interval.is_none(), AutoScanFault::Interval),
                    (timeout.is_none(), AutoScanFault::Timeout),
                    (count.is_none(), AutoScanFault::ScanKeysCount),
                ];
                Err(faults.into_iter().filter(|(is_bad, _)| *is_bad).map(|(_, fault)| fault).collect())
            }
        }
    }
}

impl Fleet {
    /// How an instance is swept by itself. `None`: nobody has said yet, so it is not.
    pub async fn auto_scan(&self, instance: &Instance) -> Result<Option<AutoScan>, FleetError> {
        Ok(self.store.auto_scan(&instance.id).await?)
    }

    /// The same for several instances, without those of which nobody has said yet.
    pub async fn auto_scans(&self, instances: &[Instance]) -> Result<Vec<AutoScan>, FleetError> {
        let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
        Ok(self.store.auto_scans(&ids).await?)
    }

    /// Says how an instance is swept by itself: what `wanted` makes of what holds, or why it does not. Of two who do so at
    /// once the second is asked again, with what the first has said. Returns what is kept.
    pub async fn set_auto_scan<E: From<FleetError>>(
        &self,
        instance: &Instance,
        actor: Option<&str>,
        wanted: impl Fn(AutoScan) -> Result<AutoScan, E>,
    ) -> Result<AutoScan, E> {
        loop {
            let before = self.auto_scan(instance).await?;
            let config = wanted(before.clone().unwrap_or_else(|| AutoScan::unset(&instance.id)))?;
            let config = AutoScan { instance_id: instance.id.clone(), updated_at: now(), ..config };
            let deed =
                Deed { project_id: Some(&instance.project_id), actor, action: "auto_scan.set", subject: &instance.id };
            let detail = json!({
                "enabled": config.enabled,
                "first_scan_at": config.first_scan_at,
                "interval_seconds": config.interval.as_secs(),
                "timeout_seconds": config.timeout.as_secs(),
                "scan_keys_count": config.scan_keys_count,
            });
            let store = self.telling(deed, &detail);
            if let Some(kept) = store.set_auto_scan(before.as_ref(), &config).await.map_err(FleetError::from)? {
                return Ok(kept);
            }
        }
    }
}

impl AutoScan {
    /// What holds for an instance that nobody has configured: it is not swept by itself.
    pub fn unset(instance_id: &str) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            enabled: false,
            first_scan_at: None,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            scan_keys_count: DEFAULT_SCAN_KEYS_COUNT,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }
}

//! The auto-scan: the schedule of an instance.

use std::time::Duration;

use jiff::Timestamp;

use super::{Gathering, TargetShare};

/// What DCS documents for an instance whose auto-scan was never set.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(86_400);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(172_800);
const DEFAULT_SCAN_KEYS_COUNT: u32 = 10;

/// The auto-scan settings of an instance. At most one per instance.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoScan {
    /// Id of the instance.
    pub instance_id: String,
    /// Whether scheduled scans run.
    pub enabled: bool,
    /// When the first run is due; always set while enabled.
    pub first_scan_at: Option<Timestamp>,
    /// The same as a client of the DCS API wrote it, which is what such clients read back. `None`: no such client did.
    pub first_scan_text: Option<String>,
    /// Interval between due times; zero: a minute after the previous scan finished.
    pub interval: Duration,
    /// Running time that each run may use.
    pub timeout: Duration,
    /// Keys scanned every 5 ms at most.
    pub scan_keys_count: u32,
    /// Mean stale share to keep, for which the interval adapts; `None`: the interval is fixed.
    pub target: Option<TargetShare>,
    /// What scans have measured for an adaptive interval. Settings are saved without it.
    pub gathering: Option<Gathering>,
    /// When the settings were last changed.
    pub updated_at: Timestamp,
}

impl AutoScan {
    /// Returns the settings of an instance whose auto-scan was never set: disabled, with DCS's defaults.
    pub fn unset(instance_id: &str) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            enabled: false,
            first_scan_at: None,
            first_scan_text: None,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            scan_keys_count: DEFAULT_SCAN_KEYS_COUNT,
            target: None,
            gathering: None,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }
}

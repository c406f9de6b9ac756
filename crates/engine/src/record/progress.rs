//! The progress of a running sweep, as monitors receive it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::target::{Address, address_or_empty};

/// Returns the time that is left when `done` of the work (0–1) is done, of which `before` was done before `elapsed` began.
///
/// `None` while too little is done for an estimate.
pub fn eta(elapsed: Duration, before: f64, done: f64) -> Option<Duration> {
    let (gained, left) = (done - before, 1.0 - done);
    if gained < 1e-4 || elapsed < Duration::from_millis(200) {
        return None;
    }
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left.max(0.0) / gained).ok()
}

/// Progress of a running sweep.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Share of the work that is done, 0–1. Decreases only when a shard starts again.
    pub fraction: f64,
    /// Keys scanned so far.
    pub keys_scanned: u64,
    /// Expired keys reclaimed so far.
    #[serde(alias = "keys_released")]
    pub keys_reclaimed: u64,
    /// Whether `keys_reclaimed` is exact.
    pub exact: bool,
    /// Keys scanned a second, over the last seconds.
    pub keys_per_second: f64,
    /// Estimated seconds left.
    pub eta_seconds: Option<f64>,
    /// Seconds since this run of the sweep began.
    pub elapsed_seconds: f64,
    /// Each primary.
    pub shards: Vec<ShardProgress>,
}

/// What a shard is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardStatus {
    /// Its turn has not come yet, or it was interrupted and can be resumed.
    #[default]
    Waiting,
    /// Slices run on its primary.
    #[serde(alias = "sweeping")]
    Scanning,
    /// Its primary is lost and is being retried.
    Away,
    /// Every database was scanned.
    Done,
    /// It ended with a failure.
    Failed,
}

impl ShardStatus {
    /// Returns the word in progress and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Scanning => "scanning",
            Self::Away => "away",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// Progress of one primary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardProgress {
    /// The primary's address; `None` (an empty string in JSON) before the first connection.
    #[serde(with = "address_or_empty")]
    pub address: Option<Address>,
    /// What the shard is doing.
    pub state: ShardStatus,
    /// Share of its keys that is done, 0–1.
    pub fraction: f64,
    /// The database that is being scanned.
    pub database: Option<u32>,
    /// Keys scanned so far.
    pub keys_scanned: u64,
    /// Expired keys reclaimed so far.
    #[serde(alias = "keys_released")]
    pub keys_reclaimed: u64,
    /// Median time for which a slice blocked the server, seconds.
    pub slice_p50_seconds: f64,
    /// Keys scanned a second, over the last seconds; 0 while the shard is not scanning. Missing in early versions.
    #[serde(default)]
    pub keys_per_second: f64,
    /// Estimated seconds left, at that rate. Missing in early versions.
    #[serde(default)]
    pub eta_seconds: Option<f64>,
    /// The p90 of a PING between slices, seconds; `None` before the first. Missing in early versions.
    #[serde(default)]
    pub probe_p90_seconds: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_work_of_this_run() {
        let second = Duration::from_secs(1);
        assert_eq!(eta(10 * second, 0.0, 0.5), Some(10 * second));
        assert_eq!(eta(10 * second, 0.5, 0.75), Some(10 * second));
        assert_eq!(eta(10 * second, 0.0, 1.0), Some(Duration::ZERO));
        assert_eq!(eta(10 * second, 0.3, 0.3), None);
    }

    #[test]
    fn a_status_is_written_as_it_is_displayed() {
        for status in
            [ShardStatus::Waiting, ShardStatus::Scanning, ShardStatus::Away, ShardStatus::Done, ShardStatus::Failed]
        {
            assert_eq!(serde_json::to_value(status).expect("JSON"), status.as_str());
        }
    }

    #[test]
    fn a_scanning_shard_of_0_1_0_still_opens_and_is_written_with_the_new_name() {
        let status: ShardStatus = serde_json::from_str(r#""sweeping""#).expect("a status");
        assert_eq!((status, status.as_str()), (ShardStatus::Scanning, "scanning"));
    }
}

//! What a sweep did and what it cost the server. Sizes are bytes, times seconds, shares 0–1.

use serde::{Deserialize, Serialize};

use super::remaining::Remaining;
use crate::{
    failure::{Failure, FailureKind},
    target::{Address, address_or_empty},
};

/// How a sweep, or a shard of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every database was swept to the end.
    Done,
    /// Some was not; `reason` and `message` say why.
    Failed,
}

/// Result of a sweep, in total and for each shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was swept, without credentials.
    pub target: String,
    /// How the sweep ended.
    pub outcome: Outcome,
    /// Code of the failure.
    pub reason: Option<FailureKind>,
    /// Sentence of the failure, with its remedy.
    pub message: Option<String>,
    /// Name of the pace.
    pub pace: String,
    /// Totals over all shards: sums, but for `elapsed_seconds` (this run of the sweep), `cpu_share` and `probe_seconds`
    /// (the highest shard's) and `slice_seconds` (over all slices).
    #[serde(flatten)]
    pub totals: Totals,
    /// Findings that do not make the sweep a failure.
    pub warnings: Vec<String>,
    /// Each primary.
    pub shards: Vec<ShardReport>,
}

/// Part of a [`Report`] for one primary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardReport {
    /// The primary's address; `None` (an empty string in JSON) if it was never reached.
    #[serde(with = "address_or_empty")]
    pub address: Option<Address>,
    /// Run id of the server process, where the server reports it.
    pub run_id: Option<String>,
    /// Engine and version, for example `valkey 9.1.2`.
    pub server: Option<String>,
    /// How the shard ended.
    pub outcome: Outcome,
    /// Code of the failure.
    pub reason: Option<FailureKind>,
    /// Sentence of the failure, with its remedy.
    pub message: Option<String>,
    /// The databases that were swept.
    pub databases: Vec<u32>,
    /// Totals of the shard.
    #[serde(flatten)]
    pub totals: Totals,
}

/// The figures of a sweep or of one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Whether `keys_reclaimed` is exact.
    pub exact: bool,
    /// Keys scanned: returned by SCAN plus reclaimed.
    pub keys_scanned: u64,
    /// Expired keys reclaimed, by the DBSIZE differences.
    #[serde(alias = "keys_released")]
    pub keys_reclaimed: u64,
    /// Keys among `keys_scanned` that SCAN returned more than once, about: the last call of a chunk reaches beyond its end.
    #[serde(default)]
    pub keys_repeated: u64,
    /// `used_memory` before, bytes.
    pub used_memory_before: Option<u64>,
    /// `used_memory` after, bytes. May have grown: clients keep writing during a sweep.
    pub used_memory_after: Option<u64>,
    /// `used_memory_rss` before, bytes.
    pub rss_before: Option<u64>,
    /// `used_memory_rss` after, bytes. Allocators return memory late or never.
    pub rss_after: Option<u64>,
    /// Stale keys that are left after the scan; `None`: unknown.
    #[serde(default)]
    pub remaining: Option<Remaining>,
    /// Seconds from start to end of this run, without earlier runs of the same task.
    pub elapsed_seconds: f64,
    /// Seconds for which slices blocked the servers' main threads.
    pub server_seconds: f64,
    /// Seconds of CPU that the servers used meanwhile, for all clients.
    pub server_cpu_seconds: Option<f64>,
    /// `server_seconds` divided by `elapsed_seconds`, 0–1.
    #[serde(alias = "duty")]
    pub cpu_share: f64,
    /// Slices that were run.
    pub slices: u64,
    /// How long single slices blocked a server.
    pub slice_seconds: Quantiles,
    /// Latency of a PING between slices.
    pub probe_seconds: ProbeSeconds,
    /// How often the CPU limit was halved because latency or load rose.
    pub backoffs: u64,
    /// Seconds that the sweep was throttled, by reason.
    #[serde(alias = "held")]
    pub throttled: Throttled,
}

/// Latency as a client sees it, seconds. Missing where the sweep was too short to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeSeconds {
    /// The p90 before the first slice.
    pub baseline_p90: Option<f64>,
    /// The p90 over the whole sweep.
    pub during_p90: Option<f64>,
}

/// Seconds that a sweep was throttled, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Throttled {
    /// A replica lagged behind.
    pub replica_lag: f64,
    /// A replica that was attached at the start was missing or synchronising.
    pub replica_missing: f64,
    /// The server ran a background save.
    pub fork: f64,
    /// Expiry was paused.
    pub paused: f64,
}

impl std::ops::Add for Throttled {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            replica_lag: self.replica_lag + other.replica_lag,
            replica_missing: self.replica_missing + other.replica_missing,
            fork: self.fork + other.fork,
            paused: self.paused + other.paused,
        }
    }
}

/// A distribution in three numbers, seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// Returns the three outcome fields of a report.
pub(crate) fn outcome(failure: Option<&Failure>) -> (Outcome, Option<FailureKind>, Option<String>) {
    match failure {
        None => (Outcome::Done, None, None),
        Some(failure) => (Outcome::Failed, Some(failure.kind), Some(failure.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_0_1_0_still_opens_and_is_written_with_the_new_names() {
        let figures = r#""exact":true,"keys_scanned":9,"keys_released":4,"used_memory_before":1,"used_memory_after":2,
            "rss_before":3,"rss_after":4,"elapsed_seconds":1.5,"server_seconds":0.25,"server_cpu_seconds":0.5,"duty":0.2,
            "slices":3,"slice_seconds":{"p50":0.1,"p99":0.2,"max":0.3},
            "probe_seconds":{"baseline_p90":null,"during_p90":0.001},"backoffs":2,
            "held":{"replica_lag":0.0,"replica_missing":0.0,"fork":1.0,"paused":0.0}"#;
        let stored = format!(
            r#"{{"target":"redis://h:1","outcome":"done","reason":null,"message":null,"pace":"normal",{figures},"warnings":[],
            "shards":[{{"address":"h:1","run_id":null,"server":null,"outcome":"done","reason":null,"message":null,
            "databases":[0],{figures}}}]}}"#
        );
        let report: Report = serde_json::from_str(&stored).expect("a report");
        assert_eq!((report.totals.keys_reclaimed, report.totals.cpu_share), (4, 0.2));
        assert_eq!((report.totals.throttled.fork, report.shards[0].totals), (1.0, report.totals));
        let written = serde_json::to_value(&report).expect("JSON");
        assert_eq!((&written["keys_reclaimed"], &written["shards"][0]["throttled"]["fork"]), (&4.into(), &1.0.into()));
        assert_eq!(serde_json::from_value::<Report>(written).expect("a report"), report);
    }
}

//! What a sweep did and what it cost the server. Sizes are bytes, times seconds, shares 0–1.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, FailureKind};

/// How a sweep, or a shard of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every database was swept to the end.
    Done,
    /// Not so; `reason` and `message` say why.
    Failed,
}

/// The result of a sweep, in total and for each shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was swept, without credentials.
    pub target: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed: a code.
    pub reason: Option<FailureKind>,
    /// Why it failed: a sentence.
    pub message: Option<String>,
    /// Whether `keys_released` is exact.
    pub exact: bool,
    /// Keys looked at: returned plus released.
    pub keys_scanned: u64,
    /// Expired keys released, by the DBSIZE differences.
    pub keys_released: u64,
    /// `used_memory` of all shards before.
    pub used_memory_before: Option<u64>,
    /// `used_memory` of all shards after. Clients go on meanwhile, so that it may well have grown.
    pub used_memory_after: Option<u64>,
    /// `used_memory_rss` before.
    pub rss_before: Option<u64>,
    /// `used_memory_rss` after. Allocators give memory back late or never.
    pub rss_after: Option<u64>,
    /// Seconds from begin to end, without those of earlier workers.
    pub elapsed_seconds: f64,
    /// Seconds that the slices kept the servers' main threads.
    pub server_seconds: f64,
    /// Seconds of CPU that the servers used meanwhile, for us and for everybody else.
    pub server_cpu_seconds: Option<f64>,
    /// `server_seconds` by `elapsed_seconds`, of the shard that had the most of it.
    pub duty: f64,
    /// Name of the pace.
    pub pace: String,
    /// Slices that were run.
    pub slices: u64,
    /// How long single slices kept a server.
    pub slice_seconds: Quantiles,
    /// Latency of a PING between slices.
    pub probe_seconds: ProbeSeconds,
    /// How often the duty was halved because clients suffered.
    pub backoffs: u64,
    /// Seconds that the sweep held, by reason.
    pub held: Held,
    /// What was noticed on the way and does not make the sweep a failure.
    pub warnings: Vec<String>,
    /// Each primary.
    pub shards: Vec<ShardReport>,
}

/// Part of a [`Report`] for one primary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardReport {
    /// The primary's address.
    pub address: String,
    /// Its process, where it tells.
    pub run_id: Option<String>,
    /// Engine and version, for example `valkey 9.1.2`.
    pub server: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed: a code.
    pub reason: Option<FailureKind>,
    /// Why it failed: a sentence.
    pub message: Option<String>,
    /// The databases that were swept.
    pub databases: Vec<u32>,
    /// Whether `keys_released` is exact.
    pub exact: bool,
    /// Keys looked at.
    pub keys_scanned: u64,
    /// Expired keys released.
    pub keys_released: u64,
    /// `used_memory` before.
    pub used_memory_before: Option<u64>,
    /// `used_memory` after.
    pub used_memory_after: Option<u64>,
    /// `used_memory_rss` before.
    pub rss_before: Option<u64>,
    /// `used_memory_rss` after.
    pub rss_after: Option<u64>,
    /// Seconds from begin to end.
    pub elapsed_seconds: f64,
    /// Seconds that the slices kept the main thread.
    pub server_seconds: f64,
    /// Seconds of CPU that the server used meanwhile, for us and for everybody else.
    pub server_cpu_seconds: Option<f64>,
    /// `server_seconds` by `elapsed_seconds`.
    pub duty: f64,
    /// Slices that were run.
    pub slices: u64,
    /// How long single slices kept the server.
    pub slice_seconds: Quantiles,
    /// Latency of a PING between slices.
    pub probe_seconds: ProbeSeconds,
    /// How often the duty was halved because clients suffered.
    pub backoffs: u64,
    /// Seconds that the sweep held, by reason.
    pub held: Held,
}

/// Latency as a client sees it, seconds. Missing where the sweep was too short to tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeSeconds {
    /// The p90 before the first slice.
    pub baseline_p90: Option<f64>,
    /// The p90 over the whole sweep.
    pub during_p90: Option<f64>,
}

/// Seconds that a sweep held, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// A replica lagged behind.
    pub replica_lag: f64,
    /// A replica that was there at the start was missing or synchronising.
    pub replica_missing: f64,
    /// The server was saving or rewriting its log in a child process.
    pub fork: f64,
    /// Expiry was paused.
    pub paused: f64,
}

impl std::ops::Add for Held {
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
    /// Half of them were shorter.
    pub p50: f64,
    /// All but one in a hundred were shorter.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// The three outcome fields of a report.
pub(crate) fn outcome(failure: Option<&Failure>) -> (Outcome, Option<FailureKind>, Option<String>) {
    match failure {
        None => (Outcome::Done, None, None),
        Some(failure) => (Outcome::Failed, Some(failure.kind), Some(failure.message.clone())),
    }
}

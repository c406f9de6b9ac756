//! What one observation of a primary says. Everything that a server may refuse is optional.

use std::time::Duration;

use crate::stale::{CycleSetting, Reading};

/// One observation of a primary.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signals {
    /// Identity of the server process.
    pub run_id: String,
    /// Whether the node is a primary.
    pub is_primary: bool,
    /// Counters of expired keys; `None`: INFO is refused.
    pub reading: Option<Reading>,
    /// Keys, keys with a TTL and mean TTL of each database that holds keys.
    pub databases: Vec<(u64, u64, Option<Duration>)>,
    /// Databases that the server is configured with.
    pub configured_databases: u32,
    /// Settings of the cycle as CONFIG GET returns them; `None`: it is refused, or the server has no such setting.
    pub configured: Option<CycleSetting>,
    /// Cycles a second as INFO reports them, which differ from the setting with `dynamic-hz`.
    pub hz: Option<u32>,
    /// Seconds of the main thread that the cycle has taken since the server's start.
    pub cycle_seconds: Option<f64>,
    /// Cycles that have reached their time limit since the server's start.
    pub time_caps: Option<u64>,
    /// Whether a background save runs.
    pub is_saving: bool,
    /// Whether a replica is receiving a full copy.
    pub is_resyncing: bool,
    /// Replicas that are attached and in sync.
    pub replicas: usize,
    /// Whether expiry is paused, or a failover is under way.
    pub is_paused: bool,
    /// 90th percentile of the round trip of PINGs, seconds.
    pub probe: Option<f64>,
    /// Whether a scan of this primary runs.
    pub is_scanning: bool,
    /// Whether a scan of this primary waits for its turn.
    pub is_scan_queued: bool,
    /// Whether changes can be recorded and are this process's to make.
    pub may_write: bool,
    /// Whether the server's fast cycle keeps the share at its acceptable one (Redis after 8.4).
    pub is_capped: bool,
}

impl Signals {
    /// Returns the observation without numbers that are none.
    pub fn sane(mut self) -> Self {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
        self.cycle_seconds = finite(self.cycle_seconds);
        self.probe = finite(self.probe);
        self.reading = self.reading.filter(|reading| reading.at.is_finite());
        self.hz = self.hz.filter(|hz| *hz > 0);
        let is_possible =
            |setting: &CycleSetting| (1..=10).contains(&setting.effort) && (1..=500).contains(&setting.hz);
        self.configured = self.configured.filter(is_possible);
        self
    }

    /// Whether the server says who it is (INFO).
    pub fn is_informed(&self) -> bool {
        !self.run_id.is_empty() || self.is_primary || self.reading.is_some()
    }

    /// Returns the keys of all databases, and those with a TTL.
    pub fn keys(&self) -> (u64, u64) {
        self.databases
            .iter()
            .fold((0, 0), |(keys, ttl), database| (keys.saturating_add(database.0), ttl.saturating_add(database.1)))
    }
}

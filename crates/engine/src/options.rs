//! How to sweep: the limits of a pace, the named presets, and everything else that a caller may set.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{link::REPLY_TIMEOUT, record::Checkpoint, server::LazyFreeRegistry};

/// How far the presets let the p90 of a PING rise.
const GUARD: Duration = Duration::from_millis(1);

/// What a sweep may take of a primary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of the primary's main thread, 0–1.
    #[serde(alias = "duty")]
    pub max_cpu: f64,
    /// Longest time that one slice should block other clients.
    pub max_slice: Duration,
    /// How far the p90 of a PING may rise above the p90 before the sweep; beyond it the sweep backs off. `None`: no limit.
    pub guard: Option<Duration>,
    /// Keys scanned a second, at most; `None`: as many as `max_cpu` allows.
    pub keys_per_second: Option<u64>,
    /// Keys reclaimed a second, at most; `None`: no limit.
    #[serde(alias = "releases_per_second")]
    pub reclaims_per_second: Option<u64>,
}

/// A named set of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// 5 % of the main thread in slices of 100 µs, with backoff: for a server that is busy already.
    Gentle,
    /// 25 % in slices of 200 µs, with backoff.
    #[default]
    Normal,
    /// 50 % in slices of 500 µs, with backoff.
    Fast,
    /// The whole main thread in slices of 1 ms, without backoff: for a server without clients.
    Max,
}

impl Preset {
    /// All presets, the gentlest first.
    pub const ALL: [Self; 4] = [Self::Gentle, Self::Normal, Self::Fast, Self::Max];

    /// Returns the name on the command line, in the API and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gentle => "gentle",
            Self::Normal => "normal",
            Self::Fast => "fast",
            Self::Max => "max",
        }
    }

    /// Returns the limits of the preset.
    pub fn limits(self) -> Limits {
        let (max_cpu, micros, guard) = match self {
            Self::Gentle => (0.05, 100, Some(GUARD)),
            Self::Normal => (0.25, 200, Some(GUARD)),
            Self::Fast => (0.5, 500, Some(GUARD)),
            Self::Max => (1.0, 1000, None),
        };
        let max_slice = Duration::from_micros(micros);
        Limits { max_cpu, max_slice, guard, keys_per_second: None, reclaims_per_second: None }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.as_str() == name)
            .ok_or_else(|| format!("invalid pace {name:?}: expected gentle, normal, fast or max"))
    }
}

/// How to sweep.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the sweep may take of each primary.
    pub limits: Limits,
    /// Name of the pace for the report.
    pub pace: String,
    /// Primaries that are swept at a time.
    pub parallel: usize,
    /// Longest time that the sweep may run; `None`: no limit.
    pub timeout: Option<Duration>,
    /// How long to retry a server that was reached once and is lost.
    pub reconnect_timeout: Duration,
    /// How long to wait for a reply before the connection counts as lost.
    pub reply_timeout: Duration,
    /// Bytes that a replica may lag behind; beyond it the sweep is throttled.
    pub max_replica_lag: u64,
    /// Whether to wait during a background save: BGSAVE or an AOF rewrite in a child process.
    pub throttle_on_save: bool,
    /// How long to wait at most for background saves, and for a replica that is missing.
    pub throttle_limit: Duration,
    /// Where set, the sweep turns `lazyfree-lazy-expire` on while it runs, and records that in this registry.
    pub lazyfree: Option<Arc<dyn LazyFreeRegistry>>,
    /// Name of the connections in the servers' `CLIENT LIST`.
    pub client_name: String,
    /// Where an earlier run of the same sweep ended.
    pub checkpoint: Option<Checkpoint>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Preset::Normal.limits(),
            pace: Preset::Normal.to_string(),
            parallel: 2,
            timeout: None,
            reconnect_timeout: Duration::from_secs(30),
            reply_timeout: REPLY_TIMEOUT,
            max_replica_lag: 16 * 1024 * 1024,
            throttle_on_save: true,
            throttle_limit: Duration::from_secs(10 * 60),
            lazyfree: None,
            client_name: "keysweep".into(),
            checkpoint: None,
        }
    }
}

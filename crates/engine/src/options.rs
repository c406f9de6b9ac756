//! How to sweep: everything that a caller may set.

use std::{sync::Arc, time::Duration};

use crate::{
    limits::{Limits, Preset},
    link::REPLY_TIMEOUT,
    record::Checkpoint,
    server::LazyFreeRegistry,
};

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

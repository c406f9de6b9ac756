//! What to estimate, and how.

use std::{sync::Arc, time::Duration};

use super::{
    limit::SampleLimit,
    monitor::{Monitor, Step},
    report::Method,
    rights::KnownRights,
};
use crate::{
    limits::{Limits, Preset},
    link::{Info, Keyspace},
    server::ExpiredKeys,
    target::Target,
};

/// PINGs before the first slice, of which the shortest is the round trip of an idle connection.
pub(super) const BASELINE_PINGS: u32 = 5;

/// What to estimate, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method; `None`: a replica if there is one in sync, else a sample, or INFO if nothing may be reclaimed.
    pub method: Option<Method>,
    /// Slices of a sample, of which a database has ten at least, or slots to count.
    pub slices: u32,
    /// COUNT of each slice of a sample, at most: a twentieth of the keys of a database is visited.
    pub count: u32,
    /// Never reclaims a key.
    pub no_reclaim: bool,
    /// Limits of a count on a replica.
    pub limits: Limits,
    /// Keys that are counted on each replica, at most; beyond it a part of them stands for all.
    pub max_counted: u64,
    /// How long the expiry rate is measured, at least.
    pub observe: Duration,
    /// What the primaries had counted of their expiry before, in any order: the rate is measured since a minute ago or more, where
    /// such counters are known. Nothing but clients and the servers themselves may have removed expired keys since then.
    pub earlier: Vec<ExpiredKeys>,
    /// What earlier estimates have learned about the rights of a user. Estimates that share it ask once what a server logs.
    pub rights: KnownRights,
    /// Keeps the time between samples of a server; `None`: this is the only sample.
    pub samples: Option<Arc<dyn SampleLimit>>,
    /// Receives what the estimate is doing.
    pub monitor: Option<Arc<dyn Monitor>>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: None,
            slices: 100,
            count: 50,
            no_reclaim: false,
            limits: Preset::default().limits(),
            max_counted: 5_000_000,
            observe: Duration::from_secs(2),
            earlier: Vec::new(),
            rights: KnownRights::default(),
            samples: None,
            monitor: None,
        }
    }
}

impl Request {
    /// Reports a step.
    pub(super) fn report(&self, step: Step<'_>) {
        if let Some(monitor) = &self.monitor {
            monitor.step(step);
        }
    }

    /// Whether a primary may be sampled.
    pub(super) fn may_sample(&self) -> bool {
        matches!(self.method, None | Some(Method::Sample)) && !self.no_reclaim
    }
}

/// Returns the databases of a target that hold keys.
pub(super) fn databases(info: &Info, target: &Target) -> Vec<Keyspace> {
    info.keyspace().into_iter().filter(|line| target.database.is_none_or(|only| only == line.database)).collect()
}

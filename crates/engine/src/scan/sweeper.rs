//! What the sweep of one shard works with.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{permits::Permits, shard_map::ShardMap};
use crate::{
    limits::Limits,
    monitor::Monitor,
    options::Options,
    pacing::PrimaryProfile,
    record::{Shard, ShardState},
    stop::Stop,
    target::{Address, Target},
    topology::Connector,
};

/// Sweeps one shard.
pub(super) struct ShardSweeper<'a> {
    pub connector: Connector<'a>,
    pub options: &'a Options,
    pub monitor: &'a dyn Monitor,
    pub shard_map: &'a ShardMap<'a>,
    pub shard: &'a Shard,
    /// Limit of shards that are swept at a time.
    pub permits: &'a Permits,
    /// Sentences for the report's `warnings`.
    pub warnings: &'a Mutex<Vec<String>>,
    /// Whether the target was reached before, by this run or by the one that it resumes. A first connection that fails is
    /// not retried: the operator is waiting for the result and may have mistyped the target.
    pub ever_reached: bool,
    pub profile: PrimaryProfile,
}

impl ShardSweeper<'_> {
    /// Returns the limits for this primary. A limit of reclaims in the options overrides that of the pre-flight checks.
    pub fn limits(&self) -> Limits {
        let limits = self.options.limits;
        Limits { reclaims_per_second: limits.reclaims_per_second.or(self.profile.reclaims_cap()), ..limits }
    }

    /// Returns the target.
    pub fn target(&self) -> &Target {
        self.connector.target
    }

    /// Returns the last address of the primary, or the first one in the target.
    pub fn address(&self) -> Address {
        self.state().checkpoint.address.clone().unwrap_or_else(|| self.target().seed().clone())
    }

    /// Returns the stop of this shard.
    pub fn stop(&self) -> &Stop {
        self.connector.stop
    }

    /// Locks the shard's state.
    pub fn state(&self) -> MutexGuard<'_, ShardState> {
        self.shard.state()
    }

    /// Adds a warning to the report and passes it to the monitor, once for each sentence.
    pub fn warn(&self, sentence: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&sentence) {
            self.monitor.note(&sentence);
            warnings.push(sentence);
        }
    }
}

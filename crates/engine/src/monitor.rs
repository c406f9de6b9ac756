//! How the engine reports outward: one trait serves the terminal, the service and the tests.

use std::time::Duration;

use crate::record::{Checkpoint, Progress};

/// Receives the events of a sweep. Calls come from the sweep's own threads and must return quickly.
pub trait Monitor: Sync {
    /// Receives the progress and a checkpoint to resume from, about five times a second and once at the end.
    fn progress(&self, _progress: &Progress, _checkpoint: &Checkpoint) {}

    /// Receives the time for which a slice blocked a server, thousands of times a second.
    fn slice(&self, _cost: Duration) {}

    /// Receives the round trip of a PING between slices, up to fifty times a second and shard.
    fn probe(&self, _round_trip: Duration) {}

    /// Receives one sentence for the operator.
    fn note(&self, _sentence: &str) {}
}

/// Ignores all events.
impl Monitor for () {}

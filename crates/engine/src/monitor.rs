//! How the engine talks outward: one trait serves the terminal, the service and the tests.

use std::time::Duration;

use crate::{checkpoint::Checkpoint, progress::Progress};

/// Listens to a sweep. Calls come from the sweep's own threads and must return quickly.
pub trait Monitor: Sync {
    /// About five times a second, and once at the end: how far it is and where it could go on.
    fn progress(&self, _progress: &Progress, _checkpoint: &Checkpoint) {}

    /// Thousands of times a second: a slice that kept a server for `cost`.
    fn slice(&self, _cost: Duration) {}

    /// Up to fifty times a second a shard: a PING between slices, and how long its answer took.
    fn probe(&self, _round_trip: Duration) {}

    /// Something that an operator would want to know, in one sentence.
    fn note(&self, _sentence: &str) {}
}

/// A monitor that does not listen.
impl Monitor for () {}

//! The monitor of a scan on behalf of a task: keeps the latest progress, counts, and logs notes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keysweep_engine::{Checkpoint, Monitor, Progress};

use super::tracer::StartTimes;
use crate::metrics::{RunningScan, ScanCounts};

/// The latest progress and checkpoint of a scan. Clones share it.
#[derive(Default, Clone)]
pub(super) struct Latest(Arc<Mutex<Option<(Progress, Checkpoint)>>>);

impl Latest {
    pub(super) fn get(&self) -> Option<(Progress, Checkpoint)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, progress: &Progress, checkpoint: &Checkpoint) {
        let latest = Some((progress.clone(), checkpoint.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }
}

/// Monitors the scan of a task.
pub(super) struct Listener {
    pub(super) task_id: String,
    pub(super) latest: Latest,
    pub(super) counts: Arc<ScanCounts>,
    pub(super) started: StartTimes,
    /// Counts the scan as running for as long as its thread lives.
    pub(super) _running: RunningScan,
}

impl Monitor for Listener {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.started.observe(progress);
        self.counts.progress(checkpoint.keys_scanned, checkpoint.keys_reclaimed);
        self.latest.set(progress, checkpoint);
    }

    fn slice(&self, cost: Duration) {
        self.counts.slice(cost);
    }

    fn probe(&self, round_trip: Duration) {
        self.counts.probe(round_trip);
    }

    fn note(&self, sentence: &str) {
        tracing::warn!(task_id = self.task_id, "{sentence}");
    }
}

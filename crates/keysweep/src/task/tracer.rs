//! What a trace tells of a sweep: one span for the whole of it, and one below that for each primary.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use keysweep_engine::{Address, Progress, Report, ShardReport, ShardStatus};

use crate::{
    model::Task,
    telemetry::traces::{SpanId, Traces},
};

/// When a sweep began, and each of its shards.
#[derive(Clone)]
pub(super) struct Begun {
    sweep: SystemTime,
    shards: Arc<Mutex<HashMap<Option<Address>, SystemTime>>>,
}

impl Begun {
    /// A sweep that begins now.
    pub(super) fn now() -> Self {
        Self { sweep: SystemTime::now(), shards: Arc::default() }
    }

    /// Sees which shards have begun by now. The report says how long each took, and not when it began.
    pub(super) fn see(&self, progress: &Progress) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in progress.shards.iter().filter(|shard| shard.state != ShardStatus::Waiting) {
            if !shards.contains_key(&shard.address) {
                shards.insert(shard.address.clone(), SystemTime::now());
            }
        }
    }

    /// When the shard began: seen up to a tick late, so that it is put back where its end would lie in the future.
    fn of(&self, shard: &ShardReport, lasted: Duration) -> SystemTime {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = shards.get(&shard.address).copied().unwrap_or(self.sweep);
        let latest = SystemTime::now().checked_sub(lasted).unwrap_or(self.sweep);
        seen.min(latest).max(self.sweep)
    }
}

/// Writes the spans of one claimed task.
pub(super) struct Tracer {
    pub(super) traces: Traces,
    /// The span of the claim.
    pub(super) claimed: SpanId,
}

impl Tracer {
    /// A sweep has returned.
    pub(super) fn swept(&self, task: &Task, report: &Report, begun: &Begun) {
        let mut sweep = self.traces.begin(&task.id, self.claimed, "task.scan");
        sweep.at(begun.sweep, None);
        sweep.note("keysweep.instance.id", task.instance_id.as_str());
        sweep.note("keysweep.pace", report.pace.as_str());
        sweep.note("keysweep.keys.scanned", report.totals.keys_scanned);
        sweep.note("keysweep.keys.reclaimed", report.totals.keys_reclaimed);
        sweep.note("keysweep.exact", report.totals.exact);
        sweep.note("keysweep.cpu_share", report.totals.cpu_share);
        sweep.note("keysweep.backoffs", report.totals.backoffs);
        if let Some(message) = &report.message {
            sweep.fail(message.as_str());
        }
        for shard in &report.shards {
            let lasted = Duration::try_from_secs_f64(shard.totals.elapsed_seconds).unwrap_or_default();
            let mut span = self.traces.begin(&task.id, sweep.id(), "scan.shard");
            span.at(begun.of(shard, lasted), Some(lasted));
            let address = shard.address.as_ref().map(ToString::to_string).unwrap_or_default();
            span.note("server.address", address.as_str());
            span.note("keysweep.keys.scanned", shard.totals.keys_scanned);
            span.note("keysweep.keys.reclaimed", shard.totals.keys_reclaimed);
            span.note("keysweep.slices", shard.totals.slices);
            span.note("keysweep.server_seconds", shard.totals.server_seconds);
            if let Some(message) = &shard.message {
                span.fail(message.as_str());
            }
        }
    }
}

//! The spans of a scan: one for the whole of it, and one below it for each primary.

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

/// When a scan and each of its shards started.
#[derive(Clone)]
pub(super) struct StartTimes {
    scan: SystemTime,
    shards: Arc<Mutex<HashMap<Option<Address>, SystemTime>>>,
}

impl StartTimes {
    /// Returns the times of a scan that starts now.
    pub(super) fn now() -> Self {
        Self { scan: SystemTime::now(), shards: Arc::default() }
    }

    /// Notes which shards have started by now: the report says how long each took, but not when it started.
    pub(super) fn observe(&self, progress: &Progress) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in progress.shards.iter().filter(|shard| shard.state != ShardStatus::Waiting) {
            if !shards.contains_key(&shard.address) {
                shards.insert(shard.address.clone(), SystemTime::now());
            }
        }
    }

    /// Returns when a shard started. Noted up to a tick late, so it is moved back where the shard would end in the future.
    fn of(&self, shard: &ShardReport, lasted: Duration) -> SystemTime {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = shards.get(&shard.address).copied().unwrap_or(self.scan);
        let latest = SystemTime::now().checked_sub(lasted).unwrap_or(self.scan);
        seen.min(latest).max(self.scan)
    }
}

/// Writes the spans of one claimed task.
pub(super) struct Tracer {
    pub(super) traces: Traces,
    /// The span of the claim.
    pub(super) claimed: SpanId,
}

impl Tracer {
    /// Writes the spans of a scan that has returned.
    pub(super) fn scanned(&self, task: &Task, report: &Report, started: &StartTimes) {
        let mut sweep = self.traces.begin(&task.id, self.claimed, "task.scan");
        sweep.at(started.scan, None);
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
            span.at(started.of(shard, lasted), Some(lasted));
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

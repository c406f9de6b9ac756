//! The progress reporter: reads the state of all shards at regular intervals, and passes progress and checkpoint to the
//! monitor.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::shard_map::ShardMap;
use crate::{
    link::saturating_sum,
    monitor::Monitor,
    record::{Checkpoint, Progress, Shard, ShardCheckpoint, ShardStatus, VERSION, eta},
    target::Address,
};

/// Time between two reports of the progress.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Reports over which rates are averaged.
const RATE_REPORTS: usize = 15;

/// Reports the progress of one sweep.
pub(crate) struct ProgressReporter<'a> {
    shard_map: &'a ShardMap<'a>,
    pub started: Instant,
    /// The share that earlier runs had done: the time left follows from the work of this run.
    before: f64,
    /// The last reports, the oldest first.
    samples: Vec<Sample>,
}

/// The progress at one moment.
struct Sample {
    at: Instant,
    keys_scanned: u64,
    /// Keys scanned and share done of each shard, by its address.
    shards: HashMap<Option<Address>, (u64, f64)>,
}

impl Sample {
    fn new(progress: &Progress) -> Self {
        let shards = progress.shards.iter();
        let shards = shards.map(|shard| (shard.address.clone(), (shard.keys_scanned, shard.fraction))).collect();
        Self { at: Instant::now(), keys_scanned: progress.keys_scanned, shards }
    }
}

impl<'a> ProgressReporter<'a> {
    /// Returns a reporter that starts now.
    pub fn new(shard_map: &'a ShardMap<'a>) -> Self {
        let samples = Vec::with_capacity(RATE_REPORTS + 1);
        let mut reporter = Self { shard_map, started: Instant::now(), before: 0.0, samples };
        reporter.mark_start();
        reporter
    }

    /// Attributes the work that is done now to earlier runs.
    pub fn mark_start(&mut self) {
        self.before = fraction(&self.shard_map.shards());
    }

    /// Passes progress and checkpoint to the monitor.
    pub fn report(&mut self, monitor: &dyn Monitor) {
        let shards = self.shard_map.shards();
        let fraction = fraction(&shards);
        let (mut progresses, mut checkpoints) = (Vec::new(), Vec::new());
        for shard in &shards {
            let state = shard.state();
            progresses.push(state.progress());
            checkpoints.extend(Some(state.checkpoint()).filter(ShardCheckpoint::is_started));
        }
        let exact = self.shard_map.is_exact();
        let elapsed = self.started.elapsed();
        // A shard that started again has all its work ahead, whatever an earlier run had done.
        self.before = self.before.min(fraction);
        let keys_scanned = saturating_sum(progresses.iter().map(|shard| shard.keys_scanned));
        let keys_reclaimed = saturating_sum(progresses.iter().map(|shard| shard.keys_reclaimed));
        let mut progress = Progress {
            fraction,
            keys_scanned,
            keys_reclaimed,
            exact,
            keys_per_second: 0.0,
            eta_seconds: eta(elapsed, self.before, fraction).map(|left| left.as_secs_f64()),
            elapsed_seconds: elapsed.as_secs_f64(),
            shards: progresses,
        };
        self.add_rates(&mut progress);
        let checkpoint = Checkpoint { version: VERSION, keys_scanned, keys_reclaimed, exact, shards: checkpoints };
        monitor.progress(&progress, &checkpoint);
    }

    /// Adds the rates over the last reports, in total and for each shard.
    fn add_rates(&mut self, progress: &mut Progress) {
        self.samples.push(Sample::new(progress));
        if self.samples.len() > RATE_REPORTS {
            self.samples.remove(0);
        }
        let (Some(then), Some(now)) = (self.samples.first(), self.samples.last()) else { return };
        let since = now.at.duration_since(then.at);
        let rate = |now: u64, then: u64| match since.as_secs_f64() {
            0.0 => 0.0,
            seconds => now.saturating_sub(then) as f64 / seconds,
        };
        progress.keys_per_second = rate(progress.keys_scanned, then.keys_scanned);
        for shard in progress.shards.iter_mut().filter(|shard| shard.state == ShardStatus::Scanning) {
            // A shard that is newer than the oldest sample has no rate yet.
            let Some((keys_scanned, fraction)) = then.shards.get(&shard.address) else { continue };
            shard.keys_per_second = rate(shard.keys_scanned, *keys_scanned);
            shard.eta_seconds = eta(since, *fraction, shard.fraction).map(|left| left.as_secs_f64());
        }
    }
}

/// Returns the share of all shards' keys that is done, 0–1.
fn fraction(shards: &[Arc<Shard>]) -> f64 {
    let (mut done, mut all) = (0.0, 0.0);
    for shard in shards {
        let state = shard.state();
        let weight = state.weight();
        done += state.fraction() * weight;
        all += weight;
    }
    if all == 0.0 { 0.0 } else { done / all }
}

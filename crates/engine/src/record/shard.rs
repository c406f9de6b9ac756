//! State of one shard during a sweep. Written by its worker thread, read by the progress reporter.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{
    checkpoint::{DatabaseCheckpoint, ShardCheckpoint},
    order::{Order, Walk},
    progress::{ShardProgress, ShardStatus},
    remaining::{Counters, Living, Remaining, remaining},
    report::{ProbeSeconds, Quantiles, ShardReport, Throttled, Totals, outcome},
    tally::Pass,
};
use crate::{
    failure::{Failure, FailureKind},
    link::SliceReply,
    stop::Stop,
    topology::SlotSet,
};

/// Handle of one shard: its state, shared between threads, and the stop that cancels it alone.
pub(crate) struct Shard {
    pub stop: Stop,
    state: Mutex<ShardState>,
}

impl Shard {
    /// Returns a shard that resumes from `checkpoint`.
    pub fn new(checkpoint: ShardCheckpoint, stop: &Stop) -> Arc<Self> {
        let mut state = ShardState::new(checkpoint);
        state.slots_at_start = state.checkpoint.covered.clone();
        Arc::new(Self { stop: stop.child(), state: Mutex::new(state) })
    }

    /// Locks the state.
    pub fn state(&self) -> MutexGuard<'_, ShardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails the shard because of a fault of keysweep itself.
    pub fn fail(&self, message: String) {
        self.state().failure = Some(Failure::new(FailureKind::Internal, message));
    }
}

/// State of one shard.
pub(crate) struct ShardState {
    /// Where the shard stands, slices after the last clean sample of the server's state included.
    pub checkpoint: ShardCheckpoint,
    pub status: ShardStatus,
    pub exact: bool,
    /// The slots that the shard was started with, by which its primary is found again after a failover.
    pub slots_at_start: SlotSet,
    /// Keys on the primary when the sweep began, where known: the shard's weight among others.
    pub keys: Option<u64>,
    pub database: Option<u32>,
    pub server: Option<String>,
    /// CPU that the server used while the shard was swept, over all connections.
    pub server_cpu: Option<Duration>,
    pub elapsed: Duration,
    /// What INFO counted before the first slice on this server process, and the time of that; `None` also where an earlier
    /// run sent that slice.
    pub counters: Option<(Counters, Instant)>,
    remaining: Option<Remaining>,
    /// Whether keys are missing that clients may have removed, or may be missing without a trace.
    pub in_doubt: bool,
    pub failure: Option<Failure>,
    pub backoffs: u64,
    pub throttled: Throttled,
    pub baseline_p90: Option<Duration>,
    /// Databases whose keys are not spread over the keyspace by their hashes alone: a slot has many of them.
    pub uneven: BTreeSet<u32>,
    /// The number of pauses of expiry as of the last sample of the server's state; `None`: none on this process.
    pub pauses_sampled: Option<u64>,
    /// The databases as of the last sample that found expiry live; slices after it may have reclaimed nothing.
    committed: Vec<DatabaseCheckpoint>,
    /// Nanoseconds of each PING between slices.
    pings: Histogram<u64>,
    server_time: Duration,
    /// Nanoseconds for which each slice blocked the server, to two significant digits.
    slices: Histogram<u64>,
}

impl ShardState {
    /// Returns the state of a shard that resumes from `checkpoint`.
    pub fn new(checkpoint: ShardCheckpoint) -> Self {
        Self {
            committed: checkpoint.databases.clone(),
            pauses_sampled: None,
            status: if checkpoint.done { ShardStatus::Done } else { ShardStatus::Waiting },
            checkpoint,
            exact: true,
            slots_at_start: SlotSet::default(),
            keys: None,
            database: None,
            server: None,
            server_cpu: None,
            elapsed: Duration::ZERO,
            counters: None,
            remaining: None,
            in_doubt: false,
            failure: None,
            backoffs: 0,
            throttled: Throttled::default(),
            baseline_p90: None,
            uneven: BTreeSet::new(),
            pings: nanoseconds(),
            server_time: Duration::ZERO,
            slices: nanoseconds(),
        }
    }

    /// Starts a database, or starts it again in another order.
    pub fn start_database(&mut self, index: usize, order: Order) {
        let database = &mut self.checkpoint.databases[index];
        let DatabaseCheckpoint { database: number, keys, .. } = *database;
        *database = DatabaseCheckpoint { database: number, keys, order: Some(order), ..DatabaseCheckpoint::default() };
    }

    /// Records a slice of the database at `index` that blocked the server for `cost`. `walk`: where it led to. `repeated`: keys
    /// of it that were returned before, an estimate.
    pub fn record_slice(&mut self, index: usize, slice: &SliceReply, repeated: f64, walk: &Walk, cost: Duration) {
        let checkpoint = &mut self.checkpoint;
        // A server may claim any number of keys, slice after slice.
        checkpoint.keys_reclaimed = checkpoint.keys_reclaimed.saturating_add(slice.reclaimed);
        checkpoint.keys_scanned = checkpoint.keys_scanned.saturating_add(slice.returned + slice.reclaimed);
        self.checkpoint.keys_repeated += repeated;
        let database = &mut self.checkpoint.databases[index];
        let (from, upto) = (database.share, walk.fraction().max(database.share));
        // The part of the slice that lies in the first half of the pass.
        let early = if upto > from { ((0.5 - from) / (upto - from)).clamp(0.0, 1.0) } else { f64::from(from < 0.5) };
        database.tally.record(slice, repeated, early);
        (database.begun, database.positions) = walk.positions();
        (database.share, database.done) = (upto, walk.is_done());
        self.server_time += cost;
        self.slices.saturating_record(cost.as_nanos() as u64);
    }

    /// Corrects what the slices so far have cost in total, by so many seconds more or less.
    pub fn correct_server_time(&mut self, seconds: f64) {
        let corrected = self.server_time.as_secs_f64() + seconds;
        self.server_time = Duration::from_secs_f64(corrected.max(0.0));
    }

    /// Returns the sums of the last pass over each database. `removed`: the keys that others removed during the pass over one, at
    /// most; `None`: unknown. `may_expire`: whether any key of one had a TTL.
    pub fn passes(&self, removed: impl Fn(u32) -> Option<u64>, may_expire: impl Fn(u32) -> bool) -> Vec<Pass> {
        let databases = self.checkpoint.databases.iter();
        let pass = |line: &DatabaseCheckpoint| Pass {
            database: line.database,
            tally: line.tally,
            is_even: !self.uneven.contains(&line.database),
            is_divided: line.order.as_ref().is_some_and(|order| !order.is_forward()),
            may_expire: may_expire(line.database),
            removed: removed(line.database),
        };
        databases.map(pass).collect()
    }

    /// Records what a scan of whole databases has left, by what INFO counts after it.
    pub fn record_remaining(&mut self, after: Counters) {
        if self.checkpoint.restricted_to.is_some() {
            return;
        }
        let before = self.counters.map(|(before, since)| (before, since.elapsed().as_secs_f64()));
        let living = self.checkpoint.databases.iter().fold(Living::default(), |sum, line| sum + line.tally.living());
        let living = Living { is_even: self.uneven.is_empty(), ..living };
        let left = remaining(before, after, living);
        self.remaining = Some(Remaining { in_doubt: left.in_doubt || self.in_doubt, ..left });
    }

    /// Records the round trip of a PING between slices.
    pub fn record_ping(&mut self, round_trip: Duration) {
        self.pings.saturating_record(round_trip.as_nanos() as u64);
    }

    /// Commits all slices so far: expiry was live while they ran.
    pub fn commit(&mut self) {
        self.committed.clone_from(&self.checkpoint.databases);
    }

    /// Returns to the last commit: the slices after it have to run again.
    pub fn roll_back(&mut self) {
        self.checkpoint.databases.clone_from(&self.committed);
    }

    /// Marks the selected databases to be swept again from their start, finished or not.
    pub fn restart_databases(&mut self, is_selected: impl Fn(u32) -> bool) {
        for database in self.checkpoint.databases.iter_mut().filter(|line| is_selected(line.database)) {
            *database = DatabaseCheckpoint {
                database: database.database,
                keys: database.keys,
                ..DatabaseCheckpoint::default()
            };
        }
        // A later run that resumes from here has to repeat them as well.
        self.commit();
    }

    /// Starts the shard again, for another process or primary. With `restricted_to` only these slots are swept, where
    /// the server has per-slot tables; they count as covered. The counts of keys stay.
    pub fn reset(&mut self, restricted_to: Option<&SlotSet>) {
        self.checkpoint.databases.clear();
        self.committed.clear();
        self.uneven.clear();
        (self.counters, self.remaining, self.pauses_sampled) = (None, None, None);
        self.in_doubt = false;
        self.checkpoint.restricted_to = restricted_to.cloned();
        if let Some(slots) = restricted_to {
            self.checkpoint.covered = self.checkpoint.covered.or(slots);
        }
        if self.checkpoint.done {
            (self.checkpoint.done, self.status) = (false, ShardStatus::Waiting);
        }
    }

    /// Returns the checkpoint to resume from: as of the last commit.
    pub fn checkpoint(&self) -> ShardCheckpoint {
        ShardCheckpoint { databases: self.committed.clone(), ..self.checkpoint.clone() }
    }

    /// Returns the share of the shard's keys that is done, 0–1.
    pub fn fraction(&self) -> f64 {
        if self.checkpoint.done {
            return 1.0;
        }
        let total = self.database_weights();
        let databases = self.checkpoint.databases.iter();
        // `sum` of an empty iterator is -0.0.
        databases.fold(0.0, |sum, database| sum + share(database) * weight(database) / total)
    }

    /// Returns the run id of the server process and the share of the shard that is done, 0–1.
    pub fn reached(&self) -> (Option<String>, f64) {
        (self.checkpoint.run_id.clone(), self.fraction())
    }

    /// Returns the shard's weight among others: the keys that it held at the start.
    pub fn weight(&self) -> f64 {
        self.keys.map_or_else(|| self.database_weights(), |keys| keys.max(1) as f64)
    }

    fn database_weights(&self) -> f64 {
        self.checkpoint.databases.iter().map(weight).sum::<f64>().max(1.0)
    }

    /// Returns the progress of the shard. The reporter adds rates, which need more than one moment.
    pub fn progress(&self) -> ShardProgress {
        ShardProgress {
            address: self.checkpoint.address.clone(),
            state: self.status,
            fraction: self.fraction(),
            database: self.database,
            keys_scanned: self.checkpoint.keys_scanned,
            keys_reclaimed: self.checkpoint.keys_reclaimed,
            slice_p50_seconds: quantiles(&self.slices).p50,
            keys_per_second: 0.0,
            eta_seconds: None,
            probe_p90_seconds: self.probe_p90_seconds(),
        }
    }

    /// Returns the report of the shard.
    pub fn report(&self) -> ShardReport {
        let checkpoint = &self.checkpoint;
        let (outcome, reason, message) = outcome(self.failure.as_ref());
        ShardReport {
            address: checkpoint.address.clone(),
            run_id: checkpoint.run_id.clone(),
            server: self.server.clone(),
            outcome,
            reason,
            message,
            databases: checkpoint.databases.iter().map(|database| database.database).collect(),
            totals: Totals {
                exact: self.exact,
                keys_scanned: checkpoint.keys_scanned,
                keys_reclaimed: checkpoint.keys_reclaimed,
                keys_repeated: checkpoint.keys_repeated.round() as u64,
                used_memory_before: checkpoint.used_memory_before,
                used_memory_after: checkpoint.used_memory_after,
                rss_before: checkpoint.rss_before,
                rss_after: checkpoint.rss_after,
                remaining: self.remaining,
                elapsed_seconds: self.elapsed.as_secs_f64(),
                server_seconds: self.server_time.as_secs_f64(),
                server_cpu_seconds: self.server_cpu.map(|cpu| cpu.as_secs_f64()),
                cpu_share: self.server_time.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9),
                slices: self.slices.len(),
                slice_seconds: quantiles(&self.slices),
                probe_seconds: ProbeSeconds {
                    baseline_p90: self.baseline_p90.map(|p90| p90.as_secs_f64()),
                    during_p90: self.probe_p90_seconds(),
                },
                backoffs: self.backoffs,
                throttled: self.throttled,
            },
        }
    }

    /// Adds this shard's slices to a distribution over several shards.
    pub fn add_slices_to(&self, all: &mut Histogram<u64>) {
        all.add(&self.slices).expect("histograms of the same bounds");
    }

    fn probe_p90_seconds(&self) -> Option<f64> {
        (!self.pings.is_empty()).then(|| self.pings.value_at_quantile(0.9) as f64 / 1e9)
    }
}

/// Returns an empty distribution of nanoseconds, up to an hour, to two significant digits.
pub(crate) fn nanoseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 2).expect("valid bounds")
}

/// Returns the three numbers of a distribution of nanoseconds.
pub(crate) fn quantiles(slices: &Histogram<u64>) -> Quantiles {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    match slices.is_empty() {
        true => Quantiles::default(),
        false => Quantiles {
            p50: seconds(slices.value_at_quantile(0.5)),
            p99: seconds(slices.value_at_quantile(0.99)),
            max: seconds(slices.max()),
        },
    }
}

fn share(database: &DatabaseCheckpoint) -> f64 {
    if database.done { 1.0 } else { database.share }
}

fn weight(database: &DatabaseCheckpoint) -> f64 {
    database.keys.max(1) as f64
}

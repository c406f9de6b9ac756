//! The books of one shard while it is swept: written by its thread, read by whoever watches.

use std::{collections::HashMap, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    checkpoint::{DatabaseCheckpoint, ShardCheckpoint},
    failure::Failure,
    link::SliceReply,
    progress::{Scale, ShardProgress},
    report::{Held, ProbeSeconds, Quantiles, ShardReport, outcome},
    tally::Tally,
    topology::SlotSet,
};

/// What a shard is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Sweeping,
    Away,
    Done,
    Failed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sweeping => "sweeping",
            Self::Away => "away",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// The books of one shard.
pub(crate) struct Ledger {
    pub standing: ShardCheckpoint,
    pub state: State,
    pub exact: bool,
    /// The slots by which the shard's primary is found again after a failover.
    pub home: SlotSet,
    /// Keys that the primary held when the sweep began, as far as somebody has looked: the shard's weight among others.
    pub keys: Option<u64>,
    pub database: Option<u32>,
    pub server: Option<String>,
    /// CPU that the server used while it was swept, over all connections.
    pub server_cpu: Option<Duration>,
    pub elapsed: Duration,
    pub failure: Option<Failure>,
    pub backoffs: u64,
    pub held: Held,
    pub baseline_p90: Option<Duration>,
    /// How the cursors of each database are to be read.
    pub scales: HashMap<u32, Scale>,
    /// Where the databases stood at the last look that found expiry alive; what came after may have released nothing.
    confirmed: Vec<DatabaseCheckpoint>,
    /// Nanoseconds that each PING between slices took.
    pings: Histogram<u64>,
    server_time: Duration,
    /// Nanoseconds that each slice kept the server, to two significant digits.
    slices: Histogram<u64>,
}

impl Ledger {
    pub fn new(standing: ShardCheckpoint) -> Self {
        Self {
            confirmed: standing.databases.clone(),
            state: if standing.done { State::Done } else { State::Waiting },
            standing,
            exact: true,
            home: SlotSet::default(),
            keys: None,
            database: None,
            server: None,
            server_cpu: None,
            elapsed: Duration::ZERO,
            failure: None,
            backoffs: 0,
            held: Held::default(),
            baseline_p90: None,
            scales: HashMap::new(),
            pings: nanoseconds(),
            server_time: Duration::ZERO,
            slices: nanoseconds(),
        }
    }

    /// Enters a slice that kept the server for `cost`.
    pub fn enter(&mut self, index: usize, slice: &SliceReply, cost: Duration) {
        self.standing.keys_released += slice.released;
        self.standing.keys_scanned += slice.returned + slice.released;
        let database = &mut self.standing.databases[index];
        database.cursor = slice.cursor;
        database.done = slice.cursor == 0;
        database.tally.enter(slice);
        self.server_time += cost;
        self.slices.saturating_record(cost.as_nanos() as u64);
    }

    /// Enters the round trip of a PING between slices.
    pub fn enter_ping(&mut self, round_trip: Duration) {
        self.pings.saturating_record(round_trip.as_nanos() as u64);
    }

    /// All that has been swept so far was swept while expiry was alive.
    pub fn confirm(&mut self) {
        self.confirmed.clone_from(&self.standing.databases);
    }

    /// Goes back to what was confirmed: what came after has to be swept again.
    pub fn rewind(&mut self) {
        self.standing.databases.clone_from(&self.confirmed);
    }

    /// Marks databases as ones to be swept again, whether they were swept or not.
    pub fn repeat(&mut self, databases: impl Fn(u32) -> bool) {
        for database in self.standing.databases.iter_mut().filter(|line| databases(line.database)) {
            (database.cursor, database.done, database.tally) = (0, false, Tally::default());
        }
        // Whoever goes on from here has to repeat them as well.
        self.confirm();
    }

    /// Begins anew, for another process or primary; what was counted stays counted.
    pub fn start_again(&mut self) {
        self.standing.databases.clear();
        self.standing.only = None;
        self.confirmed.clear();
        self.scales.clear();
    }

    /// Has a shard that was done swept again: only these slots, where the server can do that, or all of it.
    pub fn begin_again(&mut self, only: Option<&SlotSet>) {
        self.start_again();
        self.standing.done = false;
        self.state = State::Waiting;
        if let Some(slots) = only {
            self.standing.covered = self.standing.covered.or(slots);
            self.standing.only = Some(slots.clone());
        }
    }

    /// Where another sweep could go on.
    pub fn checkpoint(&self) -> ShardCheckpoint {
        ShardCheckpoint { databases: self.confirmed.clone(), ..self.standing.clone() }
    }

    /// Share of this shard's keys that is done, 0–1.
    pub fn fraction(&self) -> f64 {
        if self.standing.done {
            return 1.0;
        }
        let total = self.weight();
        let databases = self.standing.databases.iter();
        // Not `sum`: that of nothing is -0.0.
        databases.fold(0.0, |sum, database| sum + self.share(database) * weight(database) / total)
    }

    /// Which process is swept, and the share of it that is done.
    pub fn reached(&self) -> (Option<String>, f64) {
        (self.standing.run_id.clone(), self.fraction())
    }

    /// What this shard weighs among others: the keys that it had when somebody first looked.
    pub fn weight_among_others(&self) -> f64 {
        self.keys.map_or_else(|| self.weight(), |keys| keys.max(1) as f64)
    }

    fn weight(&self) -> f64 {
        self.standing.databases.iter().map(weight).sum::<f64>().max(1.0)
    }

    pub fn progress(&self) -> ShardProgress {
        ShardProgress {
            address: self.standing.address.clone(),
            state: self.state.as_str().into(),
            fraction: self.fraction(),
            database: self.database,
            keys_scanned: self.standing.keys_scanned,
            keys_released: self.standing.keys_released,
            slice_p50_seconds: self.quantiles().p50,
            // The watch knows, which sees more than one moment.
            keys_per_second: 0.0,
            eta_seconds: None,
            probe_p90_seconds: self.probe_p90_seconds(),
        }
    }

    pub fn report(&self) -> ShardReport {
        let standing = &self.standing;
        let (outcome, reason, message) = outcome(self.failure.as_ref());
        ShardReport {
            address: standing.address.clone(),
            run_id: standing.run_id.clone(),
            server: self.server.clone(),
            outcome,
            reason,
            message,
            databases: standing.databases.iter().map(|database| database.database).collect(),
            exact: self.exact,
            keys_scanned: standing.keys_scanned,
            keys_released: standing.keys_released,
            used_memory_before: standing.used_memory_before,
            used_memory_after: standing.used_memory_after,
            rss_before: standing.rss_before,
            rss_after: standing.rss_after,
            elapsed_seconds: self.elapsed.as_secs_f64(),
            server_seconds: self.server_time.as_secs_f64(),
            server_cpu_seconds: self.server_cpu.map(|cpu| cpu.as_secs_f64()),
            duty: self.server_time.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9),
            slices: self.slices.len(),
            slice_seconds: self.quantiles(),
            probe_seconds: ProbeSeconds {
                baseline_p90: self.baseline_p90.map(|p90| p90.as_secs_f64()),
                during_p90: self.probe_p90_seconds(),
            },
            backoffs: self.backoffs,
            held: self.held,
        }
    }

    /// Adds this shard's slices to those of others.
    pub fn add_slices_to(&self, all: &mut Histogram<u64>) {
        all.add(&self.slices).expect("histograms of the same bounds");
    }

    fn share(&self, database: &DatabaseCheckpoint) -> f64 {
        match (database.done, self.scales.get(&database.database)) {
            (true, _) => 1.0,
            (false, Some(scale)) => scale.fraction(database.cursor),
            (false, None) => Scale::Table.fraction(database.cursor),
        }
    }

    fn probe_p90_seconds(&self) -> Option<f64> {
        (!self.pings.is_empty()).then(|| self.pings.value_at_quantile(0.9) as f64 / 1e9)
    }

    fn quantiles(&self) -> Quantiles {
        quantiles(&self.slices)
    }
}

/// An empty distribution of nanoseconds, up to an hour, to two significant digits.
pub(crate) fn nanoseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 2).expect("valid bounds")
}

/// The three numbers of a distribution of nanoseconds.
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

fn weight(database: &DatabaseCheckpoint) -> f64 {
    database.keys.max(1) as f64
}

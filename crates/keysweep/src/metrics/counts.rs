//! What this process has done since it began.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use keysweep_engine::Report;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::OfInstance;
use crate::{model::Reason, store::InstanceOverview};

/// Seconds; a slice is to stay below 200 µs at the normal pace, and below 1 ms at any.
const SLICE: [f64; 10] = [0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.005, 0.025, 0.1, 1.0];
/// Seconds; the guard backs off where it is 1 ms more than before the sweep.
const PROBE: [f64; 10] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];
/// Seconds; a manual scan may run for six hours.
const SWEEP: [f64; 10] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 10_800.0, 21_600.0];
/// Seconds; off-peak windows make tasks wait for hours.
const WAIT: [f64; 9] = [0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0];

type Seconds = Counter<f64, AtomicU64>;
type Histograms = Family<OfInstance, Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    /// success, or the reason of a failure.
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfHold {
    instance_id: String,
    reason: &'static str,
}

/// The reasons to hold, as reports name them.
const HOLDS: [&str; 4] = ["replica_lag", "replica_missing", "fork", "paused"];

/// Counted here as it happens; clones count together.
#[derive(Debug, Clone)]
pub struct Counts {
    ended: Family<OfOutcome, Counter>,
    wait: Histogram,
    running: Gauge,
    lease_losses: Counter,
    sweeps: Histograms,
    slices: Histograms,
    probes: Histograms,
    scanned: Family<OfInstance, Counter>,
    released: Family<OfInstance, Counter>,
    memory: Family<OfInstance, Counter>,
    duty: Family<OfInstance, Gauge<f64, AtomicU64>>,
    backoffs: Family<OfInstance, Counter>,
    held: Family<OfHold, Seconds>,
    /// Instances that have been swept here.
    swept: Arc<Mutex<HashSet<String>>>,
}

impl Default for Counts {
    fn default() -> Self {
        let histograms = |buckets: fn() -> Histogram| Histograms::new_with_constructor(buckets);
        let ended = Family::<OfOutcome, Counter>::default();
        // From zero: what is not there before its first event has no increase then.
        for outcome in Reason::ALL.iter().map(|reason| reason.as_str()).chain(["success"]) {
            drop(ended.get_or_create(&OfOutcome { outcome }));
        }
        Self {
            ended,
            wait: Histogram::new(WAIT),
            running: Gauge::default(),
            lease_losses: Counter::default(),
            sweeps: histograms(|| Histogram::new(SWEEP)),
            slices: histograms(|| Histogram::new(SLICE)),
            probes: histograms(|| Histogram::new(PROBE)),
            scanned: Family::default(),
            released: Family::default(),
            memory: Family::default(),
            duty: Family::default(),
            backoffs: Family::default(),
            held: Family::default(),
            swept: Arc::default(),
        }
    }
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tasks_ended",
            "Tasks that ended in this process, as success or by the reason of their failure",
            self.ended.clone(),
        );
        registry.register_with_unit(
            "task_wait",
            "From when a task was accepted to when this process began it",
            Unit::Seconds,
            self.wait.clone(),
        );
        registry.register("sweeps_running", "Sweeps that run in this process", self.running.clone());
        registry.register("lease_losses", "Leases that this process lost in mid-task", self.lease_losses.clone());
        registry.register_with_unit(
            "sweep_duration",
            "Running time of tasks that ended in this process, with that of their earlier workers",
            Unit::Seconds,
            self.sweeps.clone(),
        );
        registry.register_with_unit(
            "slice_duration",
            "How long single slices kept a server; their rate in seconds is the duty",
            Unit::Seconds,
            self.slices.clone(),
        );
        registry.register_with_unit(
            "probe_duration",
            "Latency of a PING between slices",
            Unit::Seconds,
            self.probes.clone(),
        );
        registry.register("keys_scanned", "Keys that sweeps looked at", self.scanned.clone());
        registry.register("keys_released", "Expired keys that sweeps released", self.released.clone());
        registry.register_with_unit(
            "memory_released",
            "used_memory that had fallen by the end of sweeps that ended",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "sweep_duty_ratio",
            "Share of the busiest primary's main thread that the last sweep took",
            self.duty.clone(),
        );
        registry.register(
            "backoffs",
            "How often sweeps halved their duty because clients suffered",
            self.backoffs.clone(),
        );
        registry.register_with_unit("held", "Time that sweeps held, by reason", Unit::Seconds, self.held.clone());
    }

    /// A task ended: as success, or for this reason.
    pub fn task_ended(&self, failure: Option<&Reason>) {
        let known = |reason| Reason::ALL.iter().find(|known| *known == reason).map_or("other", Reason::as_str);
        self.ended.get_or_create(&OfOutcome { outcome: failure.map_or("success", known) }).inc();
    }

    /// A task was begun that had been accepted so long before.
    pub fn task_began(&self, waited: Duration) {
        self.wait.observe(waited.as_secs_f64());
    }

    /// Somebody else has taken over what this process was sweeping.
    pub fn lease_lost(&self) {
        self.lease_losses.inc();
    }

    /// A sweep runs until what is returned is dropped.
    pub fn running(&self) -> RunningSweep {
        self.running.inc();
        RunningSweep(self.running.clone())
    }

    /// A sweep begins, going on from these numbers.
    pub fn sweep(&self, instance_id: &str, scanned: u64, released: u64) -> SweepCounts {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).insert(instance_id.to_owned());
        let of = OfInstance::new(instance_id);
        drop(self.backoffs.get_or_create(&of));
        drop(self.memory.get_or_create(&of));
        SweepCounts {
            slices: self.slices.get_or_create_owned(&of),
            probes: self.probes.get_or_create_owned(&of),
            scanned: self.scanned.get_or_create_owned(&of),
            released: self.released.get_or_create_owned(&of),
            counted: Mutex::new((scanned, released)),
            of,
            counts: self.clone(),
        }
    }

    /// Forgets instances that are not registered any more.
    pub(super) fn keep_only(&self, instances: &[InstanceOverview]) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_empty() {
            return;
        }
        let there: HashSet<&str> = instances.iter().map(|instance| instance.id.as_str()).collect();
        swept.retain(|instance_id| {
            let stays = there.contains(instance_id.as_str());
            if !stays {
                self.forget(instance_id);
            }
            stays
        });
    }

    fn forget(&self, instance_id: &str) {
        let of = OfInstance::new(instance_id);
        for histograms in [&self.sweeps, &self.slices, &self.probes] {
            histograms.remove(&of);
        }
        for counters in [&self.scanned, &self.released, &self.memory, &self.backoffs] {
            counters.remove(&of);
        }
        self.duty.remove(&of);
        for reason in HOLDS {
            self.held.remove(&OfHold { instance_id: instance_id.to_owned(), reason });
        }
    }
}

/// Counts for one sweep.
#[derive(Debug)]
pub struct SweepCounts {
    counts: Counts,
    of: OfInstance,
    slices: Histogram,
    probes: Histogram,
    scanned: Counter,
    released: Counter,
    /// Keys scanned and released that are counted already, by this worker or those before.
    counted: Mutex<(u64, u64)>,
}

impl SweepCounts {
    /// So many keys were scanned and released by now, over all workers of the task.
    pub fn progress(&self, scanned: u64, released: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        self.scanned.inc_by(scanned.saturating_sub(counted.0));
        self.released.inc_by(released.saturating_sub(counted.1));
        *counted = (counted.0.max(scanned), counted.1.max(released));
    }

    /// A slice kept a server so long.
    pub fn slice(&self, cost: Duration) {
        self.slices.observe(cost.as_secs_f64());
    }

    /// A PING between slices was answered after so long.
    pub fn probe(&self, round_trip: Duration) {
        self.probes.observe(round_trip.as_secs_f64());
    }

    /// The sweep has returned, with what it cost.
    pub fn returned(&self, report: &Report) {
        self.progress(report.totals.keys_scanned, report.totals.keys_reclaimed);
        self.counts.duty.get_or_create(&self.of).set(report.totals.cpu_share);
        self.counts.backoffs.get_or_create(&self.of).inc_by(report.totals.backoffs);
        let held = &report.totals.throttled;
        let seconds = [held.replica_lag, held.replica_missing, held.fork, held.paused];
        for (reason, seconds) in HOLDS.into_iter().zip(seconds) {
            let of = OfHold { instance_id: self.of.instance_id.clone(), reason };
            self.counts.held.get_or_create(&of).inc_by(seconds);
        }
    }

    /// The task has ended with this sweep, after so much running time in all.
    pub fn ended(&self, report: &Report, running: Duration) {
        self.counts.sweeps.get_or_create(&self.of).observe(running.as_secs_f64());
        if let (Some(before), Some(after)) = (report.totals.used_memory_before, report.totals.used_memory_after) {
            self.counts.memory.get_or_create(&self.of).inc_by(before.saturating_sub(after));
        }
    }
}

/// A sweep that runs.
#[derive(Debug)]
pub struct RunningSweep(Gauge);

impl Drop for RunningSweep {
    fn drop(&mut self) {
        self.0.dec();
    }
}

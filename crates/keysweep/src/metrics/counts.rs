//! Counters and histograms of this process, recorded as tasks and scans run.

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

use super::label::OfInstance;
use crate::{model::Reason, store::InstanceOverview};

/// Bucket bounds of `slice_duration`, seconds. A slice should stay below 100 µs at pace normal and below 1 ms at any pace.
const SLICE: [f64; 10] = [0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.005, 0.025, 0.1, 1.0];
/// Bucket bounds of `probe_duration`, seconds. A scan backs off when latency is 1 ms above its baseline.
const PROBE: [f64; 10] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];
/// Bucket bounds of `scan_duration`, seconds. A manual scan may run for six hours.
const SCAN: [f64; 10] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 10_800.0, 21_600.0];
/// Bucket bounds of `task_wait`, seconds. A maintenance window can delay a task by hours.
const WAIT: [f64; 9] = [0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0];

type Seconds = Counter<f64, AtomicU64>;
type Histograms = Family<OfInstance, Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    /// `success`, or the reason code of a failure.
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    instance_id: String,
    reason: &'static str,
}

/// Reasons a scan is throttled, named as in reports.
const THROTTLE_REASONS: [&str; 4] = ["replica_lag", "replica_missing", "fork", "paused"];

/// Metrics of tasks and scans in this process. Clones share the same counters.
#[derive(Debug, Clone)]
pub struct Counts {
    finished: Family<OfOutcome, Counter>,
    wait: Histogram,
    running: Gauge,
    lease_losses: Counter,
    clock: Gauge<f64, AtomicU64>,
    scans: Histograms,
    slices: Histograms,
    probes: Histograms,
    scanned: Family<OfInstance, Counter>,
    reclaimed: Family<OfInstance, Counter>,
    memory: Family<OfInstance, Counter>,
    cpu: Family<OfInstance, Gauge<f64, AtomicU64>>,
    backoffs: Family<OfInstance, Counter>,
    throttled: Family<OfReason, Seconds>,
    hold_writes: Family<OfInstance, Counter>,
    /// Ids of the instances that have series, so that series of removed instances can be dropped.
    scanned_instances: Arc<Mutex<HashSet<String>>>,
}

impl Default for Counts {
    fn default() -> Self {
        let histograms = |buckets: fn() -> Histogram| Histograms::new_with_constructor(buckets);
        let finished = Family::<OfOutcome, Counter>::default();
        // Every outcome starts at 0: Prometheus sees no increase in a series that first appears as 1.
        for outcome in Reason::ALL.iter().map(|reason| reason.as_str()).chain(["success"]) {
            drop(finished.get_or_create(&OfOutcome { outcome }));
        }
        Self {
            finished,
            wait: Histogram::new(WAIT),
            running: Gauge::default(),
            lease_losses: Counter::default(),
            clock: Gauge::default(),
            scans: histograms(|| Histogram::new(SCAN)),
            slices: histograms(|| Histogram::new(SLICE)),
            probes: histograms(|| Histogram::new(PROBE)),
            scanned: Family::default(),
            reclaimed: Family::default(),
            memory: Family::default(),
            cpu: Family::default(),
            backoffs: Family::default(),
            throttled: Family::default(),
            hold_writes: Family::default(),
            scanned_instances: Arc::default(),
        }
    }
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tasks_finished",
            "Tasks finished by this process, by outcome: success or the reason code of the failure",
            self.finished.clone(),
        );
        registry.register_with_unit(
            "task_wait",
            "Time from the creation of a task to its start by this process",
            Unit::Seconds,
            self.wait.clone(),
        );
        registry.register("scans_running", "Scans running in this process", self.running.clone());
        registry.register("lease_losses", "Leases this process lost while it ran a task", self.lease_losses.clone());
        registry.register_with_unit(
            "clock_difference",
            "Time by which the clock of this process is ahead of the database's; beyond 2 s its worker claims no task",
            Unit::Seconds,
            self.clock.clone(),
        );
        registry.register_with_unit(
            "scan_duration",
            "Running time of tasks finished by this process, including the time of earlier workers",
            Unit::Seconds,
            self.scans.clone(),
        );
        registry.register_with_unit(
            "slice_duration",
            "Time a single slice kept the main thread of a server; the rate of its sum is the CPU share",
            Unit::Seconds,
            self.slices.clone(),
        );
        registry.register_with_unit(
            "probe_duration",
            "Round trip of the latency probe, a PING between slices",
            Unit::Seconds,
            self.probes.clone(),
        );
        registry.register("keys_scanned", "Keys scanned", self.scanned.clone());
        registry.register("keys_reclaimed", "Stale keys reclaimed", self.reclaimed.clone());
        registry.register_with_unit(
            "memory_reclaimed",
            "Decrease of used_memory between start and end of finished scans",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "scan_cpu_ratio",
            "Share of the main thread of the busiest primary that the last scan used, 0 to 1",
            self.cpu.clone(),
        );
        registry.register(
            "backoffs",
            "Times scans halved their CPU share because latency or load rose",
            self.backoffs.clone(),
        );
        registry.register_with_unit("throttled", "Time scans waited, by reason", Unit::Seconds, self.throttled.clone());
        registry.register(
            "hold_writes",
            "Changes of active-expire-effort or hz that hold a stale share, and restores of a server's own settings",
            self.hold_writes.clone(),
        );
    }

    /// Records by how many seconds this process's clock is ahead of the database's.
    pub fn clock_read(&self, seconds: f64) {
        self.clock.set(seconds);
    }

    /// Counts a finished task: a success, or a failure for this reason.
    pub fn task_finished(&self, failure: Option<&Reason>) {
        let known = |reason| Reason::ALL.iter().find(|known| *known == reason).map_or("other", Reason::as_str);
        self.finished.get_or_create(&OfOutcome { outcome: failure.map_or("success", known) }).inc();
    }

    /// Records how long a task waited between its creation and its start.
    pub fn task_started(&self, waited: Duration) {
        self.wait.observe(waited.as_secs_f64());
    }

    /// Counts a lease that another worker took over while this process ran the task.
    pub fn lease_lost(&self) {
        self.lease_losses.inc();
    }

    /// Counts from now on the changes of the settings of an instance's servers.
    pub fn hold_started(&self, instance_id: &str) {
        self.scanned_instances.lock().unwrap_or_else(PoisonError::into_inner).insert(instance_id.to_owned());
        drop(self.hold_writes.get_or_create(&OfInstance::new(instance_id)));
    }

    /// Counts a change of the settings of an instance's server.
    pub fn hold_written(&self, instance_id: &str) {
        self.hold_writes.get_or_create(&OfInstance::new(instance_id)).inc();
    }

    /// Counts a scan as running until the returned value is dropped.
    pub fn running(&self) -> RunningScan {
        self.running.inc();
        RunningScan(self.running.clone())
    }

    /// Returns the counters of one scan. `scanned` and `reclaimed` are what earlier workers of the task counted already.
    pub fn scan(&self, instance_id: &str, scanned: u64, reclaimed: u64) -> ScanCounts {
        self.scanned_instances.lock().unwrap_or_else(PoisonError::into_inner).insert(instance_id.to_owned());
        let of = OfInstance::new(instance_id);
        drop(self.backoffs.get_or_create(&of));
        drop(self.memory.get_or_create(&of));
        ScanCounts {
            slices: self.slices.get_or_create_owned(&of),
            probes: self.probes.get_or_create_owned(&of),
            scanned: self.scanned.get_or_create_owned(&of),
            reclaimed: self.reclaimed.get_or_create_owned(&of),
            counted: Mutex::new((scanned, reclaimed)),
            of,
            counts: self.clone(),
        }
    }

    /// Drops the series of instances that are no longer registered.
    pub(super) fn keep_only(&self, instances: &[InstanceOverview]) {
        let mut scanned = self.scanned_instances.lock().unwrap_or_else(PoisonError::into_inner);
        if scanned.is_empty() {
            return;
        }
        let registered: HashSet<&str> = instances.iter().map(|instance| instance.id.as_str()).collect();
        scanned.retain(|instance_id| {
            let stays = registered.contains(instance_id.as_str());
            if !stays {
                self.forget(instance_id);
            }
            stays
        });
    }

    fn forget(&self, instance_id: &str) {
        let of = OfInstance::new(instance_id);
        for histograms in [&self.scans, &self.slices, &self.probes] {
            histograms.remove(&of);
        }
        for counters in [&self.scanned, &self.reclaimed, &self.memory, &self.backoffs, &self.hold_writes] {
            counters.remove(&of);
        }
        self.cpu.remove(&of);
        for reason in THROTTLE_REASONS {
            self.throttled.remove(&OfReason { instance_id: instance_id.to_owned(), reason });
        }
    }
}

/// Metrics of one scan.
#[derive(Debug)]
pub struct ScanCounts {
    counts: Counts,
    of: OfInstance,
    slices: Histogram,
    probes: Histogram,
    scanned: Counter,
    reclaimed: Counter,
    /// Keys scanned and reclaimed that are counted already, by this worker or an earlier one.
    counted: Mutex<(u64, u64)>,
}

impl ScanCounts {
    /// Adds what was scanned and reclaimed since the last call. Both figures are totals over all workers of the task.
    pub fn progress(&self, scanned: u64, reclaimed: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        self.scanned.inc_by(scanned.saturating_sub(counted.0));
        self.reclaimed.inc_by(reclaimed.saturating_sub(counted.1));
        *counted = (counted.0.max(scanned), counted.1.max(reclaimed));
    }

    /// Records the time one slice kept the main thread.
    pub fn slice(&self, cost: Duration) {
        self.slices.observe(cost.as_secs_f64());
    }

    /// Records one round trip of the latency probe.
    pub fn probe(&self, round_trip: Duration) {
        self.probes.observe(round_trip.as_secs_f64());
    }

    /// Records the report of a scan that ended in this process, finished or not.
    pub fn returned(&self, report: &Report) {
        self.progress(report.totals.keys_scanned, report.totals.keys_reclaimed);
        self.counts.cpu.get_or_create(&self.of).set(report.totals.cpu_share);
        self.counts.backoffs.get_or_create(&self.of).inc_by(report.totals.backoffs);
        let throttled = &report.totals.throttled;
        let seconds = [throttled.replica_lag, throttled.replica_missing, throttled.fork, throttled.paused];
        for (reason, seconds) in THROTTLE_REASONS.into_iter().zip(seconds) {
            let of = OfReason { instance_id: self.of.instance_id.clone(), reason };
            self.counts.throttled.get_or_create(&of).inc_by(seconds);
        }
    }

    /// Records a finished task. `running` is its running time over all workers.
    pub fn finished(&self, report: &Report, running: Duration) {
        self.counts.scans.get_or_create(&self.of).observe(running.as_secs_f64());
        if let (Some(before), Some(after)) = (report.totals.used_memory_before, report.totals.used_memory_after) {
            self.counts.memory.get_or_create(&self.of).inc_by(before.saturating_sub(after));
        }
    }
}

/// One running scan: decrements the gauge on drop.
#[derive(Debug)]
pub struct RunningScan(Gauge);

impl Drop for RunningScan {
    fn drop(&mut self) {
        self.0.dec();
    }
}

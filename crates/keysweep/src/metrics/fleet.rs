//! Gauges of all instances and tasks, read from the store. Every replica serves the same values.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use keysweep_engine::{HoldLevel, HoldState};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{label::OfInstance, stale::StaleGauges};
use crate::{
    model::{EstimateTotal, HeldInstance, Hold, LastScan, Status},
    store::Overview,
};

type Whole = Gauge<u64, AtomicU64>;
type Number = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNames {
    instance_id: String,
    name: String,
    project: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfHold {
    instance_id: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLevel {
    instance_id: String,
    level: &'static str,
}

/// No labels. A family can be absent from a scrape; a plain gauge cannot.
type Alone = Vec<(&'static str, String)>;

/// Gauges read from the store. All but `up` are absent while the store is unavailable: stale values would look current.
#[derive(Debug, Default)]
pub(super) struct FleetGauges {
    up: Whole,
    tasks: Family<OfStatus, Whole>,
    unattended: Family<Alone, Whole>,
    longest_wait: Family<Alone, Number>,
    schedule_lag: Family<Alone, Number>,
    info: Family<OfNames, Whole>,
    reachable: Family<OfInstance, Whole>,
    keys: Family<OfInstance, Whole>,
    keys_with_ttl: Family<OfInstance, Whole>,
    used_memory: Family<OfInstance, Whole>,
    max_memory: Family<OfInstance, Whole>,
    last_success: Family<OfInstance, Number>,
    auto_scan_interval: Family<OfInstance, Number>,
    scans_since: Family<OfInstance, Number>,
    target_share: Family<OfInstance, Number>,
    cannot_hold: Family<OfInstance, Whole>,
    mean_share: Family<OfInstance, Number>,
    stale: StaleGauges,
    hold_state: Family<OfHold, Whole>,
    hold_target: Family<OfInstance, Number>,
    config_differs: Family<OfInstance, Whole>,
    cycle_stall: Family<OfInstance, Number>,
    hold_level: Family<OfLevel, Whole>,
    hold_interval: Family<OfInstance, Number>,
    hold_reported: Family<OfInstance, Number>,
}

impl FleetGauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "store_up",
            "Whether the database answered the last query for these metrics",
            self.up.clone(),
        );
        registry.register("tasks", "Active tasks by state", self.tasks.clone());
        registry.register(
            "tasks_unattended",
            "Running tasks whose lease no worker holds: released, or expired after a crash",
            self.unattended.clone(),
        );
        registry.register_with_unit(
            "task_longest_wait",
            "Time the oldest waiting task could have been running by now",
            Unit::Seconds,
            self.longest_wait.clone(),
        );
        registry.register_with_unit(
            "schedule_lag",
            "Scheduler lag: age of the oldest due run not yet started",
            Unit::Seconds,
            self.schedule_lag.clone(),
        );
        registry.register(
            "instance_info",
            "Always 1, labelled with the names of instance and project",
            self.info.clone(),
        );
        registry.register(
            "instance_reachable",
            "Whether the instance answered its last health check",
            self.reachable.clone(),
        );
        registry.register(
            "instance_keys",
            "Keys of the instance at its last successful poll, stale keys included",
            self.keys.clone(),
        );
        registry.register(
            "instance_keys_with_ttl",
            "Keys with a TTL at the last successful poll",
            self.keys_with_ttl.clone(),
        );
        registry.register_with_unit(
            "instance_used_memory",
            "used_memory of the primaries at the last successful poll",
            Unit::Bytes,
            self.used_memory.clone(),
        );
        registry.register_with_unit(
            "instance_max_memory",
            "maxmemory of the primaries at the last successful poll; 0 means no limit",
            Unit::Bytes,
            self.max_memory.clone(),
        );
        registry.register_with_unit(
            "instance_last_success_timestamp",
            "Time the newest successful task finished, Unix seconds",
            Unit::Seconds,
            self.last_success.clone(),
        );
        registry.register_with_unit(
            "instance_auto_scan_interval",
            "Interval between scheduled scans; 0 starts the next scan after the previous one finished. Absent while no scans are due",
            Unit::Seconds,
            self.auto_scan_interval.clone(),
        );
        registry.register_with_unit(
            "instance_auto_scan_since_timestamp",
            "Time since which scheduled scans have been due: the first scan, or the end of a pause, Unix seconds",
            Unit::Seconds,
            self.scans_since.clone(),
        );
        registry.register(
            "instance_target_share",
            "Mean stale share that an adaptive auto-scan keeps, 0-1. Absent with a fixed interval and while no scans are due",
            self.target_share.clone(),
        );
        registry.register(
            "instance_cannot_hold",
            "Whether the target share cannot be held by scanning: the shortest interval, ten times the duration of a scan, leaves a mean of more than 1.1 times the target",
            self.cannot_hold.clone(),
        );
        registry.register(
            "mean_stale_share",
            "Mean stale share between the last two scans of an adaptive auto-scan, 0-1: half of what the later one found",
            self.mean_share.clone(),
        );
        self.stale.register(registry);
        registry.register(
            "hold_state",
            "Servers of an instance whose stale share is to be held, by state; a round that did not find or observe all of them adds 1 to measuring, or to restoring at the level observe",
            self.hold_state.clone(),
        );
        registry.register(
            "hold_target_ratio",
            "Share of all keys below which the stale keys are held, 0 to 1",
            self.hold_target.clone(),
        );
        registry.register(
            "config_differs_from_baseline",
            "Servers whose active-expire-effort or hz is not their own",
            self.config_differs.clone(),
        );
        registry.register_with_unit(
            "cycle_stall",
            "Time for which one cycle of the server's own expiry blocks clients, of the slowest server that is held",
            Unit::Seconds,
            self.cycle_stall.clone(),
        );
        registry.register(
            "hold_level",
            "1 for the level at which the stale share of an instance is held, 0 for the others",
            self.hold_level.clone(),
        );
        registry.register_with_unit(
            "hold_interval",
            "Time between two observations of an instance whose stale share is held",
            Unit::Seconds,
            self.hold_interval.clone(),
        );
        registry.register_with_unit(
            "hold_reported_timestamp",
            "Time at which a worker has reported last about an instance whose stale share is held, or at which its policy was set, Unix seconds",
            Unit::Seconds,
            self.hold_reported.clone(),
        );
    }

    /// Shows the instances that a worker holds or restores, or should.
    pub(super) fn show_holds(&self, holds: &[HeldInstance]) {
        for hold in holds {
            let of = OfInstance::new(&hold.instance_id);
            // Every state is there: Prometheus sees no increase in a series that first appears as 1.
            // Where not all servers were found, at least one of them is not held, or not restored, and no server says so.
            let unfound = hold.failure.as_ref().map(|_| match hold.policy.level {
                HoldLevel::Observe => HoldState::Restoring,
                _ => HoldState::Measuring,
            });
            for state in HoldState::ALL {
                let found = hold.servers.iter().map(|server| server.status.state);
                let servers = found.chain(unfound).filter(|one| *one == state).count();
                let of = OfHold { instance_id: hold.instance_id.clone(), state: state.as_str() };
                self.hold_state.get_or_create(&of).set(servers as u64);
            }
            for level in HoldLevel::ALL {
                let of = OfLevel { instance_id: hold.instance_id.clone(), level: level.as_str() };
                self.hold_level.get_or_create(&of).set((level == hold.policy.level).into());
            }
            self.hold_target.get_or_create(&of).set(hold.policy.below);
            self.hold_interval.get_or_create(&of).set(hold.policy.interval().as_secs_f64());
            self.hold_reported.get_or_create(&of).set(hold.heard_at().as_microsecond() as f64 / 1e6);
            let differs = hold.servers.iter().filter(|server| server.status.differs()).count();
            self.config_differs.get_or_create(&of).set(differs as u64);
            if let Some(stall) = hold.servers.iter().filter_map(|server| server.status.stall_seconds).reduce(f64::max) {
                self.cycle_stall.get_or_create(&of).set(stall);
            }
        }
    }

    pub(super) fn show(
        &self,
        overview: &Overview,
        estimates: &[(String, EstimateTotal)],
        scans: &[(String, LastScan)],
        now: Timestamp,
    ) {
        self.show_nothing();
        self.stale.show(estimates, scans, now);
        self.up.set(1);
        for (status, tasks) in [(Status::Waiting, overview.waiting), (Status::Running, overview.running)] {
            self.tasks.get_or_create(&OfStatus { status: status.as_str() }).set(tasks);
        }
        self.unattended.get_or_create(&Alone::new()).set(overview.unattended);
        self.longest_wait.get_or_create(&Alone::new()).set(overview.longest_wait.as_secs_f64());
        self.schedule_lag.get_or_create(&Alone::new()).set(overview.schedule_lag.as_secs_f64());
        for instance in &overview.instances {
            let of = OfInstance::new(&instance.id);
            let names = OfNames {
                instance_id: instance.id.clone(),
                name: instance.name.clone(),
                project: instance.project.clone(),
            };
            self.info.get_or_create(&names).set(1);
            if let Some(reachable) = instance.reachable {
                self.reachable.get_or_create(&of).set(reachable.into());
            }
            if let Some(stats) = &instance.stats {
                self.keys.get_or_create(&of).set(stats.keys);
                self.keys_with_ttl.get_or_create(&of).set(stats.keys_with_ttl);
                self.used_memory.get_or_create(&of).set(stats.used_memory);
                self.max_memory.get_or_create(&of).set(stats.max_memory);
            }
            if let Some(at) = instance.last_success {
                self.last_success.get_or_create(&of).set(at.as_microsecond() as f64 / 1e6);
            }
            if let Some(since) = instance.scans_since {
                self.scans_since.get_or_create(&of).set(since.as_microsecond() as f64 / 1e6);
            }
            if let Some(interval) = instance.auto_scan_interval {
                self.auto_scan_interval.get_or_create(&of).set(interval.as_secs_f64());
            }
            if let Some(adaptive) = &instance.adaptive {
                self.target_share.get_or_create(&of).set(adaptive.target.share());
                self.cannot_hold.get_or_create(&of).set((adaptive.hold == Hold::CannotHold).into());
            }
            if let Some(share) = instance.mean_share {
                self.mean_share.get_or_create(&of).set(share);
            }
        }
    }

    pub(super) fn show_nothing(&self) {
        self.up.set(0);
        self.tasks.clear();
        self.unattended.clear();
        self.info.clear();
        self.stale.clear();
        for family in [&self.longest_wait, &self.schedule_lag] {
            family.clear();
        }
        self.hold_state.clear();
        self.hold_level.clear();
        let whole = [&self.reachable, &self.keys, &self.keys_with_ttl, &self.used_memory, &self.max_memory];
        for family in whole.into_iter().chain([&self.cannot_hold, &self.config_differs]) {
            family.clear();
        }
        for family in [&self.hold_target, &self.cycle_stall, &self.hold_interval, &self.hold_reported] {
            family.clear();
        }
        for family in [&self.last_success, &self.auto_scan_interval, &self.scans_since] {
            family.clear();
        }
        for family in [&self.target_share, &self.mean_share] {
            family.clear();
        }
    }
}

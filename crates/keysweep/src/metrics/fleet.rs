//! Gauges of the fleet as the store holds it. Every replica shows the same.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::OfInstance;
use crate::{model::Status, store::Overview};

type Whole = Gauge<u64, AtomicU64>;
type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    status: &'static str,
}

/// Without labels; a family, so that it can be absent.
type Alone = Vec<(&'static str, String)>;

/// The gauges. All but `up` are absent while the store is away: an old figure would look like a new one.
#[derive(Debug, Default)]
pub(super) struct FleetGauges {
    up: Whole,
    tasks: Family<OfStatus, Whole>,
    unattended: Family<Alone, Whole>,
    longest_wait: Family<Alone, Seconds>,
    schedule_lag: Family<Alone, Seconds>,
    reachable: Family<OfInstance, Whole>,
    keys: Family<OfInstance, Whole>,
    keys_with_ttl: Family<OfInstance, Whole>,
    used_memory: Family<OfInstance, Whole>,
    max_memory: Family<OfInstance, Whole>,
    last_success: Family<OfInstance, Seconds>,
    auto_scan_interval: Family<OfInstance, Seconds>,
    scans_since: Family<OfInstance, Seconds>,
}

impl FleetGauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("store_up", "Whether the database answered the last look at the fleet", self.up.clone());
        registry.register("tasks", "Active tasks by state", self.tasks.clone());
        registry.register(
            "tasks_unattended",
            "Running tasks that no worker holds: given back, or of a worker that died",
            self.unattended.clone(),
        );
        registry.register_with_unit(
            "task_longest_wait",
            "How long the task that has waited longest could have been started by now",
            Unit::Seconds,
            self.longest_wait.clone(),
        );
        registry.register_with_unit(
            "schedule_lag",
            "How long the longest overdue look at a schedule is overdue",
            Unit::Seconds,
            self.schedule_lag.clone(),
        );
        registry.register(
            "instance_reachable",
            "Whether the instance answered when it was last looked at",
            self.reachable.clone(),
        );
        registry.register("instance_keys", "Keys that the instance held when last seen", self.keys.clone());
        registry.register(
            "instance_keys_with_ttl",
            "Keys with a TTL that the instance held when last seen",
            self.keys_with_ttl.clone(),
        );
        registry.register_with_unit(
            "instance_used_memory",
            "used_memory of the instance's primaries when last seen",
            Unit::Bytes,
            self.used_memory.clone(),
        );
        registry.register_with_unit(
            "instance_max_memory",
            "maxmemory of the instance's primaries when last seen; 0 is no limit",
            Unit::Bytes,
            self.max_memory.clone(),
        );
        registry.register_with_unit(
            "instance_last_success_timestamp",
            "When the instance's newest successful task ended, since the epoch",
            Unit::Seconds,
            self.last_success.clone(),
        );
        registry.register_with_unit(
            "instance_auto_scan_interval",
            "From one scheduled scan of the instance to the next, where scans are due; 0 is one after the other",
            Unit::Seconds,
            self.auto_scan_interval.clone(),
        );
        registry.register_with_unit(
            "instance_auto_scan_since_timestamp",
            "Since when scheduled scans of the instance have been due: its first one, or when it was resumed",
            Unit::Seconds,
            self.scans_since.clone(),
        );
    }

    pub(super) fn show(&self, overview: &Overview) {
        self.show_nothing();
        self.up.set(1);
        for (status, tasks) in [(Status::Waiting, overview.waiting), (Status::Running, overview.running)] {
            self.tasks.get_or_create(&OfStatus { status: status.as_str() }).set(tasks);
        }
        self.unattended.get_or_create(&Alone::new()).set(overview.unattended);
        self.longest_wait.get_or_create(&Alone::new()).set(overview.longest_wait.as_secs_f64());
        self.schedule_lag.get_or_create(&Alone::new()).set(overview.schedule_lag.as_secs_f64());
        for instance in &overview.instances {
            let of = OfInstance::new(&instance.id);
            if let Some(reachable) = instance.reachable {
                self.reachable.get_or_create(&of).set(reachable.into());
            }
            if let Some(facts) = &instance.facts {
                self.keys.get_or_create(&of).set(facts.keys);
                self.keys_with_ttl.get_or_create(&of).set(facts.keys_with_ttl);
                self.used_memory.get_or_create(&of).set(facts.used_memory);
                self.max_memory.get_or_create(&of).set(facts.max_memory);
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
        }
    }

    pub(super) fn show_nothing(&self) {
        self.up.set(0);
        self.tasks.clear();
        self.unattended.clear();
        for family in [&self.longest_wait, &self.schedule_lag] {
            family.clear();
        }
        for family in [&self.reachable, &self.keys, &self.keys_with_ttl, &self.used_memory, &self.max_memory] {
            family.clear();
        }
        for family in [&self.last_success, &self.auto_scan_interval, &self.scans_since] {
            family.clear();
        }
    }
}

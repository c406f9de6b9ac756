//! What must hold in every simulation, whatever order its operations have.

use std::collections::{HashMap, HashSet};

use keysweep::{
    model::ScanType,
    store::{Claim, HeartbeatOutcome, PageRequest},
};

use super::{HOSTS, LEASE_AT_RISK, PER_HOST, World};

impl World {
    /// Checks that only the holder of the newest epoch changes a task.
    pub(super) fn check_fence(&self, claim: &Claim, outcome: HeartbeatOutcome) {
        let newest = self.epochs[&claim.lease.instance_id];
        if outcome != HeartbeatOutcome::Lost && claim.lease.epoch < newest {
            self.fail(&format!("epoch {} was let through after {newest}", claim.lease.epoch));
        }
    }

    /// Checks that no host has more scans with heartbeats in time than its limit.
    pub(super) fn check_hosts(&self) {
        let mut sweeps: HashMap<&str, HashSet<&str>> = HashMap::new();
        for held in self.workers.iter().filter_map(|worker| worker.held.as_ref()) {
            let is_newest = self.epochs[&held.claim.lease.instance_id] == held.claim.lease.epoch;
            let instance = self.instances.iter().position(|instance| instance.id == held.claim.lease.instance_id);
            // Scheduled tasks have another host: the one in the instance's URL.
            let is_manual = held.claim.task.scan_type == ScanType::Manual;
            let has_ended = self.ended.contains_key(&held.claim.task.id);
            if is_newest
                && !has_ended
                && is_manual
                && !held.was_late
                && (0..LEASE_AT_RISK).contains(&(self.clock - held.last_heartbeat))
            {
                let host = ["h0", "h1", "h2"][instance.expect("ours") % HOSTS];
                sweeps.entry(host).or_default().insert(&held.claim.lease.instance_id);
            }
        }
        if sweeps.values().any(|sweeps| sweeps.len() > PER_HOST as usize) {
            self.fail("a host bears too many sweeps");
        }
    }

    /// Checks that every accepted task is there, has ended and stayed as it ended, and that no run was started twice or late.
    pub(super) async fn check_records(&mut self) {
        let mut found = HashSet::new();
        for instance in self.instances.clone() {
            let all = PageRequest { status: None, offset: 0, limit: 1_000 };
            let tasks = self.store.tasks(&instance.id, &all).await.expect("read").tasks;
            let mut dues = HashSet::new();
            for task in tasks {
                if task.status.is_active() {
                    self.fail(&format!("{task:?} has not ended"));
                }
                if self.ended.get(&task.id).is_some_and(|before| *before != task) {
                    self.fail(&format!("{task:?} changed after its end"));
                }
                if let Some(due) = task.due_at {
                    let late = task.created_at.duration_since(due).as_secs();
                    // With interval 0 a run has no due moment, and a run that waits for a window starts when that opens.
                    let may_wait =
                        self.without_interval.contains(&instance.id) || self.with_window.contains(&instance.id);
                    let too_late = late > 300 && !may_wait;
                    if !dues.insert(due) || late < 0 || too_late {
                        self.fail(&format!("a run was started twice, or {late} s after it was due: {task:?}"));
                    }
                }
                found.insert(task.id);
            }
        }
        if let Some(lost) = self.accepted.iter().find(|id| !found.contains(*id)) {
            self.fail(&format!("task {lost} was accepted and is gone"));
        }
    }
}

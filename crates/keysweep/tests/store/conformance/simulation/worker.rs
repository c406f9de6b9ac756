//! Models of workers: what `task::drive` does with a lease, a step at a time.

use keysweep::{
    model::Reason,
    store::{Claim, HeartbeatOutcome, TaskResult},
};
use rand::RngExt;

use super::{LEASE_AT_RISK, PER_HOST, World};
use crate::conformance::fresh::{LEASE, heartbeat, time};

/// A worker and the task whose lease it believes to hold.
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) held: Option<Held>,
}

pub(super) struct Held {
    pub(super) claim: Claim,
    pub(super) scanned: u64,
    goal: u64,
    pub(super) last_heartbeat: i64,
    /// Whether a heartbeat once came after the lease had expired, or the clock was set back: another scan may have started
    /// on its host then.
    pub(super) was_late: bool,
}

impl World {
    /// Gives the lease of a task back.
    pub(super) async fn release(&self, held: &Held) {
        let store = self.store.with_clock(self.now());
        let outcome = store.release_lease(&held.claim.lease, &heartbeat(held.scanned)).await;
        self.check_fence(&held.claim, outcome.expect("answered"));
    }

    /// Lets a worker go on with its task, or claim one. Unless it `heard`, the answer is lost.
    pub(super) async fn step(&mut self, index: usize, heard: bool) {
        let Some(mut held) = self.workers[index].held.take() else { return self.claim(index, heard).await };
        if self.is_away {
            if self.clock - held.last_heartbeat < LEASE_AT_RISK {
                self.workers[index].held = Some(held);
            }
            return;
        }
        if held.scanned < held.goal {
            held.scanned += self.random.random_range(0..60);
            let outcome = self
                .store
                .with_clock(self.now())
                .heartbeat(&held.claim.lease, LEASE, &heartbeat(held.scanned))
                .await
                .expect("answered");
            self.check_fence(&held.claim, outcome);
            match outcome {
                _ if !heard => {
                    if self.clock - held.last_heartbeat < LEASE_AT_RISK {
                        self.workers[index].held = Some(held);
                    }
                }
                HeartbeatOutcome::Held { cancel_requested: true, .. } => {
                    self.end(&held, Err((Reason::Cancelled, "cancelled".to_owned()))).await;
                }
                HeartbeatOutcome::Held { cancel_requested: false, closed_until: Some(_) } => {
                    self.release(&held).await;
                }
                HeartbeatOutcome::Held { cancel_requested: false, closed_until: None } => {
                    held.last_heartbeat = self.clock;
                    self.workers[index].held = Some(held);
                }
                HeartbeatOutcome::Lost => {}
            }
        } else {
            self.end(&held, Ok(())).await;
            if !heard {
                // It received no answer, and finishes the task again.
                self.workers[index].held = Some(held);
            }
        }
    }

    async fn end(&mut self, held: &Held, outcome: Result<(), (Reason, String)>) {
        let result = TaskResult { outcome, heartbeat: heartbeat(held.scanned), report: Some("{}".into()) };
        let outcome = self.store.with_clock(self.now()).finish(&held.claim.lease, &result).await.expect("answered");
        self.check_fence(&held.claim, outcome);
        if outcome != HeartbeatOutcome::Lost {
            let task = &held.claim.task;
            let task = self.store.task(&task.project_id, &task.id).await.expect("read").expect("it is there").task;
            if let Some(before) = self.ended.insert(task.id.clone(), task) {
                self.fail(&format!("{before:?} ended twice"));
            }
        }
    }

    async fn claim(&mut self, index: usize, heard: bool) {
        if self.is_away {
            return;
        }
        let owner = self.workers[index].name.clone();
        let Some(claim) = self.store.with_clock(self.now()).claim(&owner, LEASE, PER_HOST).await.expect("no failure")
        else {
            return;
        };
        let instance = self.instances.iter().find(|instance| instance.id == claim.lease.instance_id).expect("ours");
        let closed_until = instance.closed_until(claim.task.scan_type, time(self.clock));
        if !claim.task.cancel_requested && closed_until.is_some() {
            self.fail(&format!("a claim outside the window {:?}", instance.window));
        }
        let key = (claim.lease.instance_id.clone(), claim.lease.epoch);
        if let Some(other) = self.owners.insert(key, owner) {
            self.fail(&format!("{other} has had this epoch already"));
        }
        let newest = self.epochs.insert(claim.lease.instance_id.clone(), claim.lease.epoch);
        if newest.is_some_and(|newest| newest >= claim.lease.epoch) {
            self.fail("an epoch does not grow");
        }
        let kept = claim.checkpoint.as_deref().unwrap_or("{\"cursor\":0}");
        if kept != format!("{{\"cursor\":{}}}", claim.task.scanned) {
            self.fail(&format!("the numbers say {} and the checkpoint {kept}", claim.task.scanned));
        }
        let goal = self.random.random_range(0..200);
        let scanned = claim.task.scanned;
        if heard {
            self.workers[index].held = Some(Held { claim, scanned, goal, last_heartbeat: self.clock, was_late: false });
        }
    }
}

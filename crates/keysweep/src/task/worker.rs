//! The worker: takes a permit, claims a task, has it driven, until it is told to shut down.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use super::{
    Tasks,
    drive::{LEASE, drive, told},
    rounds::make_rounds,
};
use crate::{
    fleet::{Fleet, new_id},
    store::Claim,
    telemetry::traces::SpanId,
};

/// How much one worker takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sweeps that it runs at a time.
    pub sweeps: u32,
    /// Sweeps that may burden one host of the fleet at a time, whoever runs them.
    pub per_host: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sweeps: 16, per_host: 1 }
    }
}

/// How often the store is asked for work without a hint: other replicas' tasks, and leases that expire.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Carries out tasks.
pub struct Worker {
    tasks: Tasks,
    fleet: Fleet,
    /// Drawn anew for every start: a lease never outlives the process that took it.
    owner: String,
    permits: Arc<Semaphore>,
    limits: Limits,
}

impl Worker {
    /// A worker for these tasks.
    pub fn new(tasks: Tasks, fleet: Fleet, limits: Limits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.sweeps as usize));
        Self { tasks, fleet, owner: new_id(), permits, limits }
    }

    /// Works until `shutdown` says so; returns when every sweep has stopped and given its lease back.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut sweeps = JoinSet::new();
        let rounds = tokio::spawn(make_rounds(self.tasks.store.clone(), self.fleet.clone(), shutdown.clone()));
        while !*shutdown.borrow() {
            // Never inside a select: a claim that is dropped half-way would leave a lease that nobody answers for.
            while let Some((permit, claim, span)) = self.claim().await {
                let driven = drive(self.tasks.clone(), self.fleet.clone(), claim, span, shutdown.clone());
                sweeps.spawn(async move {
                    let _permit = permit;
                    driven.await;
                });
            }
            tokio::select! {
                () = told(&mut shutdown) => {}
                Some(ended) = sweeps.join_next(), if !sweeps.is_empty() => report_death(ended),
                _ = tokio::time::timeout(LOOK_EVERY, self.tasks.hint.notified()) => {}
            }
        }
        while let Some(ended) = sweeps.join_next().await {
            report_death(ended);
        }
        if let Err(error) = rounds.await {
            tracing::error!(%error, "the rounds beside the tasks died");
        }
    }

    /// Takes the next task. The permit comes first: what is claimed must be swept at once, its lease is running.
    async fn claim(&self) -> Option<(OwnedSemaphorePermit, Claim, SpanId)> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let begun = SystemTime::now();
        match self.tasks.store.claim(&self.owner, LEASE, self.limits.per_host).await {
            Ok(claim) => {
                let claim = claim?;
                let (task_id, lease) = (&claim.task.id, &claim.lease);
                let mut span = self.tasks.traces.begin(task_id, SpanId::root(task_id), "task.claim");
                span.at(begun, None);
                span.note("keysweep.instance.id", lease.instance_id.as_str());
                span.note("keysweep.epoch", lease.epoch);
                Some((permit, claim, span.id()))
            }
            Err(error) => {
                tracing::warn!(%error, "no task can be claimed; trying again");
                None
            }
        }
    }
}

fn report_death(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task's driver died; its lease will expire and the task be taken over");
    }
}

//! The worker: takes a permit, claims a task, has it driven, until it is told to shut down.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Tasks,
    drive::{LEASE, drive},
    lazyfree::put_abandoned_back,
};
use crate::{
    fleet::{Fleet, new_id},
    store::{Claim, Now},
};

/// Sweeps that one worker runs at a time.
const SWEEPS: usize = 16;
/// How often the store is asked for work without a hint: other replicas' tasks, and leases that expire.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often what dead workers have left behind is looked for.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);

/// Carries out tasks.
pub struct Worker {
    tasks: Tasks,
    fleet: Fleet,
    /// Drawn anew for every start: a lease never outlives the process that took it.
    owner: String,
    permits: Arc<Semaphore>,
}

impl Worker {
    /// A worker for these tasks.
    pub fn new(tasks: Tasks, fleet: Fleet) -> Self {
        Self { tasks, fleet, owner: new_id(), permits: Arc::new(Semaphore::new(SWEEPS)) }
    }

    /// Works until `shutdown` says so; returns when every sweep has stopped and given its lease back.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut sweeps = JoinSet::new();
        let mut next_upkeep = Instant::now();
        while !*shutdown.borrow() {
            if Instant::now() >= next_upkeep {
                put_abandoned_back(&self.tasks.store, &self.fleet).await;
                next_upkeep = Instant::now() + UPKEEP_EVERY;
            }
            // Never inside a select: a claim that is dropped half-way would leave a lease that nobody answers for.
            while let Some((permit, claim)) = self.claim().await {
                let driven = drive(self.tasks.store.clone(), self.fleet.clone(), claim, shutdown.clone());
                sweeps.spawn(async move {
                    let _permit = permit;
                    driven.await;
                });
            }
            tokio::select! {
                _ = shutdown.wait_for(|down| *down) => {}
                Some(ended) = sweeps.join_next(), if !sweeps.is_empty() => report_death(ended),
                _ = tokio::time::timeout(LOOK_EVERY, self.tasks.hint.notified()) => {}
            }
        }
        while let Some(ended) = sweeps.join_next().await {
            report_death(ended);
        }
    }

    /// Takes the next task. The permit comes first: what is claimed must be swept at once, its lease is running.
    async fn claim(&self) -> Option<(OwnedSemaphorePermit, Claim)> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        match self.tasks.store.claim(Now::Database, &self.owner, LEASE).await {
            Ok(claim) => Some((permit, claim?)),
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

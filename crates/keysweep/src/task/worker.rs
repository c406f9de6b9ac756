//! The worker: acquires a permit, claims a task and carries it out, until shutdown.

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
    background::{serve_instances, wait_for_shutdown},
    drive::{LEASE, drive},
};
use crate::{
    instances::Instances,
    random::new_id,
    store::{Claim, ClaimLimits},
    telemetry::traces::SpanId,
};

/// Limits of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Scans that it runs at a time.
    pub concurrency: u32,
    /// Per-host concurrency limit: scans on one host at a time, over all workers.
    pub per_host: u32,
    /// Whether clocks that differ too much are a warning instead of a refusal.
    pub allow_clock_skew: bool,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { concurrency: 16, per_host: 1, allow_clock_skew: false }
    }
}

/// Time between two claims without a hint: for tasks of other replicas, and leases that expire.
const CLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// Carries out tasks.
pub struct Worker {
    tasks: Tasks,
    instances: Instances,
    /// Drawn anew at every start: a lease never outlives the process that acquired it.
    owner: String,
    permits: Arc<Semaphore>,
    limits: WorkerLimits,
}

impl Worker {
    /// Returns a worker for these tasks.
    pub fn new(tasks: Tasks, instances: Instances, limits: WorkerLimits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.concurrency as usize));
        Self { tasks, instances, owner: new_id(), permits, limits }
    }

    /// Works until shutdown; returns when every scan has stopped and its lease is released.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut drives = JoinSet::new();
        let background =
            tokio::spawn(serve_instances(self.tasks.store.clone(), self.instances.clone(), shutdown.clone()));
        while !is_raised(&shutdown) {
            let counts = self.tasks.counts();
            let may_claim =
                self.tasks.clock.allows_claims(&self.tasks.store, |seconds| counts.clock_read(seconds)).await;
            // Never inside a select: a claim dropped half-way would leave a lease without a worker. Not after the shutdown began:
            // each task is released at once then, could be claimed again, and this loop would not end.
            while may_claim
                && !is_raised(&shutdown)
                && let Some((permit, claim, span)) = self.claim().await
            {
                let allow_clock_skew = self.limits.allow_clock_skew;
                let instances = self.instances.clone();
                let drive = drive(self.tasks.clone(), instances, claim, span, allow_clock_skew, shutdown.clone());
                drives.spawn(async move {
                    let _permit = permit;
                    drive.await;
                });
            }
            tokio::select! {
                () = wait_for_shutdown(&mut shutdown) => {}
                Some(ended) = drives.join_next(), if !drives.is_empty() => log_crash(ended),
                _ = tokio::time::timeout(CLAIM_INTERVAL, self.tasks.hint.notified()) => {}
            }
        }
        while let Some(ended) = drives.join_next().await {
            log_crash(ended);
        }
        if let Err(error) = background.await {
            tracing::error!(%error, "instance poller crashed");
        }
    }

    /// Claims the next task. The permit comes first: a claimed task must start at once, because its lease is running.
    async fn claim(&self) -> Option<(OwnedSemaphorePermit, Claim, SpanId)> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let since = SystemTime::now();
        let limits = ClaimLimits { per_host: self.limits.per_host, places: self.limits.concurrency };
        match self.tasks.store.claim(&self.owner, LEASE, limits).await {
            Ok(claim) => {
                let claim = claim?;
                let (task_id, lease) = (&claim.task.id, &claim.lease);
                let mut span = self.tasks.traces.begin(task_id, SpanId::root(task_id), "task.claim");
                span.at(since, None);
                span.note("keysweep.instance.id", lease.instance_id.as_str());
                span.note("keysweep.epoch", lease.epoch);
                Some((permit, claim, span.id()))
            }
            Err(error) => {
                tracing::warn!(%error, "claim failed; retrying");
                None
            }
        }
    }
}

fn is_raised(shutdown: &watch::Receiver<bool>) -> bool {
    *shutdown.borrow()
}

fn log_crash(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "task driver crashed; its lease will expire and another worker take over");
    }
}

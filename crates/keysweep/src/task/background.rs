//! Work beside the tasks: keeping the schedule, polling and estimating instances, and restoring server settings after crashes.
//!
//! Polling, estimating and restoring are apart from the loop that claims tasks, because they wait for servers, and an unresponsive server
//! must delay neither a task nor the end of the process.

use std::time::Duration;

use jiff::Timestamp;
use keysweep_engine::{Stop, StopOnDrop};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{Tasks, lazyfree::restore_abandoned};
use crate::{
    instances::{CONCURRENT_POLLS, CONCURRENT_SAMPLINGS, Instances},
    model::now,
    store::{Store, StoreError},
};

/// A scheduled run is due to the second; this leaves half of one to create its task.
const SCHEDULE_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two searches for settings that crashed workers left changed.
const RESTORE_INTERVAL: Duration = Duration::from_secs(60);
/// How long entries of the audit trail are kept: a year, and what an audit of it takes.
const AUDIT_RETENTION: Duration = Duration::from_secs(400 * 24 * 3_600);
/// Entries of the audit trail that are kept of a project: each change of a project adds one, and nothing else bounds the changes.
const AUDIT_ENTRIES: u64 = 100_000;
/// Time between two searches for instances that are due to be polled: short, so that a new instance is soon polled.
const DUE_POLLS_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two searches for instances that are due to be estimated.
const DUE_ESTIMATES_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two searches for estimates and audit entries that are too old to be kept.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);
/// Instances whose oldest history is removed at a time.
const PRUNED: u32 = 1_000;

/// Keeps the schedule until shutdown. Every replica does; the store lets one of them create each run.
pub async fn keep_schedule(tasks: Tasks, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = every(SCHEDULE_INTERVAL);
    let mut is_failing = false;
    loop {
        tokio::select! {
            () = wait_for_shutdown(&mut shutdown) => return,
            _ = ticks.tick() => {}
        }
        match tasks.keep_schedule().await {
            Ok(_) => is_failing = false,
            // Twice a second would fill the log during an outage of the database.
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(%error, "the schedule cannot be read; retrying");
            }
            Err(_) => {}
        }
    }
}

/// Polls and estimates instances and restores settings until shutdown.
pub(super) async fn serve_instances(store: Store, instances: Instances, mut shutdown: watch::Receiver<bool>) {
    let stop = Stop::new();
    let _stop = StopOnDrop(stop.clone());
    tokio::select! {
        () = wait_for_shutdown(&mut shutdown) => {}
        () = restore(&store, &instances, &stop) => {}
        () = poll(&instances, &stop) => {}
        () = estimate(&instances) => {}
        () = instances.give_memory_back() => {}
        () = prune_estimates(&store) => {}
        () = prune_audit(&store) => {}
    }
}

async fn restore(store: &Store, instances: &Instances, stop: &Stop) {
    let mut ticks = every(RESTORE_INTERVAL);
    loop {
        ticks.tick().await;
        restore_abandoned(store, instances, stop).await;
    }
}

/// Does a round each `period`, and the next one at once where a round had `most` to do: then more is due.
async fn repeat<F>(period: Duration, most: usize, failed: &str, mut round: impl FnMut() -> F)
where
    F: Future<Output = Result<usize, StoreError>>,
{
    let mut ticks = every(period);
    loop {
        ticks.tick().await;
        loop {
            match round().await {
                Ok(done) if done >= most => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "{failed}; retrying");
                    break;
                }
            }
        }
    }
}

async fn poll(instances: &Instances, stop: &Stop) {
    let failed = "the results of polls cannot be stored";
    repeat(DUE_POLLS_INTERVAL, CONCURRENT_POLLS, failed, || instances.poll_due_instances(stop)).await;
}

async fn estimate(instances: &Instances) {
    let failed = "the results of estimates cannot be stored";
    repeat(DUE_ESTIMATES_INTERVAL, CONCURRENT_SAMPLINGS, failed, || instances.estimate_due_instances()).await;
}

/// Removes estimates and marks that are older than they are kept, and times of samples that have passed.
async fn prune_estimates(store: &Store) {
    let prune = async || {
        let pruned = store.prune_estimates(PRUNED).await?;
        Ok(pruned.points.max(pruned.marks).max(pruned.samples) as usize)
    };
    repeat(PRUNE_INTERVAL, PRUNED as usize, "old estimates cannot be removed", prune).await;
}

/// Removes entries of the audit trail that are older than it is kept, and the oldest ones of projects with too many.
async fn prune_audit(store: &Store) {
    let prune = async || {
        let mut removed = store.prune_audit(now().checked_sub(AUDIT_RETENTION).unwrap_or(Timestamp::MIN)).await?;
        for (project_id, mut excess) in store.audit_excess(AUDIT_ENTRIES).await? {
            while excess > 0 {
                let oldest = store.remove_oldest_audit(&project_id, excess).await?;
                removed += oldest;
                // Another replica removes them, too.
                excess = if oldest == 0 { 0 } else { excess.saturating_sub(oldest) };
            }
        }
        if removed > 0 {
            tracing::info!(removed, "old entries of the audit trail removed");
        }
        Ok(removed as usize)
    };
    repeat(PRUNE_INTERVAL, 1, "old entries of the audit trail cannot be removed", prune).await;
}

/// Returns an interval that ticks at once and then every `period`; a late tick does not make the next ones hurry.
pub(super) fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits until the process is to shut down. A dropped sender is a shutdown as well.
pub async fn wait_for_shutdown(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|is_shutdown| *is_shutdown).await;
}

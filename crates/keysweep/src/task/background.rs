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
    store::Store,
};

/// A scheduled run is due to the second; this leaves half of one to create its task.
const SCHEDULE_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two searches for settings that crashed workers left changed.
const RESTORE_INTERVAL: Duration = Duration::from_secs(60);
/// How long entries of the audit trail are kept: a year, and what an audit of it takes.
const AUDIT_RETENTION: Duration = Duration::from_secs(400 * 24 * 3_600);
/// Time between two searches for instances that are due to be polled: short, so that a new instance is soon polled.
const DUE_POLLS_INTERVAL: Duration = Duration::from_secs(5);

/// Time between two searches for instances that are due to be estimated.
const DUE_ESTIMATES_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two searches for estimates and audit entries that are too old to be kept.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);

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
        () = estimate(&instances, &stop) => {}
        () = prune(&instances) => {}
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

/// Removes entries of the audit trail that are older than it is kept.
async fn prune_audit(store: &Store) {
    let mut ticks = every(PRUNE_INTERVAL);
    loop {
        ticks.tick().await;
        let before = now().checked_sub(AUDIT_RETENTION).unwrap_or(Timestamp::MIN);
        loop {
            match store.prune_audit(before).await {
                Ok(0) => break,
                Ok(removed) => tracing::info!(removed, "old entries of the audit trail removed"),
                Err(error) => {
                    tracing::debug!(%error, "old entries of the audit trail cannot be removed; retrying");
                    break;
                }
            }
        }
    }
}

async fn poll(instances: &Instances, stop: &Stop) {
    let mut ticks = every(DUE_POLLS_INTERVAL);
    loop {
        ticks.tick().await;
        // When more instances are due than are polled at a time, the next ones follow at once.
        loop {
            match instances.poll_due_instances(stop).await {
                Ok(polled) if polled >= CONCURRENT_POLLS && !stop.is_raised() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "the results of polls cannot be stored; retrying");
                    break;
                }
            }
        }
    }
}

async fn estimate(instances: &Instances, stop: &Stop) {
    let mut ticks = every(DUE_ESTIMATES_INTERVAL);
    loop {
        ticks.tick().await;
        loop {
            match instances.estimate_due_instances(stop).await {
                Ok(estimated) if estimated >= CONCURRENT_SAMPLINGS && !stop.is_raised() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "the results of estimates cannot be stored; retrying");
                    break;
                }
            }
        }
    }
}

async fn prune(instances: &Instances) {
    let mut ticks = every(PRUNE_INTERVAL);
    loop {
        ticks.tick().await;
        if let Err(error) = instances.prune_estimates().await {
            tracing::debug!(%error, "old estimates cannot be removed; retrying");
        }
    }
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

//! The workers that hold: one for each instance, under a lease. A worker that dies leaves values within the policy's limits,
//! and the next one adopts them.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use keysweep_engine::{HoldLevel, HoldPolicy, HoldState, Holder, NodeStatus, Stop, StopOnDrop};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinError, JoinHandle, JoinSet},
};

use super::{Holds, LEASE, host::Host, recovery};
use crate::{
    model::{HeldServer, HoldLease, HoldReport, Instance},
    store::{HoldRenewal, Store},
    task::background::wait_for_shutdown,
};

/// Time between two renewals, after which a changed policy is known at the latest.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two attempts to restore servers, at most.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two claims.
const CLAIM_INTERVAL: Duration = Duration::from_secs(2);
/// Instances that one process holds at a time.
const MAX_HOLDS: usize = 256;
/// Most of them of one project, three quarters: a hold lasts, and others would find no place.
const MAX_HOLDS_OF_A_PROJECT: u32 = 192;

/// Holds instances until shutdown. Leases are released then, and the settings stay for the next worker.
pub async fn keep_holds(holds: Holds, mut shutdown: watch::Receiver<bool>) {
    let (mut keepers, mut is_failing) = (JoinSet::new(), false);
    while !*shutdown.borrow() {
        let free = (MAX_HOLDS - keepers.len().min(MAX_HOLDS)) as u32;
        match holds.store.claim_holds(&holds.owner, LEASE, free, MAX_HOLDS_OF_A_PROJECT).await {
            Ok(leases) => {
                is_failing = false;
                holds.changes.flush(&holds.store).await;
                for lease in leases {
                    keepers.spawn(keep(holds.clone(), lease, shutdown.clone()));
                }
            }
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(%error, "instances to hold cannot be claimed; retrying");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = wait_for_shutdown(&mut shutdown) => {}
            () = tokio::time::sleep(CLAIM_INTERVAL) => {}
        }
        while let Some(ended) = keepers.try_join_next() {
            log_crash(ended);
        }
    }
    while let Some(ended) = keepers.join_next().await {
        log_crash(ended);
    }
    holds.changes.flush(&holds.store).await;
}

fn log_crash(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "holder crashed; its lease will expire and another worker take over");
    }
}

/// What one worker holds.
struct Keeper {
    holds: Holds,
    lease: HoldLease,
    /// Ends a round; raised on shutdown.
    stop: Stop,
    shutdown: watch::Receiver<bool>,
    holder: Option<Holder>,
    /// When the next round is due.
    due: Instant,
    renewed_at: Instant,
    /// What the last round has found, until it is saved.
    report: Option<HoldReport>,
    /// Why the last round failed, which was logged.
    failure: Option<String>,
    /// Whether all servers have their own settings; `None`: that is not known yet.
    is_settled: Option<bool>,
}

/// Holds one instance until shutdown, until another worker has the lease, or until there is nothing left to hold.
async fn keep(holds: Holds, lease: HoldLease, mut shutdown: watch::Receiver<bool>) {
    holds.counts.hold_started(&lease.instance_id);
    let stop = Stop::new();
    let _stop = StopOnDrop(stop.clone());
    let now = Instant::now();
    let mut keeper = Keeper {
        holds,
        lease,
        stop,
        shutdown: shutdown.clone(),
        holder: None,
        due: now,
        renewed_at: now,
        report: None,
        failure: None,
        is_settled: None,
    };
    let mut known: Option<(Instance, HoldPolicy)> = None;
    loop {
        let renewed = keeper.holds.store.renew_hold(&keeper.lease, LEASE, keeper.report.as_ref()).await;
        match renewed {
            Ok(HoldRenewal::Held(instance, policy)) => {
                (keeper.renewed_at, keeper.report) = (Instant::now(), None);
                let level = if instance.paused { HoldLevel::Observe } else { policy.level };
                let policy = HoldPolicy { level, ..policy };
                if known.as_ref().is_none_or(|(_, before)| *before != policy) {
                    keeper.due = Instant::now();
                }
                known = Some((*instance, policy));
            }
            Ok(HoldRenewal::Lost) => {
                tracing::warn!(instance_id = keeper.lease.instance_id, "another worker holds this instance now");
                return;
            }
            Ok(HoldRenewal::Gone) => {
                if let Some((instance, policy)) = known {
                    let policy = HoldPolicy { level: HoldLevel::Observe, ..policy };
                    let _ = keeper.round(&instance, policy).await;
                }
                return;
            }
            Err(error) => tracing::debug!(%error, "a lease cannot be renewed; retrying"),
        }
        if let Some((instance, policy)) = &known
            && Instant::now() >= keeper.due
        {
            let begun = Instant::now();
            keeper.is_settled = keeper.round(instance, *policy).await;
            let is_restoring = policy.level == HoldLevel::Observe;
            keeper.due = begun + if is_restoring { policy.interval().min(RETRY_INTERVAL) } else { policy.interval() };
            if is_restoring && keeper.is_settled == Some(true) {
                let report = keeper.report.as_ref();
                // Another worker claims the instance again if this fails.
                drop(keeper.holds.store.renew_hold(&keeper.lease, LEASE, report).await);
                drop(keeper.holds.store.release_hold(&keeper.lease, Some(false)).await);
                return;
            }
        }
        let pause = keeper.due.saturating_duration_since(Instant::now()).min(RENEWAL_INTERVAL);
        tokio::select! {
            () = wait_for_shutdown(&mut shutdown) => {
                drop(keeper.holds.store.release_hold(&keeper.lease, keeper.is_settled.map(|is| !is)).await);
                return;
            }
            () = tokio::time::sleep(pause.max(Duration::from_millis(200))) => {}
        }
    }
}

/// Waits for the end of a round, which servers that do not answer may delay for longer than the lease lasts, and renews the lease
/// meanwhile. A shutdown raises the stop, which ends the round. Returns also when the lease was renewed last.
async fn wait<T, R: Future<Output = bool>>(
    mut round: JoinHandle<T>,
    interval: Duration,
    renew: impl Fn() -> R,
    shutdown: &mut watch::Receiver<bool>,
    stop: &Stop,
) -> (Result<T, JoinError>, Option<Instant>) {
    let mut renewed_at = None;
    loop {
        tokio::select! {
            done = &mut round => return (done, renewed_at),
            () = wait_for_shutdown(shutdown), if !stop.is_raised() => {
                stop.raise();
                continue;
            }
            () = tokio::time::sleep(interval) => {}
        }
        if renew().await {
            renewed_at = Some(Instant::now());
        }
    }
}

/// Renews the lease beside a round. Returns whether this worker has it.
async fn renew(store: Store, lease: HoldLease) -> bool {
    let renewed = store.renew_hold(&lease, LEASE, None).await;
    // Without the lease nothing is recorded any more, so that nothing is raised; the next renewal ends this keeper.
    renewed.inspect_err(|error| tracing::debug!(%error, "a lease cannot be renewed; retrying")).is_ok_and(is_held)
}

fn is_held(renewal: HoldRenewal) -> bool {
    matches!(renewal, HoldRenewal::Held(..))
}

impl Keeper {
    /// One round over the servers of an instance. Returns whether none of them has other settings than its own; `None`: that has
    /// not become known.
    async fn round(&mut self, instance: &Instance, policy: HoldPolicy) -> Option<bool> {
        let (target, dialer) = match self.holds.instances.connect_for_upkeep(instance) {
            Ok(connection) => connection,
            Err(error) => {
                let servers = self.holder.as_ref().map(servers);
                self.report(instance, servers, Some(error.to_string()));
                let Holds { store, file, .. } = &self.holds;
                let records = recovery::records(store, file, instance).await.ok()?;
                return Some(records.iter().all(|record| record.is_restored));
            }
        };
        let mut holder = self.holder.take().unwrap_or_else(|| Holder::new(policy));
        if *holder.policy() != policy {
            holder.set_policy(policy);
        }
        let host = Host {
            holds: self.holds.clone(),
            lease: self.lease.clone(),
            instance: instance.clone(),
            runtime: Handle::current(),
            renewed_at: self.renewed_at,
            newest: Mutex::new(None),
        };
        let stop = self.stop.clone();
        let done = tokio::task::spawn_blocking(move || {
            let found = holder.round(&*dialer, &target, &host, &stop);
            (holder, found)
        });
        let (store, lease) = (self.holds.store.clone(), self.lease.clone());
        let renewal = move || renew(store.clone(), lease.clone());
        let (done, renewed_at) = wait(done, RENEWAL_INTERVAL, renewal, &mut self.shutdown, &self.stop).await;
        self.renewed_at = renewed_at.unwrap_or(self.renewed_at);
        let (holder, found) = match done {
            Ok(done) => done,
            Err(panic) => {
                tracing::error!(%panic, "holder crashed");
                self.report(
                    instance,
                    None,
                    Some("the worker failed with an internal error, which its log shows".into()),
                );
                return None;
            }
        };
        let has_own = |node: &NodeStatus| match policy.level {
            // A value of others was left, or the server has its own.
            HoldLevel::Observe => node.status.state == HoldState::Off,
            _ => node.status.setting.is_some() && !node.status.differs(),
        };
        // A server to which nothing was written is not waited for: it may never answer, or refuse CONFIG.
        let is_settled = match holder.has_to_restore() {
            Some(true) => Some(found.is_ok() && holder.statuses().iter().all(has_own)),
            Some(false) => Some(true),
            None => None,
        };
        // What a shutdown has cut short has failed for no cause of its own.
        let failure = found.err().filter(|_| !self.stop.is_raised());
        self.report(instance, Some(servers(&holder)), failure.map(|failure| failure.message));
        self.holder = Some(holder);
        is_settled
    }

    /// Keeps what a round has found until it is saved, and logs each cause of failures once.
    fn report(&mut self, instance: &Instance, servers: Option<Vec<HeldServer>>, failure: Option<String>) {
        if let Some(cause) = failure.as_ref().filter(|_| failure != self.failure) {
            tracing::warn!(instance_id = instance.id, cause, "not all servers of the instance are watched");
        }
        self.failure.clone_from(&failure);
        self.report = Some(HoldReport { servers, failure });
    }
}

/// Returns what a holder knows of each server.
fn servers(holder: &Holder) -> Vec<HeldServer> {
    holder.statuses().into_iter().map(|node| HeldServer { address: node.address, status: node.status }).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tempfile::TempDir;

    use super::*;
    use crate::{model::Project, store::Clock};

    /// A primary that hangs delays a round by seconds, and four of them by more than the lease lasts.
    #[tokio::test]
    async fn a_round_that_is_slower_than_the_lease_keeps_it() {
        let folder = TempDir::new().expect("a folder");
        let store = Store::open_sqlite(&folder.path().join("keysweep.db")).await.expect("a store");
        let begun = jiff::Timestamp::UNIX_EPOCH;
        let project = Project { id: "a".repeat(32), name: "shop".into(), created_at: begun };
        store.add_project(&project).await.expect("added");
        let instance = Instance::new("b".repeat(32), project.id, "cache".into(), "redis://one".into(), begun);
        store.add_instance(&instance).await.expect("added");
        let policy = HoldPolicy { level: HoldLevel::Hold, ..HoldPolicy::default() };
        store.set_hold(&instance.id, &policy).await.expect("set");
        let at = |seconds| store.with_clock(Clock::at(begun + Duration::from_secs(seconds)));
        let lease = at(0).claim_holds("one", LEASE, 1, 1).await.expect("claimed").remove(0);

        let (seconds, length) = (Cell::new(0), LEASE.as_secs() * 3);
        let (end, ended) = tokio::sync::oneshot::channel();
        let end = Cell::new(Some(end));
        let renewal = async || {
            seconds.set(seconds.get() + RENEWAL_INTERVAL.as_secs());
            let now = seconds.get();
            assert!(renew(at(now), lease.clone()).await, "after {now} s");
            assert_eq!(at(now + 1).claim_holds("two", LEASE, 1, 1).await.expect("an answer"), []);
            if now >= length
                && let Some(end) = end.take()
            {
                end.send(()).expect("the round waits");
            }
            true
        };
        let (_running, mut shutdown) = watch::channel(false);
        let stop = Stop::new();
        let (waited, renewed_at) =
            wait(tokio::spawn(ended), Duration::from_millis(1), renewal, &mut shutdown, &stop).await;
        assert!(!stop.is_raised());
        waited.expect("no panic").expect("it ended");
        assert!(seconds.get() >= length && renewed_at.is_some(), "{seconds:?}");
        let late = at(seconds.get() + LEASE.as_secs() + 1).claim_holds("two", LEASE, 1, 1).await.expect("an answer");
        assert_eq!(late.len(), 1, "without renewals it expires");
    }

    #[tokio::test]
    async fn a_round_that_waits_for_servers_ends_with_the_shutdown() {
        let (down, mut shutdown) = watch::channel(false);
        let stop = Stop::new();
        let server = stop.clone();
        let round = tokio::task::spawn_blocking(move || server.wait_until(Instant::now() + Duration::from_secs(3_600)));
        down.send_replace(true);
        let (ended, _) = wait(round, RENEWAL_INTERVAL, async || true, &mut shutdown, &stop).await;
        ended.expect("no panic");
        assert!(stop.is_raised());
    }
}

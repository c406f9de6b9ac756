//! One task from its claim to its end: the scan in a thread of its own, and beside it a heartbeat every second that renews
//! the lease, stores the numbers and reads whether to stop.

use std::{sync::Arc, time::Duration};

use keysweep_engine::{
    Checkpoint, LazyFreeRegistry, Options, Report, Stop, StopOnDrop, Target, link::Dialer, sweep_through,
};
use tokio::{sync::watch, time::Instant};

use super::{
    Tasks,
    background::{every, wait_for_shutdown},
    checkpoint::{self, Due},
    lazyfree::Registry,
    listener::{Latest, Listener},
    state::{CANCELLED, Conclusion, Halt, conclude},
    tracer::{StartTimes, Tracer},
};
use crate::{
    instances::{InstanceError, Instances},
    metrics::{Counts, ScanCounts},
    model::Reason,
    store::{Claim, Heartbeat, HeartbeatOutcome, Store, TaskResult},
    telemetry::traces::SpanId,
};

/// How long a lease lasts without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(15);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Without a successful heartbeat for this time, by the monotonic clock, the worker stops its scan before the lease expires.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long releasing a lease is retried, and how long at a shutdown. When the store comes back within that time, the next
/// worker need not wait until the lease expires, and the task's count stays exact.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
const SHUTDOWN_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// More often than workers look for expired leases.
const RELEASE_INTERVAL: Duration = Duration::from_millis(200);
/// How long a lost server is retried.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Carries out a claimed task. Returns when the task has finished or another worker has it. `allow_clock_skew`: whether
/// clocks that differ too much are a warning.
pub async fn drive(
    tasks: Tasks,
    instances: Instances,
    claim: Claim,
    claimed: SpanId,
    allow_clock_skew: bool,
    shutdown: watch::Receiver<bool>,
) {
    let task = &claim.task;
    if let (Some(started_at), true) = (task.started_at, task.used.is_zero() && claim.checkpoint.is_none()) {
        tasks.counts.task_started(started_at.duration_since(task.created_at).unsigned_abs());
    }
    let Tasks { store, counts, traces, .. } = tasks;
    let tracer = Tracer { traces, claimed };
    let drive = Drive { store, counts, tracer, claim, claimed_at: Instant::now(), latest: Latest::default() };
    if drive.claim.task.cancel_requested {
        drive.finish(Err((Reason::Cancelled, CANCELLED.into())), drive.numbers(true), None).await;
        return;
    }
    match drive.connection(&instances) {
        Ok((target, dialer)) => {
            let target = Target { allow_clock_skew, ..target };
            drive.run(&instances, target, dialer, shutdown).await;
        }
        Err(failure) => {
            let numbers = drive.numbers(drive.claim.task.exact);
            drive.finish(Err(failure), numbers, None).await;
        }
    }
}

struct Drive {
    store: Store,
    counts: Counts,
    tracer: Tracer,
    claim: Claim,
    claimed_at: Instant,
    latest: Latest,
}

impl Drive {
    /// Returns the target and a dialer, or why the task fails without a scan. Retrying would not help: a stored setting must
    /// be set again, or the key file put back.
    fn connection(&self, instances: &Instances) -> Result<(Target, Box<dyn Dialer>), (Reason, String)> {
        let instance = &self.claim.instance;
        let readable = instances.check_readable(instance, self.claim.task.scan_type);
        readable.and_then(|()| instances.connect_to(instance)).map_err(|error| {
            tracing::error!(task_id = self.claim.task.id, instance_id = instance.id, %error, "task not started");
            match error {
                InstanceError::Unreadable { .. } => (Reason::Refused, error.to_string()),
                _ => {
                    let sentence = "the instance's stored connection details cannot be read; set its URL and password again, or check the key file";
                    (Reason::Internal, sentence.to_owned())
                }
            }
        })
    }

    async fn run(
        self,
        instances: &Instances,
        target: Target,
        dialer: Box<dyn Dialer>,
        shutdown: watch::Receiver<bool>,
    ) {
        let stop = Stop::new();
        // However this future ends, no scan outlives its worker.
        let _stop = StopOnDrop(stop.clone());
        let checkpoint = self.checkpoint();
        let (scanned, reclaimed) =
            checkpoint.as_ref().map_or((0, 0), |checkpoint| (checkpoint.keys_scanned, checkpoint.keys_reclaimed));
        let counts = Arc::new(self.counts.scan(&self.claim.task.instance_id, scanned, reclaimed));
        let started = StartTimes::now();
        let listener = Listener {
            task_id: self.claim.task.id.clone(),
            latest: self.latest.clone(),
            counts: Arc::clone(&counts),
            started: started.clone(),
            _running: self.counts.running(),
        };
        let (options, scan_stop) = (self.options(checkpoint), stop.clone());
        tracing::info!(task_id = self.claim.task.id, epoch = self.claim.lease.epoch, server = %target, "scan started");
        let scan =
            tokio::task::spawn_blocking(move || sweep_through(&*dialer, &target, &options, &listener, &scan_stop));
        let (halt, report) = self.supervise(scan, &stop, shutdown.clone()).await;
        match report {
            Some(report) => {
                counts.returned(&report);
                self.tracer.scanned(&self.claim.task, &report, &started);
                self.conclude(instances, halt, report, &counts, &shutdown).await;
            }
            // The worker that has the task now finishes it.
            None if halt == Halt::LeaseLost => {}
            None => {
                let sentence = "the scan crashed; this is a fault of keysweep, see its log".to_owned();
                let numbers = self.numbers(false);
                self.finish(Err((Reason::Internal, sentence)), numbers, None).await;
            }
        }
    }

    /// Returns the checkpoint of an earlier worker. One that cannot be read starts the scan again.
    fn checkpoint(&self) -> Option<Checkpoint> {
        let json = self.claim.checkpoint.as_deref()?;
        let read = serde_json::from_str(json);
        read.inspect_err(|error| {
            tracing::warn!(task_id = self.claim.task.id, %error, "checkpoint unreadable; the scan starts again");
        })
        .ok()
    }

    fn options(&self, checkpoint: Option<Checkpoint>) -> Options {
        let (task, instance) = (&self.claim.task, &self.claim.instance);
        // An unreadable pace has failed the task before.
        let pace = instance.pace.value().copied().unwrap_or_default();
        let mut limits = pace.limits();
        limits.keys_per_second = task.keys_per_second;
        Options {
            limits,
            pace: pace.to_string(),
            timeout: Some(task.timeout.saturating_sub(task.used)),
            reconnect_timeout: RECONNECT_TIMEOUT,
            client_name: format!("keysweep:{}", task.id),
            checkpoint: checkpoint.map(|checkpoint| Checkpoint { exact: checkpoint.exact && task.exact, ..checkpoint }),
            lazyfree: instance.manage_lazyfree.then(|| {
                let runtime = tokio::runtime::Handle::current();
                Arc::new(Registry { store: self.store.clone(), task_id: task.id.clone(), runtime })
                    as Arc<dyn LazyFreeRegistry>
            }),
            ..Options::default()
        }
    }

    /// Sends heartbeats until the scan returns, and stops the scan when there is a reason to.
    async fn supervise(
        &self,
        mut scan: tokio::task::JoinHandle<Report>,
        stop: &Stop,
        mut shutdown: watch::Receiver<bool>,
    ) -> (Halt, Option<Report>) {
        let mut halt = Halt::None;
        let (mut last_success, mut due) = (self.claimed_at, Due::default());
        let mut heartbeats = every(HEARTBEAT_INTERVAL);
        let log_crash = |error: &tokio::task::JoinError| {
            tracing::error!(task_id = self.claim.task.id, %error, "scan crashed");
        };
        loop {
            let reason = tokio::select! {
                report = &mut scan => return (halt, report.inspect_err(log_crash).ok()),
                () = wait_for_shutdown(&mut shutdown), if halt == Halt::None => Halt::Shutdown,
                // A lost lease stays lost: another heartbeat would only count the loss once more.
                _ = heartbeats.tick(), if halt != Halt::LeaseLost => self.heartbeat(&mut last_success, &mut due).await,
            };
            if reason != Halt::None {
                halt = reason;
                stop.raise();
            }
        }
    }

    /// Sends a heartbeat. `due`: when the checkpoint may be stored with it.
    async fn heartbeat(&self, last_success: &mut Instant, due: &mut Due) -> Halt {
        let numbers = self.numbers_with(true, due.is_at(Instant::now()));
        match self.store.heartbeat(&self.claim.lease, LEASE, &numbers).await {
            Ok(HeartbeatOutcome::Held { cancel_requested, closed_until }) => {
                *last_success = Instant::now();
                if let Some(checkpoint) = &numbers.checkpoint {
                    due.stored(Instant::now(), checkpoint.len());
                }
                match () {
                    () if cancel_requested => Halt::Cancelled,
                    () if closed_until.is_some() => Halt::WindowClosed,
                    () => Halt::None,
                }
            }
            Ok(HeartbeatOutcome::Lost) => {
                self.counts.lease_lost();
                tracing::warn!(task_id = self.claim.task.id, "lease lost; another worker resumes the task");
                Halt::LeaseLost
            }
            Err(error) if last_success.elapsed() >= HEARTBEAT_TIMEOUT => {
                tracing::warn!(task_id = self.claim.task.id, %error, "lease not renewed; the scan stops");
                Halt::LeaseAtRisk
            }
            Err(error) => {
                tracing::warn!(task_id = self.claim.task.id, %error, "heartbeat failed; retrying");
                Halt::None
            }
        }
    }

    /// Returns the numbers of the task as they are now. `live`: the scan's own count is exact as far as the engine knows.
    fn numbers(&self, live: bool) -> Heartbeat {
        self.numbers_with(live, true)
    }

    /// Returns the same, with the checkpoint where `has_checkpoint`.
    fn numbers_with(&self, live: bool, has_checkpoint: bool) -> Heartbeat {
        let task = &self.claim.task;
        let used = task.used + self.claimed_at.elapsed();
        match self.latest.get() {
            Some((progress, checkpoint)) => Heartbeat {
                used,
                reclaimed: checkpoint.keys_reclaimed,
                scanned: checkpoint.keys_scanned,
                exact: live && checkpoint.exact && task.exact,
                progress: serde_json::to_string(&progress).ok(),
                checkpoint: has_checkpoint.then(|| checkpoint::stored(&checkpoint)).flatten(),
            },
            None => Heartbeat {
                used,
                reclaimed: task.reclaimed,
                scanned: task.scanned,
                exact: live && task.exact,
                ..Heartbeat::default()
            },
        }
    }

    async fn conclude(
        &self,
        instances: &Instances,
        halt: Halt,
        report: Report,
        counts: &ScanCounts,
        shutdown: &watch::Receiver<bool>,
    ) {
        let task_id = &self.claim.task.id;
        let numbers = Heartbeat {
            reclaimed: report.totals.keys_reclaimed,
            scanned: report.totals.keys_scanned,
            exact: report.totals.exact && self.claim.task.exact,
            ..self.numbers(true)
        };
        match conclude(halt, &report) {
            Conclusion::Finish(outcome) => {
                let reason = outcome.as_ref().err().map(|(reason, _)| reason.as_str());
                tracing::info!(
                    task_id,
                    reason,
                    keys_scanned = report.totals.keys_scanned,
                    keys_reclaimed = report.totals.keys_reclaimed,
                    elapsed_ms = self.claimed_at.elapsed().as_millis() as u64,
                    "scan finished"
                );
                let running = self.claim.task.used + Duration::from_secs_f64(report.totals.elapsed_seconds.max(0.0));
                if self.finish(outcome, numbers, serde_json::to_string(&report).ok()).await {
                    counts.finished(&report, running);
                }
                // The instance's stats show at once what the scan changed.
                if let Err(error) = instances.poll(&self.claim.instance).await {
                    tracing::warn!(task_id, %error, "poll after the scan failed");
                }
            }
            Conclusion::Release => self.release(&numbers, shutdown).await,
            Conclusion::Abandon => {}
        }
    }

    async fn release(&self, numbers: &Heartbeat, shutdown: &watch::Receiver<bool>) {
        let (task_id, since) = (&self.claim.task.id, Instant::now());
        loop {
            match self.store.release_lease(&self.claim.lease, numbers).await {
                Ok(HeartbeatOutcome::Held { closed_until: Some(until), .. }) => {
                    return tracing::info!(task_id, %until, "maintenance window closed; the scan resumes when it opens");
                }
                Ok(HeartbeatOutcome::Held { closed_until: None, .. }) => {
                    return tracing::info!(task_id, "lease released; the next worker resumes the task");
                }
                Ok(HeartbeatOutcome::Lost) => return tracing::info!(task_id, "another worker has taken over the task"),
                Err(error) => {
                    let timeout = if *shutdown.borrow() { SHUTDOWN_RELEASE_TIMEOUT } else { RELEASE_TIMEOUT };
                    if since.elapsed() >= timeout {
                        return tracing::warn!(task_id, %error, "lease not released; it will expire");
                    }
                }
            }
            tokio::time::sleep(RELEASE_INTERVAL).await;
        }
    }

    /// Stores the end of the task, and retries during an outage of the store for as long as the lease may last, so that
    /// nothing is scanned twice. This is the one place where a task finishes. Returns whether the end is stored.
    async fn finish(
        &self,
        outcome: Result<(), (Reason, String)>,
        heartbeat: Heartbeat,
        report: Option<String>,
    ) -> bool {
        let ending = TaskResult { outcome, heartbeat, report };
        let deadline = Instant::now() + LEASE;
        loop {
            match self.store.finish(&self.claim.lease, &ending).await {
                Ok(HeartbeatOutcome::Held { .. }) => {
                    self.counts.task_finished(ending.outcome.as_ref().err().map(|(reason, _)| reason));
                    return true;
                }
                Ok(HeartbeatOutcome::Lost) => {
                    self.counts.lease_lost();
                    tracing::warn!(task_id = self.claim.task.id, "lease lost before the task finished");
                    return false;
                }
                Err(error) if Instant::now() >= deadline => {
                    tracing::error!(task_id = self.claim.task.id, %error, "the task's end was not stored; another worker will take over");
                    return false;
                }
                Err(_) => tokio::time::sleep(HEARTBEAT_INTERVAL).await,
            }
        }
    }
}

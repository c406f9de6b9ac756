//! One task from its claim to its end: the sweep in a thread of its own, and beside it a beat a second that renews
//! the lease, keeps the numbers and hears whether to stop.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keysweep_engine::{
    Checkpoint, LazyFreeRegistry, Monitor, Options, Preset, Progress, Report, Stop, Target, link::Dialer, sweep_through,
};
use tokio::{sync::watch, time::Instant};

use super::{
    Tasks,
    lazyfree::Keeper,
    rounds::every,
    state::{CANCELLED, Conclusion, Halt, conclude},
    tracer::{Begun, Tracer},
};
use crate::{
    fleet::Fleet,
    metrics::{Counts, RunningScan, ScanCounts},
    model::Reason,
    store::{Beat, Claim, Ending, Pulse, Store},
    telemetry::traces::SpanId,
};

/// How long a lease lasts without a beat.
pub const LEASE: Duration = Duration::from_secs(15);
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Without a successful beat for so long, by the monotonic clock, the worker stops before its lease ends.
const BEATLESS: Duration = Duration::from_secs(10);
/// How long a lease that cannot be given back is held on to, and how long at a shutdown: where the store comes back in that
/// time, the next worker need not wait for the lease's end, and the task's count stays exact.
const GIVE_BACK_PATIENCE: Duration = Duration::from_secs(60);
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);
/// More often than a worker looks for leases that have expired.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(200);
/// How long an instance's server may be away in mid-task.
const UNREACHABLE_GRACE: Duration = Duration::from_secs(5 * 60);

/// Carries out a claimed task. Returns when the task has ended or is somebody else's.
pub async fn drive(tasks: Tasks, fleet: Fleet, claim: Claim, claimed: SpanId, shutdown: watch::Receiver<bool>) {
    let task = &claim.task;
    if let (Some(started_at), true) = (task.started_at, task.used.is_zero() && claim.checkpoint.is_none()) {
        tasks.counts.task_started(started_at.duration_since(task.created_at).unsigned_abs());
    }
    let Tasks { store, counts, traces, .. } = tasks;
    let tracer = Tracer { traces, claimed };
    let drive = Drive { store, counts, tracer, claim, begun: Instant::now(), latest: Latest::default() };
    let task_id = drive.claim.task.id.clone();
    if drive.claim.task.cancel_requested {
        drive.end(Err((Reason::Cancelled, CANCELLED.into())), drive.beat(true), None).await;
        return;
    }
    match fleet.way_to(&drive.claim.instance) {
        Ok((target, dialer)) => drive.run(&fleet, target, dialer, shutdown).await,
        Err(error) => {
            // The master key or the stored URL is wrong: no retry will mend that.
            tracing::error!(task_id, %error, "an instance's connection details cannot be read");
            let sentence =
                "the instance's stored connection details cannot be read; register it anew, or check the key file";
            let beat = drive.beat(drive.claim.task.exact);
            drive.end(Err((Reason::Internal, sentence.into())), beat, None).await;
        }
    }
}

struct Drive {
    store: Store,
    counts: Counts,
    tracer: Tracer,
    claim: Claim,
    begun: Instant,
    latest: Latest,
}

/// The newest that the sweep has said.
#[derive(Default, Clone)]
struct Latest(Arc<Mutex<Option<(Progress, Checkpoint)>>>);

impl Latest {
    fn get(&self) -> Option<(Progress, Checkpoint)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Hears a sweep on behalf of a task.
struct Listener {
    task_id: String,
    latest: Latest,
    counts: Arc<ScanCounts>,
    begun: Begun,
    _running: RunningScan,
}

impl Monitor for Listener {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.begun.see(progress);
        self.counts.progress(checkpoint.keys_scanned, checkpoint.keys_reclaimed);
        let now = Some((progress.clone(), checkpoint.clone()));
        *self.latest.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn slice(&self, cost: Duration) {
        self.counts.slice(cost);
    }

    fn probe(&self, round_trip: Duration) {
        self.counts.probe(round_trip);
    }

    fn note(&self, sentence: &str) {
        tracing::warn!(task_id = self.task_id, "{sentence}");
    }
}

impl Drive {
    async fn run(self, fleet: &Fleet, target: Target, dialer: Box<dyn Dialer>, shutdown: watch::Receiver<bool>) {
        let stop = Stop::new();
        // Raised however this future ends, so that no sweep outlives the one who answers for it.
        let _guard = RaiseOnDrop(stop.clone());
        let checkpoint = self.checkpoint();
        let (scanned, released) =
            checkpoint.as_ref().map_or((0, 0), |checkpoint| (checkpoint.keys_scanned, checkpoint.keys_reclaimed));
        let counts = Arc::new(self.counts.scan(&self.claim.task.instance_id, scanned, released));
        let (task_id, latest) = (self.claim.task.id.clone(), self.latest.clone());
        let begun = Begun::now();
        let _running = self.counts.running();
        let listener = Listener { task_id, latest, counts: Arc::clone(&counts), begun: begun.clone(), _running };
        let (options, sweep_stop) = (self.options(checkpoint), stop.clone());
        tracing::info!(task_id = self.claim.task.id, epoch = self.claim.lease.epoch, server = %target, "sweep begins");
        let swept =
            tokio::task::spawn_blocking(move || sweep_through(&*dialer, &target, &options, &listener, &sweep_stop));
        let (halt, report) = self.accompany(swept, &stop, shutdown.clone()).await;
        match report {
            Some(report) => {
                counts.returned(&report);
                self.tracer.swept(&self.claim.task, &report, &begun);
                self.conclude(fleet, halt, report, &counts, &shutdown).await;
            }
            // Whoever has the task now says what becomes of it.
            None if halt == Halt::Lost => {}
            None => {
                let sentence = "the sweep died; this is a fault of keysweep, see its log".to_owned();
                let beat = self.beat(false);
                self.end(Err((Reason::Internal, sentence)), beat, None).await;
            }
        }
    }

    /// Where an earlier worker got to, if this version can read it.
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.claim.checkpoint.as_deref().and_then(|json| serde_json::from_str(json).ok())
    }

    fn options(&self, checkpoint: Option<Checkpoint>) -> Options {
        let (task, instance) = (&self.claim.task, &self.claim.instance);
        let preset: Preset = instance.pace.parse().unwrap_or_default();
        let mut limits = preset.limits();
        limits.keys_per_second = task.keys_per_second;
        Options {
            limits,
            pace: preset.to_string(),
            timeout: Some(task.timeout.saturating_sub(task.used)),
            reconnect_timeout: UNREACHABLE_GRACE,
            client_name: format!("keysweep:{}", task.id),
            checkpoint: checkpoint.map(|checkpoint| Checkpoint { exact: checkpoint.exact && task.exact, ..checkpoint }),
            lazyfree: instance.manage_lazyfree.then(|| {
                let runtime = tokio::runtime::Handle::current();
                Arc::new(Keeper { store: self.store.clone(), task_id: task.id.clone(), runtime })
                    as Arc<dyn LazyFreeRegistry>
            }),
            ..Options::default()
        }
    }

    /// Beats until the sweep returns; tells it to stop when there is reason to.
    async fn accompany(
        &self,
        mut swept: tokio::task::JoinHandle<Report>,
        stop: &Stop,
        mut shutdown: watch::Receiver<bool>,
    ) -> (Halt, Option<Report>) {
        let mut halt = Halt::None;
        let mut last_success = self.begun;
        let mut beats = every(BEAT_EVERY);
        loop {
            let reason = tokio::select! {
                report = &mut swept => return (halt, report.inspect_err(|error| tracing::error!(task_id = self.claim.task.id, %error, "a sweep died")).ok()),
                () = told(&mut shutdown), if halt == Halt::None => Halt::Shutdown,
                // A lease that is lost stays so: another beat would only count it as lost once more.
                _ = beats.tick(), if halt != Halt::Lost => self.pulse(&mut last_success).await,
            };
            if reason != Halt::None {
                halt = reason;
                stop.raise();
            }
        }
    }

    async fn pulse(&self, last_success: &mut Instant) -> Halt {
        match self.store.beat(&self.claim.lease, LEASE, &self.beat(true)).await {
            Ok(Pulse::Held { cancel_requested, closed_until }) => {
                *last_success = Instant::now();
                match () {
                    () if cancel_requested => Halt::Cancelled,
                    () if closed_until.is_some() => Halt::Closed,
                    () => Halt::None,
                }
            }
            Ok(Pulse::Lost) => {
                self.counts.lease_lost();
                tracing::warn!(task_id = self.claim.task.id, "the lease is lost; another worker goes on");
                Halt::Lost
            }
            Err(error) if last_success.elapsed() >= BEATLESS => {
                tracing::warn!(task_id = self.claim.task.id, %error, "the lease cannot be renewed; the sweep stops");
                Halt::Beatless
            }
            Err(error) => {
                tracing::warn!(task_id = self.claim.task.id, %error, "a beat failed; trying again");
                Halt::None
            }
        }
    }

    /// The numbers as they are now. `live`: with what `keys_released` counts now, exact as far as the engine knows.
    fn beat(&self, live: bool) -> Beat {
        let task = &self.claim.task;
        let used = task.used + self.begun.elapsed();
        match self.latest.get() {
            Some((progress, checkpoint)) => Beat {
                used,
                released: checkpoint.keys_reclaimed,
                scanned: checkpoint.keys_scanned,
                exact: live && checkpoint.exact && task.exact,
                progress: serde_json::to_string(&progress).ok(),
                checkpoint: serde_json::to_string(&checkpoint).ok(),
            },
            None => Beat {
                used,
                released: task.released,
                scanned: task.scanned,
                exact: live && task.exact,
                ..Beat::default()
            },
        }
    }

    async fn conclude(
        &self,
        fleet: &Fleet,
        halt: Halt,
        report: Report,
        counts: &ScanCounts,
        shutdown: &watch::Receiver<bool>,
    ) {
        let task_id = &self.claim.task.id;
        let beat = Beat {
            released: report.totals.keys_reclaimed,
            scanned: report.totals.keys_scanned,
            exact: report.totals.exact && self.claim.task.exact,
            ..self.beat(true)
        };
        match conclude(halt, &report) {
            Conclusion::End(outcome) => {
                let reason = outcome.as_ref().err().map(|(reason, _)| reason.as_str());
                tracing::info!(
                    task_id,
                    reason,
                    keys_scanned = report.totals.keys_scanned,
                    keys_released = report.totals.keys_reclaimed,
                    elapsed_ms = self.begun.elapsed().as_millis() as u64,
                    "sweep ended"
                );
                let running = self.claim.task.used + Duration::from_secs_f64(report.totals.elapsed_seconds.max(0.0));
                if self.end(outcome, beat, serde_json::to_string(&report).ok()).await {
                    counts.finished(&report, running);
                }
                // What the sweep changed is shown to those who may not wait for a server.
                if let Err(error) = fleet.look(&self.claim.instance).await {
                    tracing::warn!(task_id, %error, "the server could not be looked at after the sweep");
                }
            }
            Conclusion::GiveBack => self.give_back(&beat, shutdown).await,
            Conclusion::LetGo => {}
        }
    }

    async fn give_back(&self, beat: &Beat, shutdown: &watch::Receiver<bool>) {
        let (task_id, begun) = (&self.claim.task.id, Instant::now());
        loop {
            match self.store.give_back(&self.claim.lease, beat).await {
                Ok(Pulse::Held { closed_until: Some(until), .. }) => {
                    return tracing::info!(task_id, %until, "the off-peak window is closed; the sweep goes on when it opens");
                }
                Ok(Pulse::Held { closed_until: None, .. }) => {
                    return tracing::info!(task_id, "the lease is given back; the next worker goes on from here");
                }
                Ok(Pulse::Lost) => return tracing::info!(task_id, "another worker has taken the task over"),
                Err(error) => {
                    let patience = if *shutdown.borrow() { SHUTDOWN_PATIENCE } else { GIVE_BACK_PATIENCE };
                    if begun.elapsed() >= patience {
                        return tracing::warn!(task_id, %error, "the lease could not be given back; it will expire");
                    }
                }
            }
            tokio::time::sleep(GIVE_BACK_EVERY).await;
        }
    }

    /// Writes the end, again and again while the store is away and the lease may still be ours: this is the one
    /// place where a task ends, and what was swept should not have to be swept twice. Whether it is written.
    async fn end(&self, outcome: Result<(), (Reason, String)>, beat: Beat, report: Option<String>) -> bool {
        let ending = Ending { outcome, beat, report };
        let deadline = Instant::now() + LEASE;
        loop {
            match self.store.end(&self.claim.lease, &ending).await {
                Ok(Pulse::Held { .. }) => {
                    self.counts.task_finished(ending.outcome.as_ref().err().map(|(reason, _)| reason));
                    return true;
                }
                Ok(Pulse::Lost) => {
                    self.counts.lease_lost();
                    tracing::warn!(task_id = self.claim.task.id, "the lease was lost before the end");
                    return false;
                }
                Err(error) if Instant::now() >= deadline => {
                    tracing::error!(task_id = self.claim.task.id, %error, "the end could not be written; the task will be taken over");
                    return false;
                }
                Err(_) => tokio::time::sleep(BEAT_EVERY).await,
            }
        }
    }
}

/// Waits until the process is to shut down. A sender that is gone is a shutdown as well.
pub(super) async fn told(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

/// Raises a stop however its holder ends.
pub(super) struct RaiseOnDrop(pub(super) Stop);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

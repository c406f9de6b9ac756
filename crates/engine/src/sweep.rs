//! A whole sweep: all primaries of a target, watched from one place until the last of them is through.

use std::{
    ops::Add,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{
    checkpoint::{self, Checkpoint, ShardCheckpoint},
    failure::{Failure, FailureKind},
    lazyfree::LazyFreeKeeper,
    ledger::{Ledger, nanoseconds, quantiles},
    link::{Dialer, Tcp},
    monitor::Monitor,
    pace::{Limits, Preset},
    progress::{Progress, eta},
    report::{Held, ProbeSeconds, Report, ShardReport, outcome},
    rhythm::Memory,
    shard::Shard,
    stop::Stop,
    target::Target,
    topology::Access,
};

/// How often the monitor hears of the progress.
const TICK: Duration = Duration::from_millis(200);
/// Ticks over which the rate is averaged.
const RATE_TICKS: usize = 15;

/// How to sweep.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the sweep may take of each primary.
    pub limits: Limits,
    /// Name of the pace for the report.
    pub pace: String,
    /// Time that the sweep may use; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// How long a server that was reached once may be away.
    pub unreachable_grace: Duration,
    /// Bytes that a replica may be behind; the sweep waits for one that is further.
    pub max_replica_lag: u64,
    /// Whether to wait while the server saves or rewrites its log in a child process.
    pub hold_for_forks: bool,
    /// How long to wait for a child process, or for a replica that is missing.
    pub hold_limit: Duration,
    /// Where set, `lazyfree-lazy-expire` is turned on for the time of the sweep, and this remembers it.
    pub lazyfree: Option<Arc<dyn LazyFreeKeeper>>,
    /// Name of the connections in the servers' `CLIENT LIST`.
    pub client_name: String,
    /// Where an earlier run of the same sweep got to.
    pub checkpoint: Option<Checkpoint>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Preset::Normal.limits(),
            pace: Preset::Normal.to_string(),
            timeout: None,
            unreachable_grace: Duration::from_secs(30),
            max_replica_lag: 16 * 1024 * 1024,
            hold_for_forks: true,
            hold_limit: Duration::from_secs(10 * 60),
            lazyfree: None,
            client_name: "keysweep".into(),
            checkpoint: None,
        }
    }
}

/// Sweeps a target over plain TCP.
pub fn sweep(target: &Target, options: &Options, monitor: &dyn Monitor, stop: &Stop) -> Report {
    sweep_through(&Tcp, target, options, monitor, stop)
}

/// Sweeps a target through connections of the caller's making.
pub fn sweep_through(
    dialer: &dyn Dialer,
    target: &Target,
    options: &Options,
    monitor: &dyn Monitor,
    stop: &Stop,
) -> Report {
    let checkpoint = options.checkpoint.clone().filter(|checkpoint| checkpoint.version == checkpoint::VERSION);
    let standing = checkpoint.as_ref().and_then(|checkpoint| checkpoint.shards.first().cloned());
    let mut ledger = Ledger::new(standing.unwrap_or_default());
    ledger.exact = checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.exact);
    let ledger = Mutex::new(ledger);
    let warnings = Mutex::new(Vec::new());
    let stop = stop.within(options.timeout);

    let access = Access { dialer, credentials: &target.credentials, client_name: &options.client_name, stop: &stop };
    let known = checkpoint.is_some();
    let memory = Memory::default();
    let shard = Shard { target, access, options, monitor, ledger: &ledger, warnings: &warnings, known, memory };
    let mut watch = Watch::new(&ledger);
    thread::scope(|scope| {
        let (done, finished) = mpsc::channel::<()>();
        let worker = thread::Builder::new().name("keysweep-shard".into()).spawn_scoped(scope, move || {
            // Dropped at the end, also of a panic: the watch must not wait for a shard that is no more.
            let _done = done;
            shard.run();
        });
        match worker {
            Ok(worker) => {
                while let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(TICK) {
                    watch.tick(monitor);
                }
                if worker.join().is_err() {
                    let failure =
                        Failure::new(FailureKind::Internal, "a thread of the sweep died; this is a fault of keysweep");
                    lock(&ledger).failure = Some(failure);
                }
            }
            Err(error) => {
                let sentence = format!("no thread can be started for the sweep: {error}");
                lock(&ledger).failure = Some(Failure::new(FailureKind::Internal, sentence));
            }
        }
        watch.tick(monitor);
    });
    let warnings = warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(target, options, &lock(&ledger), warnings, watch.begun.elapsed())
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks into the books at regular times and tells the monitor.
struct Watch<'a> {
    ledger: &'a Mutex<Ledger>,
    begun: Instant,
    /// What earlier runs had done: the time left follows from what this one does.
    before: f64,
    /// Times and keys of the last ticks.
    ticks: Vec<(Instant, u64)>,
}

impl<'a> Watch<'a> {
    fn new(ledger: &'a Mutex<Ledger>) -> Self {
        let before = lock(ledger).fraction();
        Self { ledger, begun: Instant::now(), before, ticks: Vec::with_capacity(RATE_TICKS + 1) }
    }

    fn tick(&mut self, monitor: &dyn Monitor) {
        let ledger = lock(self.ledger);
        let shard = ledger.progress();
        let shards: Vec<ShardCheckpoint> = vec![ledger.checkpoint()];
        let exact = ledger.exact;
        drop(ledger);

        let elapsed = self.begun.elapsed();
        // A shard that started again has all its work before it, whatever an earlier run had done.
        self.before = self.before.min(shard.fraction);
        let progress = Progress {
            fraction: shard.fraction,
            keys_scanned: shard.keys_scanned,
            keys_released: shard.keys_released,
            exact,
            keys_per_second: self.rate(shard.keys_scanned),
            eta_seconds: eta(elapsed, self.before, shard.fraction).map(|left| left.as_secs_f64()),
            elapsed_seconds: elapsed.as_secs_f64(),
            shards: vec![shard],
        };
        let (keys_scanned, keys_released) = (progress.keys_scanned, progress.keys_released);
        monitor.progress(
            &progress,
            &Checkpoint { version: checkpoint::VERSION, keys_scanned, keys_released, exact, shards },
        );
    }

    fn rate(&mut self, scanned: u64) -> f64 {
        let now = Instant::now();
        self.ticks.push((now, scanned));
        if self.ticks.len() > RATE_TICKS {
            self.ticks.remove(0);
        }
        let (then, less) = self.ticks[0];
        match now.duration_since(then).as_secs_f64() {
            0.0 => 0.0,
            seconds => scanned.saturating_sub(less) as f64 / seconds,
        }
    }
}

fn report(target: &Target, options: &Options, ledger: &Ledger, warnings: Vec<String>, elapsed: Duration) -> Report {
    let shards: Vec<ShardReport> = vec![ledger.report()];
    let sum = |field: fn(&ShardReport) -> Option<u64>| shards.iter().map(field).sum::<Option<u64>>();
    let mut slices = nanoseconds();
    ledger.add_slices_to(&mut slices);
    let (outcome, reason, message) = outcome(ledger.failure.as_ref());
    Report {
        target: target.to_string(),
        outcome,
        reason,
        message,
        exact: shards.iter().all(|shard| shard.exact),
        keys_scanned: shards.iter().map(|shard| shard.keys_scanned).sum(),
        keys_released: shards.iter().map(|shard| shard.keys_released).sum(),
        used_memory_before: sum(|shard| shard.used_memory_before),
        used_memory_after: sum(|shard| shard.used_memory_after),
        rss_before: sum(|shard| shard.rss_before),
        rss_after: sum(|shard| shard.rss_after),
        elapsed_seconds: elapsed.as_secs_f64(),
        server_seconds: shards.iter().map(|shard| shard.server_seconds).sum(),
        server_cpu_seconds: shards.iter().map(|shard| shard.server_cpu_seconds).sum(),
        duty: shards.iter().map(|shard| shard.duty).fold(0.0, f64::max),
        pace: options.pace.clone(),
        slices: slices.len(),
        slice_seconds: quantiles(&slices),
        probe_seconds: worst_probe(&shards),
        backoffs: shards.iter().map(|shard| shard.backoffs).sum(),
        held: shards.iter().map(|shard| shard.held).fold(Held::default(), Held::add),
        warnings,
        shards,
    }
}

/// The probe of the shard whose clients had it worst.
fn worst_probe(shards: &[ShardReport]) -> ProbeSeconds {
    let probes = shards.iter().map(|shard| shard.probe_seconds);
    let during = |probe: &ProbeSeconds| probe.during_p90.unwrap_or(0.0);
    probes.max_by(|left, right| during(left).total_cmp(&during(right))).unwrap_or_default()
}

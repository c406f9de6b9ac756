//! A whole sweep: all primaries of a target, in rounds, until a refresh of the topology finds nothing that is not swept.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    permits::Permits,
    reporter::{ProgressReporter, REPORT_INTERVAL},
    shard_map::{Location, ShardMap},
    summary::report,
    sweeper::ShardSweeper,
};
use crate::{
    failure::{Failure, ShardError},
    link::{Dialer, saturating_sum},
    monitor::Monitor,
    options::Options,
    pacing::PrimaryProfile,
    record::{Checkpoint, Report, Shard},
    stop::{CancelOnDrop, Stop},
    target::{Mode, Target},
    topology::{Connector, PrimaryNode, Scout},
};

/// Time between two refreshes of the topology while shards are swept.
const TOPOLOGY_INTERVAL: Duration = Duration::from_secs(1);

/// Most threads that sweep shards, unless more shards may be swept at a time. More than are swept at a time by default, since a
/// shard that waits for its server to return keeps its thread; few, since a server decides how many primaries a cluster has.
pub const MAX_SHARD_THREADS: usize = 64;

/// Primaries that are asked for their numbers of keys at a time: each takes a thread and a connection.
const COUNTS_AT_A_TIME: usize = 64;

/// Sweeps a target, over TCP or TLS as its URL says.
pub fn sweep(target: &Target, options: &Options, monitor: &dyn Monitor, stop: &Stop) -> Report {
    match target.dialer() {
        Ok(dialer) => sweep_through(&*dialer, target, options, monitor, stop),
        Err(error) => {
            let shard_map = ShardMap::new(target, None, stop);
            report(target, options, &shard_map, Some(error.into()), Vec::new(), Duration::ZERO)
        }
    }
}

/// Sweeps a target over the connections of a dialer.
pub fn sweep_through(
    dialer: &dyn Dialer,
    target: &Target,
    options: &Options,
    monitor: &dyn Monitor,
    stop: &Stop,
) -> Report {
    let checkpoint = options.checkpoint.as_ref().and_then(Checkpoint::upgraded);
    let checkpoint = checkpoint.as_ref();
    let stop = stop.within(options.timeout);
    let shard_map = ShardMap::new(target, checkpoint, &stop);
    let connector = Connector { dialer, target, client_name: &options.client_name, stop: &stop };
    let mut run = SweepRun {
        connector,
        options,
        monitor,
        stop: &stop,
        shard_map: &shard_map,
        permits: Permits::new(options.parallel),
        warnings: Mutex::new(Vec::new()),
        ever_reached: checkpoint.is_some(),
        reporter: ProgressReporter::new(&shard_map),
    };
    let failure = run.run().err();
    run.reporter.report(monitor);
    let elapsed = run.reporter.started.elapsed();
    let warnings = run.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(target, options, &shard_map, failure, warnings, elapsed)
}

/// A running sweep.
struct SweepRun<'a> {
    connector: Connector<'a>,
    options: &'a Options,
    monitor: &'a dyn Monitor,
    stop: &'a Stop,
    shard_map: &'a ShardMap<'a>,
    permits: Permits,
    warnings: Mutex<Vec<String>>,
    ever_reached: bool,
    reporter: ProgressReporter<'a>,
}

impl SweepRun<'_> {
    /// Sweeps the shards in rounds until a refresh of the topology finds nothing that is not swept. Failures of shards are
    /// in their states; an error is a failure of the sweep as a whole.
    fn run(&mut self) -> Result<(), Failure> {
        let mut scout = Scout::new(self.connector);
        loop {
            let primaries = self.find_primaries(&mut scout)?;
            let is_server = matches!(self.connector.target.mode, Mode::Server);
            self.ever_reached |= !is_server;
            self.shard_map.update(primaries);
            let shards = self.shard_map.assign();
            if shards.is_empty() {
                return Ok(());
            }
            if matches!(self.connector.target.mode, Mode::Cluster) {
                load_key_counts(&shards, self.shard_map, self.connector);
                self.reporter.mark_start();
            }
            self.sweep(&shards);
            // A server proves with every slice that it is still a primary, so that no refresh is needed.
            if is_server
                || self.stop.is_raised()
                || self.shard_map.shards().iter().any(|shard| shard.state().failure.is_some())
            {
                return Ok(());
            }
        }
    }

    /// Asks for the primaries. Once the target was reached, or while there is no memory for its reply, retries for as long as the
    /// reconnect timeout.
    fn find_primaries(&self, scout: &mut Scout<'_>) -> Result<Vec<PrimaryNode>, Failure> {
        let started = Instant::now();
        loop {
            let error = match scout.refresh() {
                Ok(primaries) => return Ok(primaries),
                Err(error) => error,
            };
            let in_time = started.elapsed() < self.options.reconnect_timeout && !self.stop.is_raised();
            match error {
                ShardError::Unreachable(failure) if in_time && (self.ever_reached || failure.is_of_memory()) => {}
                error => {
                    let error = self.stop.cause().map_or(error, ShardError::from);
                    return Err(error.into_failure(self.connector.target.seed()));
                }
            }
            self.stop.wait_until(Instant::now() + TOPOLOGY_INTERVAL);
        }
    }

    /// Sweeps these shards in a bounded number of threads, and refreshes the topology meanwhile.
    fn sweep(&mut self, shards: &[Arc<Shard>]) {
        let round = self.stop.child();
        let (connector, shard_map, monitor) = (self.connector, self.shard_map, self.monitor);
        let (options, permits, warnings) = (self.options, &self.permits, &self.warnings);
        let ever_reached = self.ever_reached;
        let reporter = &mut self.reporter;
        let queue = Mutex::new(shards.iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let sweep_next = || {
            let Some(shard) = next() else { return false };
            let sweeper = ShardSweeper {
                connector: connector.with_stop(&shard.stop),
                options,
                monitor,
                shard_map,
                shard,
                permits,
                warnings,
                ever_reached,
                profile: PrimaryProfile::default(),
            };
            // The thread goes on to the next shard, and a panic fails this one alone.
            if catch_unwind(AssertUnwindSafe(|| sweeper.run())).is_err() {
                shard.fail("a thread of the scan crashed; this is a fault of keysweep".into());
            }
            true
        };
        thread::scope(|scope| {
            // After a panic of the monitor as well: the scope waits for all of its threads.
            let topology_watch = CancelOnDrop(&round);
            let (done, finished) = mpsc::channel::<()>();
            let (mut started, mut failure) = (0, None);
            for _ in 0..shards.len().min(MAX_SHARD_THREADS.max(options.parallel)) {
                let (done, sweep_next) = (done.clone(), &sweep_next);
                let worker = thread::Builder::new().name("keysweep-shard".into()).spawn_scoped(scope, move || {
                    // Dropped at the end: the reporter must not wait for a thread that has ended.
                    let _done = done;
                    while sweep_next() {}
                });
                match worker {
                    Ok(_) => started += 1,
                    Err(error) => failure = Some(error),
                }
            }
            drop(done);
            if let Some(error) = failure.filter(|_| started == 0) {
                while let Some(shard) = next() {
                    shard.fail(format!("no thread can be started for the scan: {error}"));
                }
            }
            if !matches!(connector.target.mode, Mode::Server) {
                let round = &round;
                // Without this thread the sweep only notices changes of the topology later.
                let _ = thread::Builder::new()
                    .name("keysweep-topology".into())
                    .spawn_scoped(scope, move || watch_topology(connector.with_stop(round), shard_map));
            }
            while let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(REPORT_INTERVAL) {
                reporter.report(monitor);
            }
            drop(topology_watch);
        });
    }
}

/// Refreshes the topology until it is cancelled. After an error the next refresh asks again.
fn watch_topology(connector: Connector<'_>, shard_map: &ShardMap<'_>) {
    let mut scout = Scout::new(connector);
    let mut since = Instant::now();
    loop {
        connector.stop.wait_until(since + TOPOLOGY_INTERVAL);
        if connector.stop.is_raised() {
            return;
        }
        since = Instant::now();
        if shard_map.has_lost_shard() {
            // The answer of the last node may be out of date.
            scout.mark_stale();
        }
        if let Ok(primaries) = scout.refresh() {
            shard_map.update(primaries);
        }
    }
}

/// Asks every primary for its number of keys, many at once: a shard that waits for its turn has a weight in the progress. A
/// primary that does not answer gets the average of the others.
fn load_key_counts(shards: &[Arc<Shard>], shard_map: &ShardMap<'_>, connector: Connector<'_>) {
    let uncounted: Vec<_> = shards.iter().filter(|shard| shard.state().keys.is_none()).collect();
    uncounted.chunks(COUNTS_AT_A_TIME).for_each(|some| {
        thread::scope(|scope| {
            for shard in some {
                // A thread that cannot be started costs only precision.
                let _ = thread::Builder::new().name("keysweep-counts".into()).spawn_scoped(scope, move || {
                    let Location::At(node) = shard_map.locate(shard) else { return };
                    let info = connector.open(&node.address).and_then(|mut link| link.info(&["keyspace"]));
                    if let Ok(Some(info)) = info {
                        shard.state().keys = Some(saturating_sum(info.keyspace().iter().map(|line| line.keys)));
                    }
                });
            }
        })
    });
    let counts: Vec<u64> = shard_map.shards().iter().filter_map(|shard| shard.state().keys).collect();
    let average = saturating_sum(counts.iter().copied()) / (counts.len().max(1) as u64);
    for shard in shards {
        shard.state().keys.get_or_insert(average);
    }
}

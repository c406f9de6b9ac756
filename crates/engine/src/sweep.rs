//! A whole sweep: all primaries of a target, watched from one place until the last of them is through.

use std::{
    ops::Add,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{
    checkpoint::{self, Checkpoint},
    failure::{Failure, FailureKind, Trouble},
    lazyfree::LazyFreeKeeper,
    ledger::{nanoseconds, quantiles},
    link::{Dialer, REPLY_PATIENCE},
    monitor::Monitor,
    pace::{Limits, Preset},
    permits::Permits,
    report::{Held, ProbeSeconds, Report, ShardReport, outcome},
    rhythm::{Memory, halted},
    roster::{Roster, Seat, Whereabouts},
    shard::Shard,
    stop::Stop,
    target::{Mode, Target},
    topology::{Access, Place, Scout},
    watch::{TICK, Watch},
};

/// How often the topology is looked at while shards are swept.
const TOPOLOGY_EVERY: Duration = Duration::from_secs(1);

/// How to sweep.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the sweep may take of each primary.
    pub limits: Limits,
    /// Name of the pace for the report.
    pub pace: String,
    /// Primaries that are swept at a time.
    pub parallel: usize,
    /// Time that the sweep may use; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// How long a server that was reached once may be away.
    pub unreachable_grace: Duration,
    /// How long a reply is waited for before the connection counts as lost.
    pub reply_patience: Duration,
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
            parallel: 2,
            timeout: None,
            unreachable_grace: Duration::from_secs(30),
            reply_patience: REPLY_PATIENCE,
            max_replica_lag: 16 * 1024 * 1024,
            hold_for_forks: true,
            hold_limit: Duration::from_secs(10 * 60),
            lazyfree: None,
            client_name: "keysweep".into(),
            checkpoint: None,
        }
    }
}

/// Sweeps a target, over TCP or TLS as its URL says.
pub fn sweep(target: &Target, options: &Options, monitor: &dyn Monitor, stop: &Stop) -> Report {
    match target.dialer() {
        Ok(dialer) => sweep_through(&*dialer, target, options, monitor, stop),
        Err(error) => {
            report(target, options, &Roster::new(target, None, stop), Some(error.into()), Vec::new(), Duration::ZERO)
        }
    }
}

/// Sweeps a target through connections of the caller's making.
pub fn sweep_through(
    dialer: &dyn Dialer,
    target: &Target,
    options: &Options,
    monitor: &dyn Monitor,
    stop: &Stop,
) -> Report {
    let checkpoint = options.checkpoint.as_ref().filter(|checkpoint| checkpoint.version == checkpoint::VERSION);
    let stop = stop.within(options.timeout);
    let roster = Roster::new(target, checkpoint, &stop);
    let access = Access { dialer, target, client_name: &options.client_name, stop: &stop };
    let mut whole = Whole {
        access,
        options,
        monitor,
        stop: &stop,
        roster: &roster,
        permits: Permits::new(options.parallel),
        warnings: Mutex::new(Vec::new()),
        known: checkpoint.is_some(),
        watch: Watch::new(&roster),
    };
    let failure = whole.run().err();
    whole.watch.tick(monitor);
    let elapsed = whole.watch.begun.elapsed();
    let warnings = whole.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(target, options, &roster, failure, warnings, elapsed)
}

/// A sweep under way.
struct Whole<'a> {
    access: Access<'a>,
    options: &'a Options,
    monitor: &'a dyn Monitor,
    stop: &'a Stop,
    roster: &'a Roster<'a>,
    permits: Permits,
    warnings: Mutex<Vec<String>>,
    known: bool,
    watch: Watch<'a>,
}

impl Whole<'_> {
    /// Rounds over the shards until a look at the topology finds nothing that is not swept. The failures of shards are in
    /// their books; an error is one of the whole.
    fn run(&mut self) -> Result<(), Failure> {
        let mut scout = Scout::new(self.access);
        loop {
            let places = self.find(&mut scout)?;
            let is_server = matches!(self.access.target.mode, Mode::Server);
            self.known |= !is_server;
            self.roster.update(places);
            let seats = self.roster.assign();
            if seats.is_empty() {
                return Ok(());
            }
            if matches!(self.access.target.mode, Mode::Cluster) {
                weigh(&seats, self.roster, self.access);
                self.watch.begin_at(self.roster);
            }
            self.sweep(&seats);
            // A server proves with every slice that it is still a primary; that leaves nothing to look at again.
            if is_server
                || self.stop.is_raised()
                || self.roster.seats().iter().any(|seat| seat.ledger().failure.is_some())
            {
                return Ok(());
            }
        }
    }

    /// Asks where the primaries are; once the target was reached, for as long as its nodes may be away.
    fn find(&self, scout: &mut Scout<'_>) -> Result<Vec<Place>, Failure> {
        let begun = Instant::now();
        loop {
            let trouble = match scout.look() {
                Ok(places) => return Ok(places),
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Away(_)
                    if self.known && begun.elapsed() < self.options.unreachable_grace && !self.stop.is_raised() => {}
                trouble => {
                    let trouble = self.stop.cause().map_or(trouble, halted);
                    return Err(trouble.into_failure(self.access.target.seed()));
                }
            }
            self.stop.wait_until(Instant::now() + TOPOLOGY_EVERY);
        }
    }

    /// Sweeps these shards, a thread each, and keeps an eye on the topology meanwhile.
    fn sweep(&mut self, seats: &[Arc<Seat>]) {
        let over = self.stop.recallable();
        let (access, roster, monitor) = (self.access, self.roster, self.monitor);
        let (options, permits, warnings, known) = (self.options, &self.permits, &self.warnings, self.known);
        let watch = &mut self.watch;
        thread::scope(|scope| {
            // Also when the monitor panics: the scope waits for all of its threads.
            let looking = RecallOnDrop(&over);
            let (done, finished) = mpsc::channel::<()>();
            let mut workers = Vec::new();
            for seat in seats {
                let done = done.clone();
                let shard = Shard {
                    access: access.with_stop(&seat.stop),
                    options,
                    monitor,
                    roster,
                    seat,
                    permits,
                    warnings,
                    known,
                    memory: Memory::default(),
                };
                let worker = thread::Builder::new().name("keysweep-shard".into()).spawn_scoped(scope, move || {
                    // Dropped at the end, also of a panic: the watch must not wait for a shard that is no more.
                    let _done = done;
                    shard.run();
                });
                match worker {
                    Ok(worker) => workers.push((seat, worker)),
                    Err(error) => seat.fail(format!("no thread can be started for the sweep: {error}")),
                }
            }
            drop(done);
            if !matches!(access.target.mode, Mode::Server) {
                let over = &over;
                // Without it the sweep only notices later what has changed.
                let _ = thread::Builder::new()
                    .name("keysweep-topology".into())
                    .spawn_scoped(scope, move || keep_looking(access.with_stop(over), roster));
            }
            while let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(TICK) {
                watch.tick(monitor);
            }
            drop(looking);
            for (seat, worker) in workers {
                if worker.join().is_err() {
                    seat.fail("a thread of the sweep died; this is a fault of keysweep".into());
                }
            }
        });
    }
}

struct RecallOnDrop<'a>(&'a Stop);

impl Drop for RecallOnDrop<'_> {
    fn drop(&mut self) {
        self.0.recall();
    }
}

/// Looks at the topology until it is called back. Who does not answer is asked again.
fn keep_looking(access: Access<'_>, roster: &Roster<'_>) {
    let mut scout = Scout::new(access);
    let mut since = Instant::now();
    loop {
        access.stop.wait_until(since + TOPOLOGY_EVERY);
        if access.stop.is_raised() {
            return;
        }
        since = Instant::now();
        if roster.has_lost_one() {
            // Perhaps by what the last one said.
            scout.distrust();
        }
        if let Ok(places) = scout.look() {
            roster.update(places);
        }
    }
}

/// Asks every primary how many keys it holds, all at once: a shard that waits for its turn has its weight in the progress. One
/// that does not answer weighs as much as the others do on average.
fn weigh(seats: &[Arc<Seat>], roster: &Roster<'_>, access: Access<'_>) {
    thread::scope(|scope| {
        for seat in seats.iter().filter(|seat| seat.ledger().keys.is_none()) {
            // A thread that cannot be started costs only precision.
            let _ = thread::Builder::new().name("keysweep-weigh".into()).spawn_scoped(scope, move || {
                let Whereabouts::At(place) = roster.whereabouts(seat) else { return };
                let info = access.open(&place.address).and_then(|mut link| link.info(&["keyspace"]));
                if let Ok(Some(info)) = info {
                    seat.ledger().keys = Some(info.keyspace().iter().map(|line| line.keys).sum());
                }
            });
        }
    });
    let known: Vec<u64> = roster.seats().iter().filter_map(|seat| seat.ledger().keys).collect();
    let average = known.iter().sum::<u64>() / (known.len().max(1) as u64);
    for seat in seats {
        seat.ledger().keys.get_or_insert(average);
    }
}

fn report(
    target: &Target,
    options: &Options,
    roster: &Roster<'_>,
    failure: Option<Failure>,
    warnings: Vec<String>,
    elapsed: Duration,
) -> Report {
    let seats = roster.seats();
    let mut slices = nanoseconds();
    let (mut shards, mut failures) = (Vec::new(), Vec::new());
    for seat in &seats {
        let ledger = seat.ledger();
        ledger.add_slices_to(&mut slices);
        failures.extend(ledger.failure.clone());
        shards.push(ledger.report());
    }
    let used = before_and_after(&shards, |shard| (shard.used_memory_before, shard.used_memory_after));
    let rss = before_and_after(&shards, |shard| (shard.rss_before, shard.rss_after));
    let (outcome, reason, message) = outcome(failure.or_else(|| worst(&failures, shards.len())).as_ref());
    Report {
        target: target.to_string(),
        outcome,
        reason,
        message,
        exact: shards.iter().all(|shard| shard.exact),
        keys_scanned: shards.iter().map(|shard| shard.keys_scanned).sum(),
        keys_released: shards.iter().map(|shard| shard.keys_released).sum(),
        used_memory_before: used.0,
        used_memory_after: used.1,
        rss_before: rss.0,
        rss_after: rss.1,
        elapsed_seconds: elapsed.as_secs_f64(),
        server_seconds: shards.iter().fold(0.0, |sum, shard| sum + shard.server_seconds),
        server_cpu_seconds: shards.iter().filter_map(|shard| shard.server_cpu_seconds).reduce(f64::add),
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

/// The failure that stands for all: somebody's wish to stop before the end of the time, that before what went wrong.
fn worst(failures: &[Failure], shards: usize) -> Option<Failure> {
    use FailureKind::{Interrupted, Timeout};
    let first =
        [Interrupted, Timeout].into_iter().find_map(|kind| failures.iter().find(|failure| failure.kind == kind));
    let failure = first.or_else(|| failures.first())?.clone();
    let count = failures.len();
    Some(match failure.kind {
        Interrupted | Timeout => failure,
        kind if shards > 1 => {
            Failure::new(kind, format!("{count} of {shards} primaries could not be swept to the end: {failure}"))
        }
        _ => failure,
    })
}

/// The sums of a size before and after, over the shards that know both: a difference means something only between the same.
fn before_and_after(
    shards: &[ShardReport],
    sizes: fn(&ShardReport) -> (Option<u64>, Option<u64>),
) -> (Option<u64>, Option<u64>) {
    let both = shards.iter().filter_map(|shard| sizes(shard).0.zip(sizes(shard).1));
    match both.reduce(|sum, next| (sum.0 + next.0, sum.1 + next.1)) {
        Some((before, after)) => (Some(before), Some(after)),
        None => (shards.iter().filter_map(|shard| sizes(shard).0).reduce(u64::add), None),
    }
}

/// The probe of the shard whose clients had it worst.
fn worst_probe(shards: &[ShardReport]) -> ProbeSeconds {
    let probes = shards.iter().map(|shard| shard.probe_seconds);
    let during = |probe: &ProbeSeconds| probe.during_p90.unwrap_or(0.0);
    probes.max_by(|left, right| during(left).total_cmp(&during(right))).unwrap_or_default()
}

//! When the next slice of one connection may run: the pace, the latency probe with its guard, and the reasons to throttle.

use std::{
    sync::MutexGuard,
    thread,
    time::{Duration, Instant},
};

use super::{
    guard::Guard,
    pace::{Decision, Pace},
    probe::Probe,
    profile::PrimaryProfile,
    queries::{Queries, Query},
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Link, RoleView, SliceReply},
    monitor::Monitor,
    options::{Limits, Options},
    record::{Shard, ShardState, Throttled},
    server::{Expiry, ServerState, is_importing},
    stop::{STOP_POLL, Stop},
    target::Address,
};

/// PINGs before the first slice, and the time between them: the baseline of the guard.
const BASELINE_PINGS: u32 = 20;
const BASELINE_INTERVAL: Duration = Duration::from_millis(10);
/// Shortest time between two samples of the state that gives a reliable load.
const MIN_LOAD_TIME: Duration = Duration::from_millis(500);
/// Time between two samples while the sweep is throttled.
const THROTTLED_INTERVAL: Duration = Duration::from_millis(100);
/// Keyspaces below this many keys are swept without a guard: they are done before it could judge.
const MIN_GUARDED_KEYS: u64 = 20_000;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run a slice with this COUNT.
    Slice(u32),
    /// Expiry was paused: repeat the slices since the last clean sample.
    RollBack,
}

/// What the throttle of one connection works with.
#[derive(Clone, Copy)]
pub(crate) struct ThrottleContext<'a> {
    pub options: &'a Options,
    /// The limits for this primary.
    pub limits: Limits,
    pub stop: &'a Stop,
    pub monitor: &'a dyn Monitor,
    pub shard: &'a Shard,
    /// Whether the server reports its import mode, in which it deletes no expired key.
    pub reports_import_mode: bool,
}

/// Decides when the next slice may run, for one connection.
pub(crate) struct Throttle<'a> {
    context: ThrottleContext<'a>,
    address: Address,
    pace: Pace,
    started: Instant,
    probe: Probe,
    guard: Option<Guard>,
    /// See [`Throttle::baseline_rtt`].
    baseline_rtt: Duration,
    queries: Queries,
    /// CPU of the main thread at the last sample, and the time of that.
    last_cpu: Option<(Instant, Duration)>,
    last_sample: ServerState,
    /// The server's CPU and the backoffs that are recorded in the shard's state.
    cpu: Option<Duration>,
    backoffs: u64,
    /// The role as of the last slice, with the lag of the replicas.
    role: RoleView,
    replicas: usize,
}

impl<'a> Throttle<'a> {
    /// Measures the baseline, once for each primary, and starts.
    pub fn start(
        link: &mut Link,
        address: &Address,
        context: ThrottleContext<'a>,
        profile: &mut PrimaryProfile,
        role: RoleView,
    ) -> Result<Self, ShardError> {
        let started = Instant::now();
        let last_sample = ServerState::sample(link).map_err(|error| ShardError::at(address, error))?;
        let attached = if let RoleView::Primary { replicas, .. } = role { replicas } else { 0 };
        let mut throttle = Self {
            context,
            address: address.clone(),
            pace: Pace::new(context.limits),
            started,
            probe: Probe::default(),
            guard: None,
            baseline_rtt: Duration::ZERO,
            queries: Queries::new(Duration::ZERO, Duration::ZERO),
            last_cpu: None,
            last_sample,
            cpu: last_sample.cpu,
            backoffs: 0,
            role,
            replicas: *profile.replicas.get_or_insert(attached),
        };
        let keys = throttle.state().checkpoint.databases.iter().map(|database| database.keys).sum::<u64>();
        let tolerance = context.options.limits.guard.filter(|_| keys >= MIN_GUARDED_KEYS);
        match tolerance {
            Some(tolerance) => throttle.measure_baseline(link, tolerance, profile)?,
            // Without a guard only the idle round trip is needed, which takes few PINGs.
            None => (0..3).try_for_each(|_| throttle.ping(link).map(drop))?,
        }
        throttle.probe.reset();
        throttle.queries = Queries::new(throttle.now(), throttle.probe.idle());
        Ok(throttle)
    }

    /// Measures latency and load before the first slice, and sets the guard accordingly.
    fn measure_baseline(
        &mut self,
        link: &mut Link,
        tolerance: Duration,
        profile: &mut PrimaryProfile,
    ) -> Result<(), ShardError> {
        let (started, before) = (Instant::now(), self.last_sample.main_thread_cpu);
        for _ in 0..BASELINE_PINGS {
            self.ping(link)?;
            self.context.stop.wait_until(Instant::now() + BASELINE_INTERVAL);
        }
        let after = self.sample(link)?.main_thread_cpu;
        let Some(p90) = self.probe.p90() else { return Ok(()) };
        // That of the first connection: a later one may start during what made the first one break.
        let baseline = *profile.baseline_p90.get_or_insert(p90);
        let mut guard = Guard::new(self.context.limits.max_cpu, baseline, tolerance);
        if let (Some(before), Some(after)) = (before, after) {
            guard.start_beside(after.saturating_sub(before).as_secs_f64() / started.elapsed().as_secs_f64());
            self.last_cpu = Some((Instant::now(), after));
        }
        self.pace.set_max_cpu(guard.max_cpu());
        self.guard = Some(guard);
        self.state().baseline_p90 = Some(baseline);
        Ok(())
    }

    /// Returns the time since the throttle started.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the part of a slice's round trip that the slice does not cause: the shortest PING of the last second. On a
    /// crowded server the median, because a slice queues there as a PING does, and that takes no time from clients.
    pub fn baseline_rtt(&self) -> Duration {
        self.baseline_rtt
    }

    /// Records a slice.
    pub fn record(&mut self, started: Duration, cost: Duration, count: u32, slice: &SliceReply) {
        self.pace.record(started, cost, count, slice.returned + slice.reclaimed, slice.reclaimed);
        self.role = slice.role.clone();
        self.queries.record_slice();
    }

    /// Waits until the limits allow a slice and no reason to throttle is left.
    pub fn next_slice(&mut self, link: &mut Link) -> Result<Next, ShardError> {
        loop {
            self.check_stop()?;
            self.wait_for_replicas(link)?;
            let now = self.now();
            let (due, count) = match self.pace.next(now) {
                Decision::Wait(due) => (due, None),
                Decision::Go(count) => (now, Some(count)),
            };
            if let Some((query, at)) = self.queries.next(now, due, self.waits_for_saves()) {
                self.wait_until(self.started + at);
                self.check_stop()?;
                let (sent, waited) = (self.now(), self.throttled_time());
                let is_clean = self.run_query(query, link)?;
                // The wait for a reason to throttle is not the query's.
                let waited = self.throttled_time().saturating_sub(waited);
                self.queries.record(query, sent + waited, self.now(), due + waited);
                if !is_clean {
                    return Ok(Next::RollBack);
                }
                continue;
            }
            match count {
                Some(count) => return Ok(Next::Slice(count)),
                None => self.wait_until(self.started + due),
            }
        }
    }

    /// Runs a query. Returns whether expiry was live since the last sample, as far as the query shows that.
    fn run_query(&mut self, query: Query, link: &mut Link) -> Result<bool, ShardError> {
        match query {
            Query::State => self.observe(link),
            Query::Save => match ServerState::is_saving(link).map_err(|error| ShardError::at(&self.address, error))? {
                true => self.observe(link),
                false => Ok(true),
            },
            Query::Ping => self.ping_and_judge(link).map(|()| true),
        }
    }

    fn check_stop(&self) -> Result<(), ShardError> {
        self.context.stop.cause().map_or(Ok(()), |cause| Err(cause.into()))
    }

    /// Waits with the operating system's precision, and polls the stop only in the longest waits.
    fn wait_until(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        match left < STOP_POLL {
            true => thread::sleep(left),
            false => self.context.stop.wait_until(until),
        }
    }

    fn ping(&mut self, link: &mut Link) -> Result<Duration, ShardError> {
        let sent = self.now();
        let round_trip = link.ping().map_err(|error| ShardError::at(&self.address, error))?;
        self.probe.record(sent, round_trip);
        let crowded = self.guard.as_ref().is_some_and(Guard::is_crowded);
        self.baseline_rtt = if crowded { self.probe.typical() } else { self.probe.idle() };
        Ok(round_trip)
    }

    fn ping_and_judge(&mut self, link: &mut Link) -> Result<(), ShardError> {
        let round_trip = self.ping(link)?;
        self.state().record_ping(round_trip);
        self.context.monitor.probe(round_trip);
        let now = self.now();
        let (Some(guard), Some(p90)) = (&mut self.guard, self.probe.p90()) else { return Ok(()) };
        if guard.judge(now, p90) {
            self.probe.reset();
        }
        self.pace.set_max_cpu(guard.max_cpu());
        let more = guard.backoffs() - self.backoffs;
        self.backoffs += more;
        self.state().backoffs += more;
        Ok(())
    }

    /// Passes the load of the main thread since the last sample to the guard.
    fn read_load(&mut self, cpu: Option<Duration>) {
        let (Some(guard), Some(cpu)) = (&mut self.guard, cpu) else { return };
        let now = Instant::now();
        if let Some((then, before)) = self.last_cpu.replace((now, cpu)) {
            let elapsed = now.duration_since(then);
            // Too short a time between two samples gives no reliable load.
            if elapsed >= MIN_LOAD_TIME {
                guard.read_load(cpu.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64());
            }
        }
    }

    /// Records the CPU that the server used since the last call.
    pub fn record_cpu(&mut self, cpu: Option<Duration>) {
        if let Some((cpu, before)) = cpu.zip(self.cpu) {
            let mut state = self.state();
            state.server_cpu = Some(state.server_cpu.unwrap_or_default() + cpu.saturating_sub(before));
        }
        self.cpu = cpu;
    }

    /// Returns how long the shard was throttled in total.
    fn throttled_time(&self) -> Duration {
        let Throttled { paused, fork, replica_lag, replica_missing } = self.state().throttled;
        Duration::from_secs_f64(paused + fork + replica_lag + replica_missing)
    }

    /// Whether to wait for background saves: no longer in total than the limit.
    fn waits_for_saves(&self) -> bool {
        let options = self.context.options;
        options.throttle_on_save && self.state().throttled.fork < options.throttle_limit.as_secs_f64()
    }

    /// Whether the server reports paused expiry, as of the last sample.
    pub fn reports_expiry(&self) -> bool {
        self.last_sample.expiry != Expiry::Unknown
    }

    /// Whether expiry was live since the last sample, as far as the server reports it; without a reply: no.
    pub fn is_clean(&self, link: &mut Link) -> bool {
        let importing = self.is_importing(link).unwrap_or(true);
        let state = ServerState::sample(link);
        !importing && state.is_ok_and(|state| state.expiry != Expiry::Paused && state.pauses == self.last_sample.pauses)
    }

    fn sample(&self, link: &mut Link) -> Result<ServerState, ShardError> {
        ServerState::sample(link).map_err(|error| ShardError::at(&self.address, error))
    }

    /// Whether the server is in import mode, as far as it reports that.
    fn is_importing(&self, link: &mut Link) -> Result<bool, ShardError> {
        match self.context.reports_import_mode {
            true => is_importing(link).map_err(|error| ShardError::at(&self.address, error)),
            false => Ok(false),
        }
    }

    /// Samples the server's state, and waits during a background save and while expiry is paused. Returns whether expiry
    /// was live since the last sample; then it commits the slices since.
    pub fn observe(&mut self, link: &mut Link) -> Result<bool, ShardError> {
        let ThrottleContext { stop, monitor, .. } = self.context;
        let mut clean = true;
        let started = Instant::now();
        let mut last = started;
        let sample = loop {
            let sample = self.sample(link)?;
            let paused = sample.expiry == Expiry::Paused;
            let saving = sample.saving && self.waits_for_saves();
            clean &= !paused;
            if !paused && !saving {
                break sample;
            }
            if started == last {
                monitor.note(match paused {
                    true => "throttled: the server has paused writes and with them expiry; the last second is scanned again afterwards",
                    false => "throttled: the server runs a background save, during which deletes cost memory",
                });
            }
            self.check_stop()?;
            stop.wait_until(Instant::now() + THROTTLED_INTERVAL);
            let waited = last.elapsed().as_secs_f64();
            last = Instant::now();
            let throttled = &mut self.state().throttled;
            *(if paused { &mut throttled.paused } else { &mut throttled.fork }) += waited;
        };
        if self.is_importing(link)? {
            let sentence = format!(
                "{} has begun to delete no expired key (import-mode yes); scan again when the import is over",
                self.address
            );
            return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
        }
        self.read_load(sample.main_thread_cpu);
        self.record_cpu(sample.cpu);
        // Not `>`: CONFIG RESETSTAT may have hidden a pause.
        if clean && sample.pauses != self.last_sample.pauses {
            monitor.note("expiry may have been paused for a moment; the last second is scanned again");
            clean = false;
        }
        self.last_sample = sample;
        if clean {
            self.state().commit();
        }
        Ok(clean)
    }

    /// Waits for the end of a pause that the server does not report.
    pub fn wait_for_hidden_pause(&mut self, wait: Duration) -> Result<(), ShardError> {
        let started = Instant::now();
        self.context.stop.wait_until(started + wait);
        self.state().throttled.paused += started.elapsed().as_secs_f64();
        self.check_stop()
    }

    /// Waits while a replica lags too far behind, or while one that was attached at the start is missing: deletes are
    /// replicated, and must not overrun the buffers that the server keeps for its replicas.
    fn wait_for_replicas(&mut self, link: &mut Link) -> Result<(), ShardError> {
        let ThrottleContext { options, stop, monitor, .. } = self.context;
        let started = Instant::now();
        let mut last = started;
        while let RoleView::Primary { max_lag, replicas, .. } = self.role {
            let lags = max_lag > options.max_replica_lag;
            if !lags && replicas >= self.replicas {
                break;
            }
            if !lags && started.elapsed() >= options.throttle_limit {
                monitor.note("a replica is still missing; the scan continues without it");
                self.replicas = replicas;
                break;
            }
            if started == last {
                monitor.note(match lags {
                    true => "throttled: a replica lags behind",
                    false => "throttled: a replica is missing or synchronising",
                });
            }
            self.check_stop()?;
            stop.wait_until(Instant::now() + THROTTLED_INTERVAL);
            let reply = link.call(&[b"ROLE"]).map_err(|error| ShardError::at(&self.address, error))?;
            self.role = RoleView::read(&reply);
            let waited = last.elapsed().as_secs_f64();
            last = Instant::now();
            let throttled = &mut self.state().throttled;
            *(if lags { &mut throttled.replica_lag } else { &mut throttled.replica_missing }) += waited;
        }
        match self.role {
            RoleView::Replica { .. } => Err(ShardError::Demoted),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'a, ShardState> {
        self.context.shard.state()
    }
}

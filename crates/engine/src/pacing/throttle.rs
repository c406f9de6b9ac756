//! When the next slice of one connection may run: the pace, the cost of slices, the queries between them and the guard.

use std::{
    num::NonZeroU64,
    sync::MutexGuard,
    thread,
    time::{Duration, Instant},
};

use super::{
    baseline::Baseline,
    cost::{CostMeter, Measured},
    guard::Guard,
    load::Load,
    pace::{Decision, Pace},
    probe::Probe,
    profile::PrimaryProfile,
    queries::{Queries, Query},
    signal::Signal,
};
use crate::{
    failure::ShardError,
    limits::Limits,
    link::{Link, LinkError, RoleView, SliceReply, saturating_sum},
    monitor::Monitor,
    options::Options,
    record::{Shard, ShardState, Throttled},
    server::{Expiry, Removals, ScanStatistics, ServerState},
    speed::{OVERHEAD, useful_cursors},
    stop::{STOP_POLL, Stop},
    target::Address,
};

/// Keyspaces below this many keys are swept without a guard: they are done before it could judge.
const MIN_GUARDED_KEYS: u64 = 20_000;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run a slice with this COUNT.
    Slice(u32),
    /// Receive the replies of all slices that are under way: what comes next needs the server's answer between two slices.
    Finish,
    /// Expiry was paused: repeat the slices since the last clean sample.
    RollBack,
}

/// A slice that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartedSlice {
    at: Duration,
    count: u32,
    expected: Duration,
}

impl StartedSlice {
    /// Returns its COUNT.
    pub fn count(self) -> u32 {
        self.count
    }
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
    /// Whether the server tells its time.
    pub tells_time: bool,
    /// Whether the server reports its import mode, in which it deletes no expired key.
    pub reports_import_mode: bool,
    /// Seconds of SCAN for each unit of COUNT that a server of this version needs at most.
    pub expected_cost: f64,
}

/// Decides when the next slice may run, for one connection.
pub(crate) struct Throttle<'a> {
    pub(super) context: ThrottleContext<'a>,
    pub(super) address: Address,
    pace: Pace,
    cost: CostMeter,
    started: Instant,
    pub(super) probe: Probe,
    guard: Option<Guard>,
    /// What the guard judges.
    signal: Signal,
    queries: Queries,
    load: Load,
    /// Keys that others than the sweep have removed.
    pub removals: Removals,
    pub(super) last_sample: ServerState,
    /// The server's CPU and the backoffs that are recorded in the shard's state.
    cpu: Option<Duration>,
    backoffs: u64,
    /// The role as of the last slice, with the lag of the replicas.
    pub(super) role: RoleView,
    pub(super) replicas: usize,
}

impl<'a> Throttle<'a> {
    /// Measures the baseline, once for each primary, and starts. `sample`: the server's state a moment ago, and when that was.
    pub fn start(
        link: &mut Link,
        address: &Address,
        context: ThrottleContext<'a>,
        profile: &mut PrimaryProfile,
        role: RoleView,
        sample: (ServerState, Instant),
    ) -> Result<Self, ShardError> {
        // By default the kernel ends a sleep up to 50 µs late, so that slices would bunch to catch up.
        let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
        let (last_sample, sampled) = sample;
        let started = Instant::now();
        let attached = if let RoleView::Primary { replicas, .. } = role { replicas } else { 0 };
        let mut throttle = Self {
            context,
            address: address.clone(),
            pace: Pace::new(context.limits),
            cost: CostMeter::new(context.expected_cost, None, false),
            started,
            probe: Probe::default(),
            guard: None,
            signal: Signal::default(),
            queries: Queries::new(Duration::ZERO, Duration::ZERO),
            load: Load::default(),
            removals: Removals::default(),
            cpu: last_sample.cpu,
            last_sample,
            backoffs: 0,
            role,
            replicas: *profile.replicas.get_or_insert(attached),
        };
        let baseline = throttle.measure_baseline(link, profile, sampled);
        let baseline = baseline.map_err(|error| ShardError::at(address, error))?;
        throttle.begin(baseline, profile, attached > 0);
        let pauses = throttle.last_sample.pauses;
        throttle.state().pauses_sampled = Some(pauses);
        Ok(throttle)
    }

    /// Measures what clients feel before the first slice.
    fn measure_baseline(
        &mut self,
        link: &mut Link,
        profile: &PrimaryProfile,
        sampled: Instant,
    ) -> Result<Baseline, LinkError> {
        let keys = saturating_sum(self.state().checkpoint.databases.iter().map(|database| database.keys));
        let (probe, before, limits) = (&mut self.probe, (self.last_sample.clone(), sampled), self.context.limits);
        if keys < MIN_GUARDED_KEYS || (limits.guard.is_none() && limits.max_cpu >= 1.0) {
            return Baseline::unguarded(link, probe, before.0);
        }
        // A CPU limit needs the load of the clients also where there is no guard: the cost of slices is what the server uses
        // beyond that.
        let ThrottleContext { tells_time, stop, .. } = self.context;
        Baseline::guarded(link, probe, limits, tells_time, profile.baseline_p90, before, stop)
    }

    /// Sets the guard, and the cost that the first slices are planned with.
    fn begin(&mut self, baseline: Baseline, profile: &mut PrimaryProfile, has_replicas: bool) {
        (self.last_sample, self.signal) = (baseline.sample, baseline.signal);
        self.removals = Removals::starting_at(self.last_sample.counters);
        self.context.limits = self.context.limits.over(self.probe.idle());
        profile.baseline_p90 = profile.baseline_p90.or(baseline.p90);
        if baseline.p90.is_some() {
            self.state().baseline_p90 = baseline.p90;
        }
        let known = profile.cost_per_unit.unwrap_or(self.context.expected_cost);
        let propagates = has_replicas || self.last_sample.is_appending;
        self.cost = CostMeter::new(known, baseline.clients, propagates);
        let spacing = Limits::spacing(self.probe.idle());
        self.pace = Pace::new(self.context.limits).starting_at(OVERHEAD, known).spaced(spacing);
        let now = self.now();
        if let Some(statistics) = self.last_sample.scan {
            self.cost.read(now, statistics);
        }
        if let Some(guard) = &baseline.guard {
            self.pace.set_max_cpu(guard.max_cpu());
        }
        self.guard = baseline.guard;
        self.load = Load::starting_at(Instant::now(), self.last_sample.main_thread_cpu);
        self.queries = Queries::new(now, self.probe.idle());
        if self.last_sample.saving || self.last_sample.expiry == Expiry::Paused {
            self.queries.expedite(Query::State, now);
        }
        self.probe.reset();
    }

    /// Returns the time since the throttle started.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the seconds of SCAN for each unit of COUNT, as far as the server tells.
    pub fn cost_per_unit(&self) -> Option<f64> {
        self.cost.per_unit()
    }

    /// Returns how many cursors can use the CPU limit together: over a long path one of them waits for the network most of the
    /// time.
    pub fn useful_cursors(&self) -> usize {
        // Round trips cannot tell the cost of slices that wait for each other.
        if self.cost.is_told() { useful_cursors(self.context.limits, self.probe.idle()) } else { 1 }
    }

    /// Records the start of a slice.
    pub fn begin_slice(&mut self, count: u32) -> StartedSlice {
        let (at, expected) = (self.now(), self.cost.expect(count));
        self.pace.begin(at, expected);
        StartedSlice { at, count, expected }
    }

    /// Records the reply of a slice. `round_trip`: how long it took, where the reply was awaited all the while. Returns what it
    /// cost.
    pub fn record(&mut self, started: StartedSlice, round_trip: Option<Duration>, slice: &SliceReply) -> Duration {
        let StartedSlice { at, count, expected } = started;
        let answered = Instant::now();
        let cost = self.cost.record(&Measured {
            count,
            reclaimed: slice.reclaimed,
            scan: slice.scan_time(),
            excess: round_trip.map(|round_trip| round_trip.saturating_sub(self.probe.low())),
            commands: slice.commands,
        });
        if let Some((begun, ended)) = slice.clock {
            // A clock that stands still in transactions says only when this one began.
            let ended = if begun == ended { ended.saturating_add(cost.as_micros() as i64) } else { ended };
            let judged = self.signal.after_slice(self.started + at, answered, (begun, ended));
            self.judge(judged);
        }
        self.load.spend(cost.as_secs_f64());
        self.removals.record_reclaimed(slice.reclaimed);
        let more = cost.as_secs_f64() - expected.as_secs_f64();
        self.pace.finish(at, more, self.cost.pause(cost), count, slice.returned + slice.reclaimed, slice.reclaimed);
        self.role = slice.role.clone();
        self.queries.record_slice();
        if self.cost.wants_reading() {
            self.queries.expedite(Query::Cost, self.now());
        }
        cost
    }

    /// Waits until the limits allow a slice and no reason to throttle is left. `is_idle`: whether no slice is under way.
    pub fn next_slice(&mut self, link: &mut Link, is_idle: bool) -> Result<Next, ShardError> {
        loop {
            self.check_stop()?;
            if !is_idle && self.waits_for_replicas() {
                return Ok(Next::Finish);
            }
            self.wait_for_replicas(link)?;
            let now = self.now();
            let (due, count) = match self.pace.next(now) {
                Decision::Wait(due) => (due, None),
                Decision::Go(count) => (now, Some(count)),
            };
            if let Some((query, at)) = self.queries.next(now, due, self.waits_for_saves()) {
                if !is_idle {
                    return Ok(Next::Finish);
                }
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
        let failed = |error| ShardError::at(&self.address, error);
        self.cost.record_commands(query.commands());
        match query {
            Query::State => self.observe(link),
            Query::Save => Ok(!ServerState::is_saving(link).map_err(failed)? || self.observe(link)?),
            Query::Cost => {
                if let Some(statistics) = ScanStatistics::sample(link).map_err(failed)? {
                    self.settle(statistics);
                }
                Ok(true)
            }
            Query::Ping => self.ping_and_judge(link).map(|()| true),
        }
    }

    /// Corrects what the slices since the last reading cost by what the server has counted.
    fn settle(&mut self, statistics: ScanStatistics) {
        let now = self.now();
        let correction = self.cost.read(now, statistics);
        self.state().correct_server_time(correction);
        self.load.spend(correction);
        let query = self.cost.record_query();
        self.pace.settle(now, correction + query.as_secs_f64());
        self.queries.postpone(Query::Cost, now);
    }

    pub(super) fn check_stop(&self) -> Result<(), ShardError> {
        self.context.stop.cause().map_or(Ok(()), |cause| Err(cause.into()))
    }

    /// Waits as precisely as the operating system can, and polls the stop only in the longest waits.
    fn wait_until(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        match left < STOP_POLL {
            true => thread::sleep(left),
            false => self.context.stop.wait_until(until),
        }
    }

    fn ping_and_judge(&mut self, link: &mut Link) -> Result<(), ShardError> {
        let sent = self.now();
        let round_trip = self.signal.send_probe(link).map_err(|error| ShardError::at(&self.address, error))?;
        self.probe.record(sent, round_trip);
        self.state().record_ping(round_trip);
        self.context.monitor.probe(round_trip);
        self.judge(self.signal.after_probe(&self.probe));
        Ok(())
    }

    /// Lets the guard judge what clients wait for, if that is known, and follows it.
    fn judge(&mut self, latency: Option<Duration>) {
        let now = self.now();
        let Some((guard, latency)) = self.guard.as_mut().zip(latency) else { return };
        if guard.judge(now, latency) {
            self.probe.reset();
            self.signal.reset();
        }
        self.pace.set_max_cpu(guard.max_cpu());
        let more = guard.backoffs() - self.backoffs;
        self.backoffs += more;
        self.state().backoffs += more;
    }

    /// Takes in a sample of the server's state: its load, its CPU, and what slices cost.
    pub(super) fn take_in(&mut self, sample: &ServerState) {
        if let Some(statistics) = sample.scan {
            self.settle(statistics);
        }
        let now = Instant::now();
        let load = sample.main_thread_cpu.and_then(|cpu| self.load.read(now, cpu));
        if let Some((guard, (busy, own))) = self.guard.as_mut().zip(load) {
            guard.read_load(busy, own);
        }
        let judged = self.signal.after_sample(now, [&self.last_sample, sample], load.map(|(_, own)| own));
        self.judge(judged);
        self.record_cpu(sample.cpu);
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

    pub(super) fn state(&self) -> MutexGuard<'a, ShardState> {
        self.context.shard.state()
    }
}

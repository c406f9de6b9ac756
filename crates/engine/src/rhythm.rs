//! When the next slice may run: the pace, what the probe and the guard make of it, and the reasons to hold.

use std::{
    sync::MutexGuard,
    thread,
    time::{Duration, Instant},
};

use crate::{
    failure::{FailureKind, Trouble},
    guard::Guard,
    ledger::Ledger,
    link::{Link, RoleView, SliceReply},
    look::{Expiry, Look},
    monitor::Monitor,
    pace::{Pace, Step},
    probe::{self, Probe},
    roster::Seat,
    shard::Shard,
    stop::{Cause, Stop},
    sweep::Options,
    target::Address,
};

/// PINGs before the first slice, and the time between them: the baseline that the guard compares with.
const BASELINE_PINGS: u32 = 20;
const BASELINE_EVERY: Duration = Duration::from_millis(10);
/// How often the server's state is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often only the child processes are looked for: what is deleted until one is noticed costs memory.
const FORK_LOOK_EVERY: Duration = Duration::from_millis(25);
/// How often a reason to hold is looked at again.
const HOLD_EVERY: Duration = Duration::from_millis(100);
/// Keyspaces that are swept in less time than the guard needs to judge are swept without one.
const WORTH_GUARDING: u64 = 20_000;

/// What a turn of the rhythm ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Run a slice with this COUNT.
    Go(u32),
    /// Expiry was paused meanwhile: what was swept since the last clean look must be swept again.
    Rewind,
}

/// What a shard takes along from one connection to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// The p90 before the first slice.
    baseline: Option<Duration>,
    /// Replicas that were attached at the start.
    replicas: Option<usize>,
    /// What the checks before the sweep came to; `None`: they have not been made.
    checked: Option<Checked>,
}

#[derive(Debug, Clone, Copy)]
struct Checked {
    releases_cap: Option<u64>,
}

impl Memory {
    /// Whether the checks before the sweep have been made.
    pub fn is_checked(&self) -> bool {
        self.checked.is_some()
    }

    /// They have, and ask for at most so many releases a second.
    pub fn checked(&mut self, releases_cap: Option<u64>) {
        self.checked = Some(Checked { releases_cap });
    }

    /// Releases a second that the checks ask for at most.
    pub fn releases_cap(&self) -> Option<u64> {
        self.checked?.releases_cap
    }
}

/// When the next slice may run, in one connection's own time.
pub(crate) struct Rhythm<'a> {
    pub pace: Pace,
    begun: Instant,
    probe: Probe,
    guard: Option<Guard>,
    /// See [`Rhythm::others`].
    others: Duration,
    next_ping: Instant,
    next_look: Instant,
    next_fork_look: Instant,
    /// CPU of the main thread at the last look, and when that was.
    last_cpu: Option<(Instant, Duration)>,
    /// What the last look found.
    last: Look,
    /// CPU of the server that is in the books, and back-offs that are.
    cpu: Option<Duration>,
    backoffs: u64,
    /// What the last slice said of replicas.
    role: RoleView,
    replicas: usize,
    options: &'a Options,
    stop: &'a Stop,
    monitor: &'a dyn Monitor,
    seat: &'a Seat,
    address: Address,
}

impl<'a> Rhythm<'a> {
    /// Measures the baseline, once a shard, and begins.
    pub fn begin(link: &mut Link, address: &Address, shard: &mut Shard<'a>, role: RoleView) -> Result<Self, Trouble> {
        let begun = Instant::now();
        let last = Look::take(link).map_err(|error| Trouble::at(address, error))?;
        let attached = if let RoleView::Primary { replicas, .. } = role { replicas } else { 0 };
        let mut rhythm = Self {
            pace: Pace::new(shard.limits()),
            begun,
            probe: Probe::default(),
            guard: None,
            others: Duration::ZERO,
            next_ping: begun,
            next_look: begun + LOOK_EVERY,
            next_fork_look: begun,
            last_cpu: None,
            last,
            replicas: *shard.memory.replicas.get_or_insert(attached),
            role,
            options: shard.options,
            stop: shard.access.stop,
            monitor: shard.monitor,
            seat: shard.seat,
            cpu: last.cpu,
            backoffs: 0,
            address: address.clone(),
        };
        let keys = rhythm.ledger().standing.databases.iter().map(|database| database.keys).sum::<u64>();
        let tolerance = rhythm.options.limits.guard.filter(|_| keys >= WORTH_GUARDING);
        match tolerance {
            Some(tolerance) => rhythm.measure_baseline(link, tolerance, &mut shard.memory)?,
            // Without a guard only the idle round trip is needed, and that is no reason to keep anybody waiting.
            None => (0..3).try_for_each(|_| rhythm.ping(link).map(drop))?,
        }
        rhythm.probe.start_over();
        Ok(rhythm)
    }

    /// Measures what the server is like without us, and sets the guard by it.
    fn measure_baseline(&mut self, link: &mut Link, tolerance: Duration, memory: &mut Memory) -> Result<(), Trouble> {
        let (begun, before) = (Instant::now(), self.last.main_thread_cpu);
        for _ in 0..BASELINE_PINGS {
            self.ping(link)?;
            self.stop.wait_until(Instant::now() + BASELINE_EVERY);
        }
        let trouble = |error| Trouble::at(&self.address, error);
        let after = Look::take(link).map_err(trouble)?.main_thread_cpu;
        let Some(p90) = self.probe.p90() else { return Ok(()) };
        // That of the first connection: a later one may begin in the middle of what made the first one break.
        let baseline = *memory.baseline.get_or_insert(p90);
        let mut guard = Guard::new(self.options.limits.duty, baseline, tolerance);
        if let (Some(before), Some(after)) = (before, after) {
            guard.begin_beside(after.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64());
            self.last_cpu = Some((Instant::now(), after));
        }
        self.pace.set_duty(guard.duty());
        self.guard = Some(guard);
        let mut ledger = self.ledger();
        ledger.baseline_p90 = Some(baseline);
        Ok(())
    }

    /// Time since the rhythm began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The part of a slice's round trip that is not ours: the least PING of the last second. On a crowded server the
    /// median, since there a slice waits its turn as every PING does, and that is not time that it takes from clients.
    pub fn others(&self) -> Duration {
        self.others
    }

    /// Takes note of a slice.
    pub fn record(&mut self, started: Duration, cost: Duration, count: u32, slice: &SliceReply) {
        self.pace.record(started, cost, count, slice.returned + slice.released, slice.released);
        self.role = slice.role.clone();
    }

    /// Waits for the budget, and as long as there is a reason to hold.
    pub fn wait_for_turn(&mut self, link: &mut Link) -> Result<Turn, Trouble> {
        loop {
            self.check_stop()?;
            self.hold_for_replicas(link)?;
            let due = Instant::now() >= self.next_look || self.finds_a_fork(link)?;
            if due && !self.look(link)? {
                return Ok(Turn::Rewind);
            }
            if let Step::Wait(due) = self.pace.next(self.now()) {
                self.wait_until(self.begun + due);
                continue;
            }
            // Only now: a PING says most just before a slice, when the server has had its time to catch up.
            if Instant::now() >= self.next_ping {
                self.ping_and_judge(link)?;
                continue;
            }
            if let Step::Go(count) = self.pace.next(self.now()) {
                return Ok(Turn::Go(count));
            }
        }
    }

    fn check_stop(&self) -> Result<(), Trouble> {
        self.stop.cause().map_or(Ok(()), |cause| Err(halted(cause)))
    }

    /// Waits with the operating system's precision for all but the longest waits, which look at the stop.
    fn wait_until(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        match left < crate::stop::LOOK {
            true => thread::sleep(left),
            false => self.stop.wait_until(until),
        }
    }

    fn ping(&mut self, link: &mut Link) -> Result<Duration, Trouble> {
        let sent = self.now();
        let round_trip = link.ping().map_err(|error| Trouble::at(&self.address, error))?;
        self.probe.record(sent, round_trip);
        let crowded = self.guard.as_ref().is_some_and(Guard::is_crowded);
        self.others = if crowded { self.probe.typical() } else { self.probe.idle() };
        self.next_ping = Instant::now() + probe::EVERY;
        Ok(round_trip)
    }

    fn ping_and_judge(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let round_trip = self.ping(link)?;
        self.ledger().enter_ping(round_trip);
        self.monitor.probe(round_trip);
        let now = self.now();
        let (Some(guard), Some(p90)) = (&mut self.guard, self.probe.p90()) else { return Ok(()) };
        if guard.judge(now, p90) {
            self.probe.start_over();
        }
        self.pace.set_duty(guard.duty());
        let more = guard.backoffs() - self.backoffs;
        self.backoffs += more;
        self.ledger().backoffs += more;
        Ok(())
    }

    /// Tells the guard how busy the main thread has been since the last look.
    fn read_load(&mut self, cpu: Option<Duration>) {
        let (Some(guard), Some(cpu)) = (&mut self.guard, cpu) else { return };
        let now = Instant::now();
        if let Some((then, before)) = self.last_cpu.replace((now, cpu)) {
            let elapsed = now.duration_since(then);
            // A look that comes right after another says little.
            if elapsed >= LOOK_EVERY / 2 {
                guard.read_load(cpu.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64());
            }
        }
    }

    /// Enters what the server has used since the last time.
    pub fn enter_cpu(&mut self, cpu: Option<Duration>) {
        if let Some((cpu, before)) = cpu.zip(self.cpu) {
            let mut ledger = self.ledger();
            ledger.server_cpu = Some(ledger.server_cpu.unwrap_or_default() + cpu.saturating_sub(before));
        }
        self.cpu = cpu;
    }

    /// Child processes are waited for, but not for ever: not longer in all than the limit.
    fn holds_for_forks(&self) -> bool {
        self.options.hold_for_forks && self.ledger().held.fork < self.options.hold_limit.as_secs_f64()
    }

    fn finds_a_fork(&mut self, link: &mut Link) -> Result<bool, Trouble> {
        if Instant::now() < self.next_fork_look || !self.holds_for_forks() {
            return Ok(false);
        }
        self.next_fork_look = Instant::now() + FORK_LOOK_EVERY;
        Look::has_forked(link).map_err(|error| Trouble::at(&self.address, error))
    }

    /// Whether the last look could have told that expiry was paused.
    pub fn shows_expiry(&self) -> bool {
        self.last.expiry != Expiry::NotShown
    }

    /// Whether expiry has been alive since the last look, as far as the server tells; no answer is no.
    pub fn is_clean(&self, link: &mut Link) -> bool {
        Look::take(link).is_ok_and(|look| look.expiry != Expiry::Paused && look.pauses == self.last.pauses)
    }

    /// Looks at the server's state: holds while it has forked, and while expiry is paused. `false`: it is or was paused
    /// since the last look.
    pub fn look(&mut self, link: &mut Link) -> Result<bool, Trouble> {
        let mut clean = true;
        let begun = Instant::now();
        let mut last = begun;
        let look = loop {
            let look = Look::take(link).map_err(|error| Trouble::at(&self.address, error))?;
            let paused = look.expiry == Expiry::Paused;
            let forked = look.forked && self.holds_for_forks();
            clean &= !paused;
            if !paused && !forked {
                break look;
            }
            if begun == last {
                self.monitor.note(match paused {
                    true => "the server has paused writes and with them expiry; the sweep waits and goes over the last second again",
                    false => "the server is saving or rewriting its log in a child process; the sweep waits, to spare its memory",
                });
            }
            self.check_stop()?;
            self.stop.wait_until(Instant::now() + HOLD_EVERY);
            let waited = last.elapsed();
            last = Instant::now();
            let mut ledger = self.ledger();
            if paused { ledger.held.paused += waited.as_secs_f64() } else { ledger.held.fork += waited.as_secs_f64() }
        };
        self.next_look = Instant::now() + LOOK_EVERY;
        self.read_load(look.main_thread_cpu);
        self.enter_cpu(look.cpu);
        // Not `>`: whoever resets the statistics may have hidden a pause by it.
        if clean && look.pauses != self.last.pauses {
            self.monitor.note("expiry may have been paused for a moment; the sweep goes over the last second again");
            clean = false;
        }
        self.last = look;
        if clean {
            self.ledger().confirm();
        }
        Ok(clean)
    }

    /// Waits for the end of a pause that the server does not show.
    pub fn hold_for_hidden_pause(&mut self, wait: Duration) -> Result<(), Trouble> {
        let begun = Instant::now();
        self.stop.wait_until(begun + wait);
        self.ledger().held.paused += begun.elapsed().as_secs_f64();
        self.check_stop()
    }

    /// Waits while a replica lags too far behind, or one that was there at the start is missing: deletes are
    /// replicated, and must not overrun what the server keeps for its replicas.
    fn hold_for_replicas(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let begun = Instant::now();
        let mut last = begun;
        while let RoleView::Primary { max_lag, replicas, .. } = self.role {
            let lags = max_lag > self.options.max_replica_lag;
            if !lags && replicas >= self.replicas {
                break;
            }
            if !lags && begun.elapsed() >= self.options.hold_limit {
                self.monitor.note("a replica is still missing; the sweep goes on without it");
                self.replicas = replicas;
                break;
            }
            if begun == last {
                self.monitor.note(match lags {
                    true => "a replica lags behind; the sweep waits for it",
                    false => "a replica is missing or synchronising; the sweep waits for it",
                });
            }
            self.check_stop()?;
            self.stop.wait_until(Instant::now() + HOLD_EVERY);
            let reply = link.call(&[b"ROLE"]).map_err(|error| Trouble::at(&self.address, error))?;
            self.role = RoleView::read(&reply);
            let waited = last.elapsed().as_secs_f64();
            last = Instant::now();
            let mut ledger = self.ledger();
            if lags { ledger.held.replica_lag += waited } else { ledger.held.replica_missing += waited }
        }
        match self.role {
            RoleView::Replica { .. } => Err(Trouble::Demoted),
            _ => Ok(()),
        }
    }

    fn ledger(&self) -> MutexGuard<'a, Ledger> {
        self.seat.ledger()
    }
}

/// What a stop means for a shard.
pub(crate) fn halted(cause: Cause) -> Trouble {
    match cause {
        Cause::Asked => Trouble::Halted(FailureKind::Interrupted),
        Cause::OutOfTime => Trouble::Halted(FailureKind::Timeout),
        Cause::Recalled => Trouble::Demoted,
    }
}

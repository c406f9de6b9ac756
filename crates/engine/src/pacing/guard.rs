//! The guard: backs off when latency or load rises, and recovers when they fall. Pure.
//!
//! Its two signals are the latency of a PING and the load of the main thread. On a saturated server the latency hardly rises
//! above its baseline, which was bad already, although every slice takes time from clients.

use std::time::Duration;

use crate::speed::{CROWDED, MIN_CPU, QUIET, least_when_crowded, share_beside};

/// Part of the full CPU limit that is recovered in a second without a reason to back off.
const RECOVERY: f64 = 0.1;

/// The guard of one shard.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The CPU limit without a reason to back off.
    full: f64,
    max_cpu: f64,
    /// The p90 of a PING above which the guard backs off.
    threshold: Duration,
    backoffs: u64,
    judged: Option<Duration>,
    crowded: bool,
    /// Whether the last reading of the load caused a backoff already; one for each reading.
    answered: bool,
}

impl Guard {
    /// Returns a guard that lets the p90 rise by `tolerance` above `baseline`, the p90 before the sweep.
    pub fn new(full: f64, baseline: Duration, tolerance: Duration) -> Self {
        Self {
            full,
            max_cpu: full,
            threshold: baseline + tolerance,
            backoffs: 0,
            judged: None,
            crowded: false,
            answered: false,
        }
    }

    /// Judges a p90 at `now`. Returns whether the CPU limit was halved; then only later PINGs should be judged.
    pub fn judge(&mut self, now: Duration, p90: Duration) -> bool {
        let since = self.judged.replace(now).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let crowded = self.crowded && !std::mem::replace(&mut self.answered, true);
        let least = match (p90 > self.threshold, crowded) {
            (true, _) => Some(MIN_CPU.min(self.full)),
            (false, true) => Some(least_when_crowded(self.full)),
            (false, false) => None,
        };
        if let Some(least) = least.filter(|least| *least < self.max_cpu || p90 > self.threshold) {
            self.max_cpu = (self.max_cpu / 2.0).max(least);
            self.backoffs += 1;
            return true;
        }
        if self.crowded {
            return false;
        }
        self.max_cpu = (self.max_cpu + self.full * RECOVERY * since.as_secs_f64()).min(self.full);
        false
    }

    /// Starts with the share of the main thread that clients leave free; `clients`: the load that they cause, 0–1.
    pub fn start_beside(&mut self, clients: f64) {
        if clients <= QUIET {
            return;
        }
        self.crowded = clients > CROWDED;
        // The starting limit is the reaction to this reading.
        self.answered = true;
        self.max_cpu = share_beside(self.full, clients);
        self.backoffs += u64::from(self.max_cpu < self.full);
    }

    /// Records the load of the main thread since the last reading, and the part of it that the sweep caused, 0–1.
    pub fn read_load(&mut self, busy: f64, own: f64) {
        (self.crowded, self.answered) = (busy > CROWDED && busy - own > QUIET, false);
    }

    /// Returns the share of the main thread that may be used now, 0–1.
    pub fn max_cpu(&self) -> f64 {
        self.max_cpu
    }

    /// Returns how often the CPU limit was halved.
    pub fn backoffs(&self) -> u64 {
        self.backoffs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        limits::Limits,
        pacing::{
            pace::{Decision, Pace},
            probe::Probe,
        },
        speed::MOST_WHEN_CROWDED,
    };

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn it_halves_down_to_a_hundredth_and_recovers_by_a_tenth_a_second() {
        let mut guard = Guard::new(0.25, MILLI, MILLI);
        for n in 0..10 {
            assert!(guard.judge(Duration::from_millis(200 * n), 3 * MILLI));
        }
        assert_eq!((guard.max_cpu(), guard.backoffs()), (0.01, 10));
        let mut now = Duration::from_secs(2);
        guard.judge(now, MILLI);
        let before = guard.max_cpu();
        for _ in 0..50 {
            now += 20 * MILLI;
            assert!(!guard.judge(now, 2 * MILLI));
        }
        assert!((guard.max_cpu() - before - 0.025).abs() < 1e-9, "{} after a second from {before}", guard.max_cpu());
        guard.judge(now + Duration::from_secs(60), MILLI);
        assert_eq!(guard.max_cpu(), 0.25);
    }

    #[test]
    fn beside_busy_clients_it_starts_with_the_share_that_they_leave() {
        let begun = |clients| {
            let mut guard = Guard::new(0.25, MILLI, MILLI);
            guard.start_beside(clients);
            (guard.max_cpu(), guard.backoffs())
        };
        assert_eq!((begun(0.1), begun(0.97)), ((0.25, 0), (0.025, 1)));
        assert!((begun(0.7).0 - 0.1).abs() < 1e-9);
        // However much a pace takes of a quiet server, a crowded one has no more to give.
        let mut high = Guard::new(0.8, MILLI, MILLI);
        high.start_beside(0.97);
        assert_eq!(high.max_cpu(), MOST_WHEN_CROWDED);
    }

    #[test]
    fn on_a_crowded_server_it_backs_off_once_a_reading_and_does_not_recover() {
        let mut guard = Guard::new(0.25, MILLI, MILLI);
        let at = |n: u64| Duration::from_millis(20 * n);
        guard.read_load(0.95, 0.25);
        assert!(guard.judge(at(0), MILLI), "although the latency has not changed");
        (1..50).for_each(|n| assert!(!guard.judge(at(n), MILLI)));
        assert_eq!(guard.max_cpu(), 0.125);
        for n in 50..53 {
            guard.read_load(0.9, 0.1);
            assert!(guard.judge(at(n), MILLI));
        }
        guard.read_load(0.9, 0.02);
        assert!(!guard.judge(at(53), MILLI), "a tenth is kept, so that the sweep finishes");
        assert_eq!(guard.max_cpu(), 0.025);
        guard.read_load(0.5, 0.02);
        guard.judge(at(53), MILLI);
        guard.judge(at(103), MILLI);
        assert!(guard.max_cpu() > 0.04, "it recovers when the load falls: {}", guard.max_cpu());
    }

    #[test]
    fn a_server_that_is_busy_with_the_sweep_alone_is_not_crowded() {
        let mut guard = Guard::new(0.9, MILLI, MILLI);
        guard.start_beside(0.1);
        guard.read_load(0.98, 0.88);
        assert!(!guard.judge(Duration::ZERO, MILLI));
        assert_eq!((guard.max_cpu(), guard.backoffs()), (0.9, 0));
        guard.read_load(0.98, 0.6);
        assert!(guard.judge(20 * MILLI, MILLI), "clients would use more");
    }

    /// A server in virtual time: the higher its load, by clients and the sweep, the longer a reply takes.
    struct Simulated {
        now: Duration,
        probe: Probe,
        guard: Guard,
        pace: Pace,
        /// Share of the main thread that clients use.
        clients: f64,
        /// Time that slices took.
        swept: Duration,
    }

    impl Simulated {
        fn new(clients: f64) -> Self {
            let limits = Limits::quarter();
            let guard = Guard::new(limits.max_cpu, Self::reply_time(clients), MILLI);
            let (now, swept) = (Duration::ZERO, Duration::ZERO);
            Self { now, probe: Probe::default(), guard, pace: Pace::new(limits), clients, swept }
        }

        /// Returns the mean reply time of a queue with this load, for 100 µs of work.
        fn reply_time(used: f64) -> Duration {
            Duration::from_micros(100).div_f64((1.0 - used).max(0.02))
        }

        /// Lets `time` pass by the rules of the throttle. Returns the share of it that slices took.
        fn run(&mut self, time: Duration) -> f64 {
            let (until, swept) = (self.now + time, self.swept);
            let mut next_ping = self.now;
            while self.now < until {
                match self.pace.next(self.now) {
                    Decision::Wait(due) => self.now = due,
                    Decision::Go(_) if self.now >= next_ping => {
                        let round_trip = Self::reply_time(self.clients + self.guard.max_cpu());
                        self.probe.record(self.now, round_trip);
                        self.now += round_trip;
                        next_ping = self.now + 20 * MILLI;
                        if self.probe.p90().is_some_and(|p90| self.guard.judge(self.now, p90)) {
                            self.probe.reset();
                        }
                        self.pace.set_max_cpu(self.guard.max_cpu());
                    }
                    Decision::Go(count) => {
                        let cost = Duration::from_nanos(900) * count;
                        self.pace.record(self.now, cost, count, u64::from(count), 0);
                        (self.now, self.swept) = (self.now + cost, self.swept + cost);
                    }
                }
            }
            (self.swept - swept).as_secs_f64() / time.as_secs_f64()
        }
    }

    #[test]
    fn it_backs_off_while_clients_are_busy_and_recovers_afterwards() {
        let second = Duration::from_secs(1);
        let mut server = Simulated::new(0.2);
        assert!((0.22..0.25).contains(&server.run(5 * second)), "quiet: the whole limit, {}", server.guard.max_cpu());
        assert_eq!(server.guard.backoffs(), 0);

        server.clients = 0.9;
        server.run(2 * second);
        let busy = server.run(5 * second);
        assert!((0.005..0.04).contains(&busy), "busy: little, and more than zero: {busy}");
        assert!(Simulated::reply_time(0.9 + busy) < Simulated::reply_time(0.2) + 2 * MILLI);

        server.clients = 0.2;
        server.run(12 * second);
        assert!((0.22..0.25).contains(&server.run(second)), "quiet again: {}", server.guard.max_cpu());
    }

    proptest! {
        #[test]
        fn the_limit_stays_between_a_hundredth_and_the_full_limit(
            full in 0.001f64..1.0,
            answers in prop::collection::vec((1u64..500, 0u64..10_000), 1..200),
        ) {
            let mut guard = Guard::new(full, MILLI, MILLI);
            let mut now = Duration::ZERO;
            for (pause, micros) in answers {
                now += Duration::from_millis(pause);
                guard.judge(now, Duration::from_micros(micros));
                prop_assert!(guard.max_cpu() <= full && guard.max_cpu() >= full.min(MIN_CPU));
            }
        }
    }
}

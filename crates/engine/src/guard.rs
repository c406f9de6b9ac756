//! The guard: takes less of the server when its clients suffer, more again when they do not. Pure.
//!
//! Two things tell: the latency of a PING, and how busy the main thread is. On a server that is saturated latency hardly
//! rises above what it was before (it was bad before), and yet all that we take is taken from clients.

use std::time::Duration;

/// The least share of the main thread that a sweep backs off to, 0–1.
const LEAST_DUTY: f64 = 0.01;
/// Beyond this share of the main thread's time, ours included, the server is crowded: answers begin to queue.
const CROWDED: f64 = 0.8;
/// What is kept of the full duty on a crowded server. Less would be gentler still, and a sweep that does not come to its
/// end releases nothing for good.
const KEPT_WHEN_CROWDED: f64 = 0.1;
/// Part of the full duty that comes back in a second without suffering.
const RECOVERY: f64 = 0.1;

/// The guard of one shard.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The duty without a reason to back off.
    full: f64,
    duty: f64,
    /// A p90 above this means that clients suffer.
    threshold: Duration,
    backoffs: u64,
    judged: Option<Duration>,
    crowded: bool,
    /// Whether that has been answered by a back-off: one a reading.
    answered: bool,
}

impl Guard {
    /// A guard that lets the p90 rise by `tolerance` above `baseline`, the p90 before the sweep.
    pub fn new(full: f64, baseline: Duration, tolerance: Duration) -> Self {
        Self {
            full,
            duty: full,
            threshold: baseline + tolerance,
            backoffs: 0,
            judged: None,
            crowded: false,
            answered: false,
        }
    }

    /// Judges a p90 at `now`; says whether the duty was halved, after which only later answers should be judged.
    pub fn judge(&mut self, now: Duration, p90: Duration) -> bool {
        let since = self.judged.replace(now).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let crowded = self.crowded && !std::mem::replace(&mut self.answered, true);
        let least = match (p90 > self.threshold, crowded) {
            (true, _) => Some(LEAST_DUTY.min(self.full)),
            (false, true) => Some(self.least_when_crowded()),
            (false, false) => None,
        };
        if let Some(least) = least.filter(|least| *least < self.duty || p90 > self.threshold) {
            self.duty = (self.duty / 2.0).max(least);
            self.backoffs += 1;
            return true;
        }
        if self.crowded {
            return false;
        }
        self.duty = (self.duty + self.full * RECOVERY * since.as_secs_f64()).min(self.full);
        false
    }

    /// Begins with what is left of a main thread that clients keep busy for this share of the time, 0–1.
    pub fn begin_beside(&mut self, clients: f64) {
        self.crowded = clients > CROWDED;
        // This reading has been answered by where the duty begins.
        self.answered = true;
        self.duty = (CROWDED - clients).clamp(self.least_when_crowded(), self.full);
        self.backoffs += u64::from(self.duty < self.full);
    }

    fn least_when_crowded(&self) -> f64 {
        (self.full * KEPT_WHEN_CROWDED).max(LEAST_DUTY.min(self.full))
    }

    /// Takes note of how busy the main thread has been since the last reading, 0–1.
    pub fn read_load(&mut self, busy: f64) {
        (self.crowded, self.answered) = (busy > CROWDED, false);
    }

    /// Whether the main thread was so busy at the last reading that answers queue.
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// The share of the main thread that may be used now, 0–1.
    pub fn duty(&self) -> f64 {
        self.duty
    }

    /// How often the duty was halved.
    pub fn backoffs(&self) -> u64 {
        self.backoffs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        pace::{Pace, Preset, Step},
        probe::Probe,
    };

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn it_halves_down_to_a_hundredth_and_recovers_by_a_tenth_a_second() {
        let mut guard = Guard::new(0.25, MILLI, MILLI);
        for n in 0..10 {
            assert!(guard.judge(Duration::from_millis(200 * n), 3 * MILLI));
        }
        assert_eq!((guard.duty(), guard.backoffs()), (0.01, 10));
        let mut now = Duration::from_secs(2);
        guard.judge(now, MILLI);
        let before = guard.duty();
        for _ in 0..50 {
            now += 20 * MILLI;
            assert!(!guard.judge(now, 2 * MILLI));
        }
        assert!((guard.duty() - before - 0.025).abs() < 1e-9, "{} after a second from {before}", guard.duty());
        guard.judge(now + Duration::from_secs(60), MILLI);
        assert_eq!(guard.duty(), 0.25);
    }

    #[test]
    fn beside_busy_clients_it_begins_with_what_they_leave() {
        let begun = |clients| {
            let mut guard = Guard::new(0.25, MILLI, MILLI);
            guard.begin_beside(clients);
            (guard.duty(), guard.backoffs())
        };
        assert_eq!((begun(0.1), begun(0.97)), ((0.25, 0), (0.025, 1)));
        assert!((begun(0.7).0 - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_crowded_server_is_backed_off_from_once_a_reading_and_not_recovered_on() {
        let mut guard = Guard::new(0.25, MILLI, MILLI);
        let at = |n: u64| Duration::from_millis(20 * n);
        guard.read_load(0.95);
        assert!(guard.judge(at(0), MILLI), "although the latency is as before");
        (1..50).for_each(|n| assert!(!guard.judge(at(n), MILLI)));
        assert_eq!(guard.duty(), 0.125);
        for n in 50..53 {
            guard.read_load(0.9);
            assert!(guard.judge(at(n), MILLI));
        }
        guard.read_load(0.9);
        assert!(!guard.judge(at(53), MILLI), "a tenth is kept, so that the sweep comes to its end");
        assert_eq!(guard.duty(), 0.025);
        guard.read_load(0.5);
        guard.judge(at(53), MILLI);
        guard.judge(at(103), MILLI);
        assert!(guard.duty() > 0.04, "it comes back when there is room: {}", guard.duty());
    }

    /// A server in virtual time: the busier it is, by its clients and by us, the longer an answer takes.
    struct Simulated {
        now: Duration,
        probe: Probe,
        guard: Guard,
        pace: Pace,
        /// Share of the main thread that clients use.
        clients: f64,
        /// Time that slices have taken.
        swept: Duration,
    }

    impl Simulated {
        fn new(clients: f64) -> Self {
            let limits = Preset::Normal.limits();
            let guard = Guard::new(limits.duty, Self::answer(clients), MILLI);
            let (now, swept) = (Duration::ZERO, Duration::ZERO);
            Self { now, probe: Probe::default(), guard, pace: Pace::new(limits), clients, swept }
        }

        /// The mean answer of a queue that is used to this share, for 100 µs of work.
        fn answer(used: f64) -> Duration {
            Duration::from_micros(100).div_f64((1.0 - used).max(0.02))
        }

        /// Lets `time` pass with the rhythm's own rules; returns the share of it that slices took.
        fn run(&mut self, time: Duration) -> f64 {
            let (until, swept) = (self.now + time, self.swept);
            let mut next_ping = self.now;
            while self.now < until {
                match self.pace.next(self.now) {
                    Step::Wait(due) => self.now = due,
                    Step::Go(_) if self.now >= next_ping => {
                        let round_trip = Self::answer(self.clients + self.guard.duty());
                        self.probe.record(self.now, round_trip);
                        self.now += round_trip;
                        next_ping = self.now + crate::probe::EVERY;
                        if self.probe.p90().is_some_and(|p90| self.guard.judge(self.now, p90)) {
                            self.probe.start_over();
                        }
                        self.pace.set_duty(self.guard.duty());
                    }
                    Step::Go(count) => {
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
    fn a_server_whose_clients_come_and_go_is_left_to_them_and_taken_back() {
        let second = Duration::from_secs(1);
        let mut server = Simulated::new(0.2);
        assert!((0.22..0.25).contains(&server.run(5 * second)), "quiet: the whole duty, {}", server.guard.duty());
        assert_eq!(server.guard.backoffs(), 0);

        server.clients = 0.9;
        server.run(2 * second);
        let busy = server.run(5 * second);
        assert!((0.005..0.04).contains(&busy), "busy: next to nothing, and not nothing: {busy}");
        assert!(Simulated::answer(0.9 + busy) < Simulated::answer(0.2) + 2 * MILLI);

        server.clients = 0.2;
        server.run(12 * second);
        assert!((0.22..0.25).contains(&server.run(second)), "quiet again: {}", server.guard.duty());
    }

    proptest! {
        #[test]
        fn the_duty_stays_between_a_hundredth_and_what_was_set(
            full in 0.001f64..1.0,
            answers in prop::collection::vec((1u64..500, 0u64..10_000), 1..200),
        ) {
            let mut guard = Guard::new(full, MILLI, MILLI);
            let mut now = Duration::ZERO;
            for (pause, micros) in answers {
                now += Duration::from_millis(pause);
                guard.judge(now, Duration::from_micros(micros));
                prop_assert!(guard.duty() <= full && guard.duty() >= full.min(LEAST_DUTY));
            }
        }
    }
}

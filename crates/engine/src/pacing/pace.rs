//! How many keys the next slice asks for and when it may start. Pure: time comes in, decisions come out.
//!
//! Two guarantees: a slice is not longer than `max_slice` (as far as earlier slices predict the next), and the time of
//! all slices that start within any one second stays below `max_cpu`.

use std::time::Duration;

use crate::{
    limits::Limits,
    speed::{AIM, MIN_COUNT, first_count, most_for_the_cap},
};

/// COUNT of the first slice where nothing is known of the server's speed.
const FIRST_COUNT: u32 = 16;
/// How far the sweep may fall behind its own schedule and still catch up: a sleep overshoots by about 100 µs.
const MAX_DEBT: Duration = Duration::from_millis(2);
/// Part of `max_cpu` that is planned; the rest covers the debt and the slice that ends a second.
const PLANNED: f64 = 0.99;
/// Slices whose cost is kept. Their median decides, so that one outlier does not.
const SAMPLES: usize = 9;

/// What the pace allows now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// No slice until this time.
    Wait(Duration),
    /// Run a slice with this COUNT.
    Go(u32),
}

/// The controller of one shard. Times are since the sweep began.
#[derive(Debug, Clone)]
pub struct Pace {
    limits: Limits,
    /// The CPU limit now: that of `limits`, or less after a backoff.
    max_cpu: f64,
    count: u32,
    /// Seconds for each unit of COUNT of the last slices, the oldest overwritten.
    costs: Vec<f64>,
    oldest: usize,
    /// When the budget of time allows the next slice.
    due: Duration,
    /// Time from the start of one slice to that of the next, at least, and when that is over.
    spacing: Duration,
    spaced: Duration,
    /// When the cap on keys allows it.
    keys_due: Duration,
    /// When the cap on reclaims allows it.
    reclaims_due: Duration,
}

impl Pace {
    /// Returns a controller for these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            max_cpu: limits.max_cpu,
            count: FIRST_COUNT,
            costs: Vec::with_capacity(SAMPLES),
            oldest: 0,
            due: Duration::ZERO,
            spacing: Duration::ZERO,
            spaced: Duration::ZERO,
            keys_due: Duration::ZERO,
            reclaims_due: Duration::ZERO,
        }
    }

    /// Starts with the COUNT for a server where a slice takes this many seconds, and as many for each unit of COUNT.
    pub fn starting_at(mut self, fixed: f64, per_unit: f64) -> Self {
        self.count = first_count(self.limits, fixed, per_unit);
        self
    }

    /// Keeps so much time between the starts of two slices, whatever the budget allows.
    pub fn spaced(mut self, spacing: Duration) -> Self {
        self.spacing = spacing;
        self
    }

    /// Corrects what earlier slices have cost, at `now`: by so many seconds more, or less.
    pub fn settle(&mut self, now: Duration, seconds: f64) {
        if self.max_cpu >= 1.0 {
            return;
        }
        let pause = Duration::from_secs_f64(seconds.abs() / (self.max_cpu * PLANNED));
        self.due = match seconds > 0.0 {
            true => self.due.max(now.saturating_sub(MAX_DEBT)) + pause,
            false => self.due.saturating_sub(pause),
        };
    }

    /// Sets the share of the main thread that may be used from now on, 0–1.
    pub fn set_max_cpu(&mut self, max_cpu: f64) {
        self.max_cpu = max_cpu;
    }

    /// Returns whether to wait or to run a slice at `now`.
    pub fn next(&self, now: Duration) -> Decision {
        let due = self.due.max(self.spaced).max(self.keys_due).max(self.reclaims_due);
        match now < due {
            true => Decision::Wait(due),
            false => Decision::Go(self.count),
        }
    }

    /// Records a slice that started at `started`, blocked the server for `cost`, had this COUNT, scanned `keys` keys and
    /// reclaimed `reclaimed` of them.
    pub fn record(&mut self, started: Duration, cost: Duration, count: u32, keys: u64, reclaimed: u64) {
        self.begin(started, cost);
        self.finish(started, 0.0, cost, count, keys, reclaimed);
    }

    /// Records the start of a slice that is expected to block the server for `expected`.
    pub fn begin(&mut self, started: Duration, expected: Duration) {
        self.spaced = started + self.spacing;
        if self.max_cpu < 1.0 {
            let from = self.due.max(started.saturating_sub(MAX_DEBT));
            self.due = from + expected.div_f64(self.max_cpu * PLANNED);
        }
    }

    /// Records the end of a slice that began at `started`, cost `more` seconds more than was expected, and blocked other clients
    /// for `pause`.
    pub fn finish(&mut self, started: Duration, more: f64, pause: Duration, count: u32, keys: u64, reclaimed: u64) {
        let from = |due: Duration| due.max(started.saturating_sub(MAX_DEBT));
        self.settle(started, more);
        let time_for = |number: u64, rate: u64| Duration::from_secs_f64(number as f64 / rate.max(1) as f64);
        if let Some(rate) = self.limits.keys_per_second {
            self.keys_due = from(self.keys_due) + time_for(keys, rate);
        }
        if let Some(rate) = self.limits.reclaims_per_second {
            self.reclaims_due = from(self.reclaims_due) + time_for(reclaimed, rate);
        }
        self.remember(pause.as_secs_f64() / f64::from(count.max(1)));
        self.adapt();
    }

    fn remember(&mut self, cost: f64) {
        if self.costs.len() < SAMPLES {
            self.costs.push(cost);
        } else {
            self.costs[self.oldest] = cost;
            self.oldest = (self.oldest + 1) % SAMPLES;
        }
    }

    fn adapt(&mut self) {
        let mut sorted = [0.0; SAMPLES];
        let sorted = &mut sorted[..self.costs.len()];
        sorted.copy_from_slice(&self.costs);
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2].max(1e-9);
        let aim = self.limits.max_slice.as_secs_f64() * AIM / median;
        // Bounded growth: the cost of a slice that is too short to measure does not predict one a hundred times its size.
        let most = self.count.saturating_mul(2).min(most_for_the_cap(self.limits));
        self.count = (aim as u32).clamp(MIN_COUNT, most.max(MIN_COUNT));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::{limits::Preset, speed::MAX_COUNT};

    /// A server whose slices take `fixed + count · per_key`, in virtual time.
    struct Bench {
        pace: Pace,
        now: Duration,
        slices: Vec<(Duration, Duration, u32)>,
    }

    impl Bench {
        fn new(limits: Limits) -> Self {
            Self { pace: Pace::new(limits), now: Duration::ZERO, slices: Vec::new() }
        }

        /// Runs for `time`; every sleep overshoots by `overshoot`.
        fn run(&mut self, time: Duration, fixed: Duration, per_key: Duration, overshoot: Duration) {
            let until = self.now + time;
            while self.now < until {
                match self.pace.next(self.now) {
                    Decision::Wait(due) => {
                        assert!(due > self.now, "a wait that does not end");
                        self.now = due + overshoot;
                    }
                    Decision::Go(count) => {
                        let cost = fixed + per_key * count;
                        self.slices.push((self.now, cost, count));
                        self.pace.record(self.now, cost, count, u64::from(count), u64::from(count) / 2);
                        self.now += cost;
                    }
                }
            }
        }

        /// The largest share of any one second that slices which started in it took.
        fn worst_second(&self) -> f64 {
            let (mut window, mut sum, mut worst) = (VecDeque::new(), Duration::ZERO, Duration::ZERO);
            for (start, cost, _) in &self.slices {
                window.push_back((*start, *cost));
                sum += *cost;
                while window.front().is_some_and(|(first, _)| *start - *first >= Duration::from_secs(1)) {
                    sum -= window.pop_front().map_or(Duration::ZERO, |(_, cost)| cost);
                }
                worst = worst.max(sum);
            }
            worst.as_secs_f64()
        }

        fn share(&self) -> f64 {
            self.slices.iter().map(|(_, cost, _)| cost.as_secs_f64()).sum::<f64>() / self.now.as_secs_f64()
        }
    }

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn a_quarter_is_used_although_sleeps_overshoot() {
        let mut bench = Bench::new(Limits::quarter());
        bench.run(Duration::from_secs(5), 20 * MICRO, MICRO, 100 * MICRO);
        assert!((0.24..0.25).contains(&bench.share()), "share {}", bench.share());
    }

    #[test]
    fn it_starts_with_the_count_that_the_known_cost_allows() {
        let pace = Pace::new(Limits::quarter()).starting_at(30e-6, 0.4e-6);
        assert_eq!(pace.next(Duration::ZERO), Decision::Go(350));
        let slow = Pace::new(Limits::quarter()).starting_at(1.0, 1.0);
        assert_eq!(slow.next(Duration::ZERO), Decision::Go(MIN_COUNT));
        let mut limits = Limits::quarter();
        limits.keys_per_second = Some(1_000);
        assert_eq!(Pace::new(limits).starting_at(30e-6, 0.4e-6).next(Duration::ZERO), Decision::Go(50));
    }

    #[test]
    fn a_correction_delays_the_next_slice_by_its_share() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(Limits::quarter());
        pace.settle(second, 0.1);
        let Decision::Wait(due) = pace.next(second) else { panic!("no wait") };
        assert!((due - second).as_secs_f64() > 0.39, "{due:?}");
        pace.settle(second, -0.09);
        let Decision::Wait(due) = pace.next(second) else { panic!("no wait") };
        assert!((due - second).as_secs_f64() < 0.05, "{due:?}");
    }

    #[test]
    fn slices_over_a_path_are_sent_apart_although_they_are_late() {
        let (milli, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let mut pace = Pace::new(Preset::Max.limits()).spaced(2 * milli);
        // After a second without a slice as well.
        pace.begin(second, milli);
        assert_eq!(pace.next(second + milli), Decision::Wait(second + 2 * milli));
        assert!(matches!(pace.next(second + 2 * milli), Decision::Go(_)));
    }

    #[test]
    fn max_never_waits() {
        let mut bench = Bench::new(Preset::Max.limits());
        bench.run(Duration::from_secs(1), 20 * MICRO, MICRO, 100 * MICRO);
        assert!(bench.share() > 0.999);
    }

    #[test]
    fn a_server_ten_times_slower_gets_shorter_slices_within_a_tenth_of_a_second_and_back() {
        let mut bench = Bench::new(Limits::quarter());
        let tenth = Duration::from_millis(100);
        bench.run(Duration::from_secs(1), 10 * MICRO, MICRO, MICRO);
        let quick = bench.pace.count;
        bench.run(tenth, 10 * MICRO, 10 * MICRO, MICRO);
        let slow = bench.pace.count;
        bench.run(tenth, 10 * MICRO, MICRO, MICRO);
        assert!(slow * 8 < quick && slow * 10 * MICRO < 200 * MICRO, "{quick} then {slow}");
        assert!(bench.pace.count * 10 > quick * 9, "{} after recovery, {quick} before", bench.pace.count);
    }

    #[test]
    fn a_lower_limit_takes_effect_at_once() {
        let mut bench = Bench::new(Limits::quarter());
        bench.run(Duration::from_secs(1), 20 * MICRO, MICRO, 100 * MICRO);
        bench.pace.set_max_cpu(0.01);
        let before = bench.slices.len();
        bench.run(Duration::from_secs(1), 20 * MICRO, MICRO, 100 * MICRO);
        let used: Duration = bench.slices[before..].iter().map(|(_, cost, _)| *cost).sum();
        assert!(used < Duration::from_millis(11), "{used:?} of a second");
    }

    #[test]
    fn one_outlier_changes_nothing() {
        let mut bench = Bench::new(Limits::quarter());
        bench.run(Duration::from_secs(1), 10 * MICRO, MICRO, MICRO);
        let before = bench.pace.count;
        bench.pace.record(bench.now, Duration::from_millis(5), before, u64::from(before), 0);
        assert_eq!(bench.pace.count, before);
    }

    #[test]
    fn a_long_slice_delays_the_next() {
        let mut pace = Pace::new(Limits::quarter());
        pace.record(Duration::from_secs(1), Duration::from_millis(500), 10, 10, 0);
        assert!(matches!(pace.next(Duration::from_millis(2990)), Decision::Wait(_)));
        assert!(matches!(pace.next(Duration::from_millis(3050)), Decision::Go(_)));
    }

    proptest! {
        #[test]
        fn no_second_exceeds_the_limit(
            limits in prop::sample::select(vec![Preset::Gentle.limits(), Preset::Normal.limits(), Limits::quarter()]),
            fixed in 1u32..30,
            nanos in prop::collection::vec(50u64..2_000, 1..6),
            overshoot in 0u64..20_000,
        ) {
            let mut bench = Bench::new(limits);
            for per_key in nanos {
                bench.run(Duration::from_millis(700), fixed * MICRO, Duration::from_nanos(per_key), Duration::from_micros(overshoot));
            }
            let longest = bench.slices.iter().map(|(_, cost, _)| *cost).max().unwrap_or_default();
            // Plus the slice that exceeded its own limit because the server had just become slower.
            let excess = longest.saturating_sub(limits.max_slice).as_secs_f64();
            prop_assert!(bench.worst_second() <= limits.max_cpu + excess, "{} of {}", bench.worst_second(), limits.max_cpu);
        }

        #[test]
        fn the_cap_on_keys_holds(rate in 100u64..1_000_000, per_key in 100u64..3_000) {
            let mut limits = Preset::Max.limits();
            limits.keys_per_second = Some(rate);
            let mut bench = Bench::new(limits);
            bench.run(Duration::from_secs(3), 20 * MICRO, Duration::from_nanos(per_key), 100 * MICRO);
            let keys: u64 = bench.slices.iter().map(|(_, _, count)| u64::from(*count)).sum();
            let last = bench.slices.last().map_or(0, |(_, _, count)| u64::from(*count));
            prop_assert!((keys - last) as f64 <= rate as f64 * (bench.now.as_secs_f64() + 0.01), "{keys} keys at {rate}/s");
        }

        #[test]
        fn the_cap_on_reclaims_holds(rate in 1_000u64..100_000) {
            let mut limits = Preset::Max.limits();
            limits.reclaims_per_second = Some(rate);
            let mut bench = Bench::new(limits);
            bench.run(Duration::from_secs(3), 20 * MICRO, MICRO, 100 * MICRO);
            let reclaimed: u64 = bench.slices.iter().map(|(_, _, count)| u64::from(*count) / 2).sum();
            let allowed = rate as f64 * (bench.now.as_secs_f64() + 0.01);
            prop_assert!((reclaimed as f64) <= allowed + rate as f64 / 20.0, "{reclaimed} reclaimed at {rate}/s");
        }

        #[test]
        fn it_never_gets_stuck(costs in prop::collection::vec(0u64..3_000_000, 1..50)) {
            let mut pace = Pace::new(Preset::Gentle.limits());
            let mut now = Duration::ZERO;
            for cost in costs {
                let cost = Duration::from_micros(cost);
                pace.record(now, cost, 10, 10, 0);
                now += cost;
                if let Decision::Wait(due) = pace.next(now) {
                    prop_assert!(due <= now + cost.mul_f64(21.0) + MICRO, "waits {:?} for {cost:?}", due - now);
                    now = due;
                }
                prop_assert!(matches!(pace.next(now), Decision::Go(MIN_COUNT..=MAX_COUNT)));
            }
        }
    }
}

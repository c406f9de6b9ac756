//! How many keys the next slice asks for and when it may start. Pure: time comes in, decisions come out.
//!
//! Two promises: a slice is as long as `max_slice` at most (as far as the past predicts the future), and the time of
//! all slices that start within any one second stays below `duty`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// The least that a slice asks for: what SCAN does by default.
const MIN_COUNT: u32 = 10;
/// The most that a slice asks for; more would only fill buffers.
const MAX_COUNT: u32 = 100_000;
/// The first slice asks for little: nothing is known of the server yet.
const FIRST_COUNT: u32 = 16;
/// A slice aims at this part of `max_slice`, so that the usual scatter stays below it.
const AIM: f64 = 0.85;
/// How far the sweep may fall behind its own schedule and catch up: a sleep overshoots by about 100 µs.
const MAX_DEBT: Duration = Duration::from_millis(2);
/// Part of the duty that is planned with; the rest pays for the debt and for the slice that ends a second.
const PLANNED: f64 = 0.99;
/// What the presets let the p90 of a PING rise by.
const GUARD: Duration = Duration::from_millis(1);
/// Slices whose cost is remembered. The median of these decides, so that one hiccup of the machine does not.
const REMEMBERED: usize = 9;

/// What a sweep may take of a primary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of the primary's main thread, 0–1.
    pub duty: f64,
    /// Longest that one slice should keep other clients waiting.
    pub max_slice: Duration,
    /// How far the p90 of a PING may rise above what it was before the sweep; then the sweep backs off. `None`: any.
    pub guard: Option<Duration>,
    /// Keys looked at a second, at most; `None`: as many as `duty` allows.
    pub keys_per_second: Option<u64>,
    /// Keys released a second, at most; `None`: as many as there are.
    pub releases_per_second: Option<u64>,
}

/// A named set of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// 5 % of the main thread in slices of 100 µs, backing off: for a server that is busy already.
    Gentle,
    /// 25 % in slices of 200 µs, backing off.
    #[default]
    Normal,
    /// 50 % in slices of 500 µs, backing off.
    Fast,
    /// Everything in slices of 1 ms, without backing off: for a server that nobody uses.
    Max,
}

impl Preset {
    /// All presets, the gentlest first.
    pub const ALL: [Self; 4] = [Self::Gentle, Self::Normal, Self::Fast, Self::Max];

    /// The name on the command line, in the API and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gentle => "gentle",
            Self::Normal => "normal",
            Self::Fast => "fast",
            Self::Max => "max",
        }
    }

    /// What the preset stands for.
    pub fn limits(self) -> Limits {
        let (duty, micros, guard) = match self {
            Self::Gentle => (0.05, 100, Some(GUARD)),
            Self::Normal => (0.25, 200, Some(GUARD)),
            Self::Fast => (0.5, 500, Some(GUARD)),
            Self::Max => (1.0, 1000, None),
        };
        let max_slice = Duration::from_micros(micros);
        Limits { duty, max_slice, guard, keys_per_second: None, releases_per_second: None }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.as_str() == name)
            .ok_or_else(|| format!("{name:?} is not a pace; use gentle, normal, fast or max"))
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until this time.
    Wait(Duration),
    /// Run a slice with this COUNT.
    Go(u32),
}

/// The controller of one shard. Times are since the sweep began.
#[derive(Debug, Clone)]
pub struct Pace {
    limits: Limits,
    /// What may be used now: the limits' duty, or less while the guard has backed off.
    duty: f64,
    count: u32,
    /// Seconds for each unit of COUNT of the last slices, the oldest overwritten.
    costs: Vec<f64>,
    oldest: usize,
    /// When the budget of time allows the next slice.
    due: Duration,
    /// When the cap on keys allows it.
    keys_due: Duration,
    /// When the cap on releases allows it.
    releases_due: Duration,
}

impl Pace {
    /// A controller for these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            duty: limits.duty,
            count: FIRST_COUNT,
            costs: Vec::with_capacity(REMEMBERED),
            oldest: 0,
            due: Duration::ZERO,
            keys_due: Duration::ZERO,
            releases_due: Duration::ZERO,
        }
    }

    /// Sets the share of the main thread that may be used from now on, 0–1.
    pub fn set_duty(&mut self, duty: f64) {
        self.duty = duty;
    }

    /// Whether to wait or to run a slice at `now`.
    pub fn next(&self, now: Duration) -> Step {
        let due = self.due.max(self.keys_due).max(self.releases_due);
        match now < due {
            true => Step::Wait(due),
            false => Step::Go(self.count),
        }
    }

    /// Takes note of a slice that started at `started`, kept the server for `cost`, was asked for `count`, looked at
    /// `keys` keys and released `released` of them.
    pub fn record(&mut self, started: Duration, cost: Duration, count: u32, keys: u64, released: u64) {
        let from = |due: Duration| due.max(started.saturating_sub(MAX_DEBT));
        if self.duty < 1.0 {
            self.due = from(self.due) + cost.div_f64(self.duty * PLANNED);
        }
        let pause = |number: u64, rate: u64| Duration::from_secs_f64(number as f64 / rate.max(1) as f64);
        if let Some(rate) = self.limits.keys_per_second {
            self.keys_due = from(self.keys_due) + pause(keys, rate);
        }
        if let Some(rate) = self.limits.releases_per_second {
            self.releases_due = from(self.releases_due) + pause(released, rate);
        }
        self.remember(cost.as_secs_f64() / f64::from(count.max(1)));
        self.adapt();
    }

    fn remember(&mut self, cost: f64) {
        if self.costs.len() < REMEMBERED {
            self.costs.push(cost);
        } else {
            self.costs[self.oldest] = cost;
            self.oldest = (self.oldest + 1) % REMEMBERED;
        }
    }

    fn adapt(&mut self) {
        let mut sorted = [0.0; REMEMBERED];
        let sorted = &mut sorted[..self.costs.len()];
        sorted.copy_from_slice(&self.costs);
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2].max(1e-9);
        let aim = self.limits.max_slice.as_secs_f64() * AIM / median;
        // Growth is bounded: a slice that cost nothing measurable says little about one a hundred times its size.
        let most = self.count.saturating_mul(2).min(self.most_for_the_cap());
        self.count = (aim as u32).clamp(MIN_COUNT, most.max(MIN_COUNT));
    }

    /// With a cap a slice takes at most a twentieth of a second's keys, so that the rate is even.
    fn most_for_the_cap(&self) -> u32 {
        let caps = [self.limits.keys_per_second, self.limits.releases_per_second];
        caps.into_iter().flatten().min().map_or(MAX_COUNT, |rate| (rate / 20).min(u64::from(MAX_COUNT)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

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
                    Step::Wait(due) => {
                        assert!(due > self.now, "a wait that does not end");
                        self.now = due + overshoot;
                    }
                    Step::Go(count) => {
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
    fn normal_uses_its_quarter_although_sleeps_overshoot() {
        let mut bench = Bench::new(Preset::Normal.limits());
        bench.run(Duration::from_secs(5), 20 * MICRO, MICRO, 100 * MICRO);
        assert!((0.24..0.25).contains(&bench.share()), "share {}", bench.share());
    }

    #[test]
    fn max_never_waits() {
        let mut bench = Bench::new(Preset::Max.limits());
        bench.run(Duration::from_secs(1), 20 * MICRO, MICRO, 100 * MICRO);
        assert!(bench.share() > 0.999);
    }

    #[test]
    fn a_server_ten_times_slower_gets_shorter_slices_within_a_tenth_of_a_second_and_back() {
        let mut bench = Bench::new(Preset::Normal.limits());
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
    fn a_lower_duty_takes_effect_at_once() {
        let mut bench = Bench::new(Preset::Normal.limits());
        bench.run(Duration::from_secs(1), 20 * MICRO, MICRO, 100 * MICRO);
        bench.pace.set_duty(0.01);
        let before = bench.slices.len();
        bench.run(Duration::from_secs(1), 20 * MICRO, MICRO, 100 * MICRO);
        let used: Duration = bench.slices[before..].iter().map(|(_, cost, _)| *cost).sum();
        assert!(used < Duration::from_millis(11), "{used:?} of a second");
    }

    #[test]
    fn one_hiccup_changes_nothing() {
        let mut bench = Bench::new(Preset::Normal.limits());
        bench.run(Duration::from_secs(1), 10 * MICRO, MICRO, MICRO);
        let before = bench.pace.count;
        bench.pace.record(bench.now, Duration::from_millis(5), before, u64::from(before), 0);
        assert_eq!(bench.pace.count, before);
    }

    #[test]
    fn a_long_slice_is_paid_for_before_the_next() {
        let mut pace = Pace::new(Preset::Normal.limits());
        pace.record(Duration::from_secs(1), Duration::from_millis(500), 10, 10, 0);
        assert!(matches!(pace.next(Duration::from_millis(2990)), Step::Wait(_)));
        assert!(matches!(pace.next(Duration::from_millis(3050)), Step::Go(_)));
    }

    proptest! {
        #[test]
        fn no_second_exceeds_the_duty(
            preset in prop::sample::select(&[Preset::Gentle, Preset::Normal, Preset::Fast][..]),
            fixed in 1u32..30,
            nanos in prop::collection::vec(50u64..2_000, 1..6),
            overshoot in 0u64..20_000,
        ) {
            let limits = preset.limits();
            let mut bench = Bench::new(limits);
            for per_key in nanos {
                bench.run(Duration::from_millis(700), fixed * MICRO, Duration::from_nanos(per_key), Duration::from_micros(overshoot));
            }
            let longest = bench.slices.iter().map(|(_, cost, _)| *cost).max().unwrap_or_default();
            // A slice that broke its own limit, because the server had just become slower, is on top.
            let excess = longest.saturating_sub(limits.max_slice).as_secs_f64();
            prop_assert!(bench.worst_second() <= limits.duty + excess, "{} of {}", bench.worst_second(), limits.duty);
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
        fn the_cap_on_releases_holds(rate in 1_000u64..100_000) {
            let mut limits = Preset::Max.limits();
            limits.releases_per_second = Some(rate);
            let mut bench = Bench::new(limits);
            bench.run(Duration::from_secs(3), 20 * MICRO, MICRO, 100 * MICRO);
            let released: u64 = bench.slices.iter().map(|(_, _, count)| u64::from(*count) / 2).sum();
            let allowed = rate as f64 * (bench.now.as_secs_f64() + 0.01);
            prop_assert!((released as f64) <= allowed + rate as f64 / 20.0, "{released} released at {rate}/s");
        }

        #[test]
        fn it_never_gets_stuck(costs in prop::collection::vec(0u64..3_000_000, 1..50)) {
            let mut pace = Pace::new(Preset::Gentle.limits());
            let mut now = Duration::ZERO;
            for cost in costs {
                let cost = Duration::from_micros(cost);
                pace.record(now, cost, 10, 10, 0);
                now += cost;
                if let Step::Wait(due) = pace.next(now) {
                    prop_assert!(due <= now + cost.mul_f64(21.0) + MICRO, "waits {:?} for {cost:?}", due - now);
                    now = due;
                }
                prop_assert!(matches!(pace.next(now), Step::Go(MIN_COUNT..=MAX_COUNT)));
            }
        }
    }
}

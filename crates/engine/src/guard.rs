//! The latency guard: takes less of the server when its clients suffer, more again when they do not. Pure.

use std::time::Duration;

/// The least share of the main thread that a sweep backs off to, 0–1.
const LEAST_DUTY: f64 = 0.01;
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
}

impl Guard {
    /// A guard that lets the p90 rise by `tolerance` above `baseline`, the p90 before the sweep.
    pub fn new(full: f64, baseline: Duration, tolerance: Duration) -> Self {
        Self { full, duty: full, threshold: baseline + tolerance, backoffs: 0, judged: None }
    }

    /// Judges a p90 at `now`; says whether the duty was halved, after which only later answers should be judged.
    pub fn judge(&mut self, now: Duration, p90: Duration) -> bool {
        let since = self.judged.replace(now).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        if p90 > self.threshold {
            self.duty = (self.duty / 2.0).max(LEAST_DUTY.min(self.full));
            self.backoffs += 1;
            return true;
        }
        self.duty = (self.duty + self.full * RECOVERY * since.as_secs_f64()).min(self.full);
        false
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

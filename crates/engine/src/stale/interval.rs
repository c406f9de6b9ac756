//! How often to scan so that the mean stale share keeps a target.
//!
//! A scan removes every stale key; until the next one they gather at the rate at which keys expire. The mean share is half of
//! what has gathered at the end: x = λT/(2N), so that T = 2xN/λ. The server's own cycle only helps: the higher the share, the
//! more it removes, so that the share bends towards what the cycle holds.

use serde::{Deserialize, Serialize};

/// Longest interval between two scans, seconds.
pub const MAX_INTERVAL: f64 = 24.0 * 3_600.0;
/// Shortest interval, as a multiple of the duration of a scan.
const SHORTEST: f64 = 10.0;
/// Part of the interval that a scan may take: in a longer one keys gather behind the scan before it ends.
const LONGEST_SCAN: f64 = 0.25;
/// How far the mean may be above the target where the shortest interval is longer than the one that holds it, as a multiple.
const TOLERANCE: f64 = 1.1;
/// Weight of a new measurement of the regrowth.
const WEIGHT: f64 = 0.3;

/// The interval that holds a target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanInterval {
    /// Seconds from the start of one scan to the next.
    Every(f64),
    /// The target is not held by scanning: the shortest interval leaves a mean of more than 1.1 times the target, or a scan
    /// takes more than a quarter of the interval. Holds the mean share that scans hold at best.
    CannotHold(f64),
}

impl ScanInterval {
    /// Returns the interval for a target share, where scans every `seconds` would hold it and one takes `scan_seconds`.
    /// `None` as the interval: nothing expires.
    pub fn of(seconds: Option<f64>, scan_seconds: f64, target: f64) -> Self {
        let (seconds, scan_seconds) = (seconds.unwrap_or(f64::INFINITY), scan_seconds.max(0.0));
        let runs_every = seconds.max(shortest_interval(scan_seconds)).min(MAX_INTERVAL);
        let is_too_long = runs_every > TOLERANCE * seconds || scan_seconds > LONGEST_SCAN * seconds;
        match is_too_long {
            true => {
                // The mean grows with the interval that runs, not with the one that would hold the target.
                let stretched = runs_every.max(scan_seconds / LONGEST_SCAN) / seconds;
                Self::CannotHold((target * stretched).min(1.0))
            }
            false => Self::Every(runs_every),
        }
    }
}

/// Returns the shortest interval between scans of which one takes `scan_seconds`.
pub fn shortest_interval(scan_seconds: f64) -> f64 {
    SHORTEST * scan_seconds.max(0.0)
}

/// Returns the seconds between scans that hold a mean share of `target` of `keys` keys, where `rate` keys expire a second;
/// `None` where nothing expires.
pub fn interval_from_rate(target: f64, keys: u64, rate: f64) -> Option<f64> {
    (rate > 0.0).then(|| 2.0 * target * keys as f64 / rate)
}

/// Returns the seconds between scans that hold a mean share of `target` where the share grows by `regrowth` a second after a
/// scan; `None` where it does not grow.
pub fn interval_from_regrowth(target: f64, regrowth: f64) -> Option<f64> {
    (regrowth > 0.0).then(|| 2.0 * target / regrowth)
}

/// Returns the growth of the share a second, from the share that a scan found `seconds` after the one before it.
pub fn regrowth(share: f64, seconds: f64) -> Option<f64> {
    (seconds > 0.0 && share >= 0.0).then(|| share / seconds)
}

/// Returns the even growth of the share, a second, whose scans hold the same mean share of `target` as those of a share that
/// was found to have grown by `measured` a second over `seconds`.
///
/// `initial`: the growth right after a scan, when the cycle removes hardly a key, which is the keys that expire a second divided
/// by all keys; `None`: unknown. Where the share grew less than that it bends, and is taken to approach its limit L as
/// L(1 − e^(−at/L)) with the initial growth a: T = 2x/g with the measured g would leave its mean above the target. The result is
/// 0 where the limit is below the target.
pub fn even_growth(target: f64, initial: Option<f64>, measured: f64, seconds: f64) -> f64 {
    match initial {
        Some(initial) if 0.0 < measured && measured < initial && seconds > 0.0 => {
            let limit = initial * seconds / inverse_mean_decay(measured / initial);
            match target < limit {
                true => 2.0 * target / (limit / initial * inverse_mean_decay(1.0 - target / limit)),
                false => 0.0,
            }
        }
        _ => measured,
    }
}

/// Returns the u for which the mean of e^(−t) from 0 to u, (1 − e^(−u))/u, is `mean` (between 0 and 1).
fn inverse_mean_decay(mean: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0 / mean.max(1e-12));
    // The mean falls with u, and is below 1/u. 60 halvings leave less than the precision of a float.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match -(-middle).exp_m1() > mean * middle {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// Returns the running average of the regrowth after another measurement.
pub fn smoothed(average: Option<f64>, measured: f64) -> f64 {
    average.map_or(measured, |average| average + WEIGHT * (measured - average))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_interval_is_clamped_to_ten_scans_and_a_day() {
        for (seconds, scan, expected) in [
            (Some(3_600.0), 60.0, ScanInterval::Every(3_600.0)),
            (Some(950.0), 100.0, ScanInterval::Every(1_000.0)),
            (Some(1e9), 60.0, ScanInterval::Every(MAX_INTERVAL)),
            (None, 60.0, ScanInterval::Every(MAX_INTERVAL)),
        ] {
            assert_eq!(ScanInterval::of(seconds, scan, 0.05), expected, "every {seconds:?}, a scan takes {scan}");
        }
    }

    #[test]
    fn a_target_is_not_held_where_the_shortest_interval_leaves_more_than_a_tenth_above_it() {
        for (seconds, scan, best) in [
            // Scans run every 1,000 seconds.
            (900.0, 100.0, 0.05 * 1_000.0 / 900.0),
            (500.0, 100.0, 0.1),
            (400.0, 100.0, 0.125),
            (200.0, 100.0, 0.25),
            (1.0, 100.0, 1.0),
            // A day is shorter than ten scans, and the scan longer than a quarter of the interval.
            (100_000.0, 30_000.0, 0.06),
        ] {
            let ScanInterval::CannotHold(share) = ScanInterval::of(Some(seconds), scan, 0.05) else {
                panic!("every {seconds}, a scan takes {scan}: held")
            };
            assert!((share - best).abs() < 1e-9, "every {seconds}, a scan takes {scan}: {share}");
        }
    }

    #[test]
    fn a_regrowth_is_averaged_with_a_weight_of_three_tenths() {
        assert_eq!(smoothed(None, 4.0), 4.0);
        assert!((smoothed(Some(2.0), 4.0) - 2.6).abs() < 1e-12);
        assert_eq!((regrowth(0.1, 0.0), regrowth(0.1, 100.0)), (None, Some(0.001)));
        assert_eq!((interval_from_regrowth(0.05, 0.0), interval_from_rate(0.05, 10, 0.0)), (None, None));
    }

    #[test]
    fn a_share_that_bends_allows_more_time_and_one_that_does_not_get_there_all_of_it() {
        let even = |initial, measured| even_growth(0.05, initial, measured, 100.0);
        for (initial, measured, expected) in [
            (None, 0.0005, 0.0005),
            (Some(0.001), 0.001, 0.001),
            // Keys expire faster than they were seen to.
            (Some(0.001), 0.002, 0.002),
            (Some(0.001), 0.0, 0.0),
            // After 100 seconds 4 % of the keys were stale: the cycle holds less than 5 %.
            (Some(0.01), 0.0004, 0.0),
        ] {
            assert_eq!(even(initial, measured), expected, "{initial:?}, {measured}");
        }
        let bent = even(Some(0.002), 0.0009);
        assert!((0.0009..0.002).contains(&bent), "the mean of 9 % that were gathered fast is above 4.5 %: {bent}");
    }

    /// Returns the share at the end of an interval and the mean over it, where the share bends towards a limit.
    fn bent(initial: f64, limit: f64, seconds: f64) -> (f64, f64) {
        let end = -limit * (-initial * seconds / limit).exp_m1();
        (end, limit - limit * end / (initial * seconds))
    }

    proptest! {
        /// The mean is half of what gathers in the interval that runs.
        #[test]
        fn an_interval_that_is_said_to_hold_leaves_a_mean_near_the_target(
            target in 0.001f64..0.5, seconds in 1.0f64..1e6, part in 0.0f64..0.5,
        ) {
            match ScanInterval::of(Some(seconds), seconds * part, target) {
                ScanInterval::Every(runs) => prop_assert!(target * runs / seconds <= 1.1 * target + 1e-12),
                ScanInterval::CannotHold(best) => prop_assert!(best > target * 0.99, "{best} is below {target}"),
            }
        }

        /// What is wrong with the rate at which keys expire matters little.
        #[test]
        fn intervals_settle_where_the_mean_share_is_the_target(
            target in 0.005f64..0.3, initial in 1e-6f64..0.01, times in 1.05f64..50.0, wrong in 0.8f64..1.25,
        ) {
            for (wrong, tolerance) in [(1.0, 0.01), (wrong, 0.1)] {
                let limit = times * target;
                let (mut growth, mut share) = (initial * wrong, 0.0);
                let mut average = None;
                for _ in 0..60 {
                    let seconds = interval_from_regrowth(target, growth).unwrap_or(f64::INFINITY).min(1e3 / initial);
                    let (end, mean) = bent(initial, limit, seconds);
                    let measured = regrowth(end, seconds).expect("a time");
                    growth = smoothed(average, even_growth(target, Some(initial * wrong), measured, seconds));
                    (average, share) = (Some(growth), mean);
                }
                prop_assert!((share / target - 1.0).abs() < tolerance, "{share} is not {target}, limit {limit}");
            }
        }

        /// Keys gather from nothing at an even rate, so that the mean is half of what a scan finds.
        #[test]
        fn the_mean_share_between_scans_is_the_target(
            target in 0.001f64..0.5, keys in 1_000u64..1_000_000_000, rate in 0.01f64..1e6,
        ) {
            let seconds = interval_from_rate(target, keys, rate).expect("keys expire");
            prop_assert!((rate * seconds / 2.0 / keys as f64 / target - 1.0).abs() < 1e-9);
            let measured = regrowth(rate * seconds / keys as f64, seconds).expect("a regrowth");
            let again = interval_from_regrowth(target, measured).expect("an interval");
            prop_assert!((again / seconds - 1.0).abs() < 1e-9, "both ways agree");
        }
    }
}

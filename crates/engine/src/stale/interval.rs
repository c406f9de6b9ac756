//! How often to scan so that the mean stale share keeps a target.
//!
//! A scan removes every stale key; until the next one they gather at the rate at which keys expire. The mean share is half of
//! what has gathered at the end: x = λT/(2N), so that T = 2xN/λ. The server's own cycle only helps.

use serde::{Deserialize, Serialize};

/// Longest interval between two scans, seconds.
pub const MAX_INTERVAL: f64 = 24.0 * 3_600.0;
/// Shortest interval, as a multiple of the duration of a scan.
const SHORTEST: f64 = 10.0;
/// Part of the interval that a scan may take: in a longer one keys gather behind the scan before it ends.
const LONGEST_SCAN: f64 = 0.25;
/// Weight of a new measurement of the regrowth.
const WEIGHT: f64 = 0.3;

/// The interval that holds a target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanInterval {
    /// Seconds from the start of one scan to the next.
    Every(f64),
    /// The target is not held by scanning: a scan takes more than a quarter of the interval. Holds the mean share that scans
    /// hold at best.
    CannotHold(f64),
}

impl ScanInterval {
    /// Returns the interval for a target share, where scans every `seconds` would hold it and one takes `scan_seconds`.
    /// `None` as the interval: nothing expires.
    pub fn of(seconds: Option<f64>, scan_seconds: f64, target: f64) -> Self {
        let (seconds, scan_seconds) = (seconds.unwrap_or(f64::INFINITY), scan_seconds.max(0.0));
        match scan_seconds > seconds * LONGEST_SCAN {
            true => Self::CannotHold((target * scan_seconds / LONGEST_SCAN / seconds).min(1.0)),
            false => Self::Every(seconds.max(SHORTEST * scan_seconds).min(MAX_INTERVAL)),
        }
    }
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
            (Some(500.0), 100.0, ScanInterval::Every(1_000.0)),
            (Some(400.0), 100.0, ScanInterval::Every(1_000.0)),
            (Some(1e9), 60.0, ScanInterval::Every(MAX_INTERVAL)),
            (None, 60.0, ScanInterval::Every(MAX_INTERVAL)),
            (Some(200.0), 100.0, ScanInterval::CannotHold(0.1)),
            (Some(1.0), 100.0, ScanInterval::CannotHold(1.0)),
        ] {
            assert_eq!(ScanInterval::of(seconds, scan, 0.05), expected, "every {seconds:?}, a scan takes {scan}");
        }
    }

    #[test]
    fn a_regrowth_is_averaged_with_a_weight_of_three_tenths() {
        assert_eq!(smoothed(None, 4.0), 4.0);
        assert!((smoothed(Some(2.0), 4.0) - 2.6).abs() < 1e-12);
        assert_eq!((regrowth(0.1, 0.0), regrowth(0.1, 100.0)), (None, Some(0.001)));
        assert_eq!((interval_from_regrowth(0.05, 0.0), interval_from_rate(0.05, 10, 0.0)), (None, None));
    }

    proptest! {
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

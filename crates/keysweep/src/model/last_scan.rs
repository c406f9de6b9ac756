//! What the last successful scan of an instance left. An estimate from before it is about keys that are reclaimed by now.

use std::time::Duration;

use jiff::Timestamp;
use keysweep_engine::{Method, Remaining};

use super::{EstimateTotal, Mark, MarkKind, Status};

/// Shortest and longest time for which the stale keys that a scan left say something about an instance. An estimate follows
/// after five minutes where the instance allows it.
const SHORTEST: f64 = 600.0;
const LONGEST: f64 = 3_600.0;
/// Share by which stale keys may have grown since the scan, beyond the shortest time.
const GROWTH: f64 = 0.02;
/// Age from which a measured share says nothing about an instance any more.
const MAX_AGE: Duration = Duration::from_secs(24 * 3_600);

/// The last successful scan of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastScan {
    /// When it finished.
    pub finished_at: Timestamp,
    /// Stale keys that it left; `None`: its report does not say.
    pub remaining: Option<Remaining>,
}

impl LastScan {
    /// Returns the scan of a mark; `None`: it is the mark of something else, or of a scan that failed.
    pub fn of(mark: &Mark) -> Option<Self> {
        let is_success = mark.kind == MarkKind::Scan && mark.detail["status"] == Status::Success.as_str();
        let remaining = || serde_json::from_value(mark.detail["remaining"].clone()).ok();
        is_success.then(|| Self { finished_at: mark.happened_at, remaining: remaining() })
    }

    /// Whether it has reclaimed keys since an estimate was made.
    pub fn is_after(&self, taken_at: Timestamp) -> bool {
        self.finished_at >= taken_at
    }

    /// Returns what it left, unless so many keys may have expired by `now` that this says nothing.
    fn remaining_at(&self, now: Timestamp) -> Option<Remaining> {
        let remaining = self.remaining?;
        let growth = remaining.expired_per_second.map(|rate| rate / remaining.keys.max(1) as f64);
        let stands = growth.map_or(LONGEST, |growth| GROWTH / growth).clamp(SHORTEST, LONGEST);
        (now.duration_since(self.finished_at).as_secs_f64() <= stands).then_some(remaining)
    }
}

/// The stale share of an instance, by the later of its latest estimate and its last scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatestShare {
    /// Stale keys as a share of all keys, 0–1.
    pub share: f64,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub high: Option<f64>,
    /// Bytes of the stale keys; `None`: unknown.
    pub bytes: Option<u64>,
    /// When it was found.
    pub at: Timestamp,
    /// Whether an estimate measured it. Otherwise it is about what a scan left.
    pub is_measured: bool,
}

impl LatestShare {
    /// Returns the share that the latest estimate measured; if a scan has reclaimed its keys since, or none was measured, what the
    /// last scan left. `None`: neither says anything about `now`.
    pub fn new(estimate: Option<&EstimateTotal>, scan: Option<&LastScan>, now: Timestamp) -> Option<Self> {
        let current = estimate.filter(|estimate| scan.is_none_or(|scan| !scan.is_after(estimate.taken_at)));
        current.and_then(Self::measured).or_else(|| {
            let scan = scan?;
            let share = scan.remaining_at(now)?.share;
            Some(Self { share, low: None, high: None, bytes: None, at: scan.finished_at, is_measured: false })
        })
    }

    fn measured(EstimateTotal { taken_at, total }: &EstimateTotal) -> Option<Self> {
        // The servers' own average is a hint, which must not pass for a measurement.
        total.method.filter(|method| *method != Method::Info)?;
        Some(Self {
            share: total.share?,
            low: total.share_low,
            high: total.share_high,
            bytes: total.bytes,
            at: *taken_at,
            is_measured: true,
        })
    }

    /// Whether it was found within the last day.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        is_recent(self.at, now)
    }
}

/// Whether what was found at a time is not older than a day.
pub fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at).as_secs_f64() <= MAX_AGE.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use keysweep_engine::Finding;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn scan(second: i64, expired_per_second: Option<f64>) -> LastScan {
        let remaining =
            Remaining { keys: 1_000_000, stale_keys: 2_000, share: 0.002, expired_per_second, in_doubt: false };
        LastScan { finished_at: at(second), remaining: Some(remaining) }
    }

    fn estimate(second: i64, method: Method) -> EstimateTotal {
        let total = Finding { share: Some(0.25), bytes: Some(9_000), method: Some(method), ..Finding::default() };
        EstimateTotal { taken_at: at(second), total }
    }

    #[test]
    fn an_estimate_counts_until_a_scan_and_what_the_scan_left_after_it() {
        let share = |estimate: Option<EstimateTotal>, scan: Option<LastScan>| {
            let latest = LatestShare::new(estimate.as_ref(), scan.as_ref(), at(20))?;
            Some((latest.share, latest.bytes, latest.at, latest.is_measured))
        };
        let (measured, left) = ((0.25, Some(9_000), at(10), true), (0.002, None, at(15), false));
        let sampled = || Some(estimate(10, Method::Sample));
        assert_eq!(share(sampled(), None), Some(measured));
        assert_eq!(share(sampled(), Some(scan(5, None))), Some(measured));
        assert_eq!(share(sampled(), Some(scan(15, None))), Some(left));
        assert_eq!(share(None, Some(scan(15, None))), Some(left));
        assert_eq!(share(Some(estimate(18, Method::Info)), Some(scan(15, None))), Some(left), "INFO only suggests");
        assert_eq!(share(Some(estimate(10, Method::Info)), None), None);
        let silent = LastScan { remaining: None, ..scan(15, None) };
        assert_eq!(share(sampled(), Some(silent)), None, "what was stale is reclaimed, and what is left is unknown");
    }

    #[test]
    fn what_a_scan_left_stands_until_many_keys_have_expired() {
        for (rate, seconds, stands) in [
            (None, 3_600, true),
            (None, 3_601, false),
            (Some(0.0), 3_600, true),
            // 2 % of the keys expire in about 2,000 seconds.
            (Some(10.0), 1_999, true),
            (Some(10.0), 2_001, false),
            (Some(10_000.0), 600, true),
            (Some(10_000.0), 601, false),
        ] {
            let found = LatestShare::new(None, Some(&scan(0, rate)), at(seconds));
            assert_eq!(found.is_some(), stands, "{rate:?}, after {seconds} s");
        }
    }

    #[test]
    fn a_share_is_recent_for_a_day() {
        let found = LatestShare::new(Some(&estimate(0, Method::Replica)), None, at(86_500)).expect("measured");
        assert_eq!((found.is_recent(at(86_400)), found.is_recent(at(86_401))), (true, false));
    }

    #[test]
    fn only_a_successful_scan_has_left_something() {
        let mark = |kind, detail| Mark { happened_at: at(7), kind, detail };
        let remaining = json!({ "keys": 10, "stale_keys": 1, "share": 0.1, "expired_per_second": null });
        let found = LastScan::of(&mark(MarkKind::Scan, json!({ "status": "success", "remaining": remaining })));
        assert_eq!(found.and_then(|scan| scan.remaining).map(|remaining| remaining.stale_keys), Some(1));
        let silent = LastScan::of(&mark(MarkKind::Scan, json!({ "status": "success" })));
        assert_eq!(silent, Some(LastScan { finished_at: at(7), remaining: None }));
        for (kind, status) in [(MarkKind::Scan, "failed"), (MarkKind::Config, "success")] {
            assert_eq!(LastScan::of(&mark(kind, json!({ "status": status }))), None, "{status}");
        }
    }
}

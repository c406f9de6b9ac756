//! The adaptive auto-scan: scans as often as keeps the mean stale share at a target, by what earlier scans have measured.
//!
//! The arithmetic is the engine's. Stored are what the scans measured and the target; the interval is calculated whenever it is
//! needed.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use keysweep_engine::stale::{
    MAX_INTERVAL, ScanInterval, even_growth, interval_from_regrowth, regrowth, shortest_interval, smoothed,
};
use serde::{Deserialize, Serialize};

use super::{AutoScan, TaskDetail};

/// Mean share of stale keys that an adaptive auto-scan keeps, 0.1 % to 50 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetShare {
    millionths: u32,
}

impl TargetShare {
    /// The range in words, for messages.
    pub const RANGE: &'static str = "from 0.001 to 0.5";

    /// Returns the target of a share, 0–1; `None`: it is out of range.
    pub fn new(share: f64) -> Option<Self> {
        (0.001..=0.5).contains(&share).then(|| Self { millionths: (share * 1e6).round() as u32 })
    }

    /// Returns the target of a stored number.
    pub fn from_millionths(millionths: u32) -> Option<Self> {
        Self::new(f64::from(millionths) / 1e6)
    }

    /// Returns the number that is stored.
    pub fn millionths(self) -> u32 {
        self.millionths
    }

    /// Returns the share, 0–1.
    pub fn share(self) -> f64 {
        f64::from(self.millionths) / 1e6
    }
}

impl fmt::Display for TargetShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.millionths) / 1e4)
    }
}

/// How stale keys gather in an instance, as its successful scans have measured it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gathering {
    /// Id of the last successful scan's task.
    pub task_id: String,
    /// When that task started.
    pub started_at: Timestamp,
    /// When it finished.
    pub finished_at: Timestamp,
    /// Running time of the task, seconds.
    pub scan_seconds: f64,
    /// Keys that it left.
    pub keys: u64,
    /// Stale share that it found, 0–1.
    pub share: f64,
    /// Keys that expire a second, a running average; `None`: no scan has measured it.
    pub expiry_rate: Option<f64>,
    /// Growth of the share between scans, a second, as a running average for `target`; `None`: there were not two scans yet.
    pub growth: Option<f64>,
    /// The target for which `growth` is calculated.
    pub target: TargetShare,
}

impl Gathering {
    /// Adds what a successful scan has measured; `None`: the task never started or has not finished. A report that cannot be
    /// read leaves out the keys that expire a second.
    pub fn after(before: Option<&Self>, scan: &TaskDetail, target: TargetShare) -> Option<Self> {
        let task = &scan.task;
        let (started_at, finished_at) = (task.started_at?, task.finished_at?);
        let totals = scan.read_report().ok().flatten().map(|report| report.totals);
        let repeated = totals.map_or(0, |totals| totals.keys_repeated);
        let visited = task.scanned.saturating_sub(repeated).max(task.reclaimed).max(1);
        let remaining = totals.and_then(|totals| totals.remaining);
        let keys = remaining.map_or(visited - task.reclaimed, |remaining| remaining.keys);
        let share = task.reclaimed as f64 / visited as f64;
        let rate = remaining.and_then(|remaining| remaining.expired_per_second);
        let rates = before.and_then(|before| before.expiry_rate);
        let expiry_rate = rate.map(|rate| smoothed(rates, rate)).or(rates);
        let initial = expiry_rate.map(|rate| rate / keys.max(1) as f64);
        // A count that is a lower bound would measure too slow a growth.
        let measured = before.filter(|_| task.exact).and_then(|before| {
            let seconds = started_at.duration_since(before.started_at).as_secs_f64();
            let measured = even_growth(target.share(), initial, regrowth(share, seconds)?, seconds);
            Some(smoothed(before.growth.filter(|_| before.target == target), measured))
        });
        Some(Self {
            task_id: task.id.clone(),
            started_at,
            finished_at,
            scan_seconds: task.used.as_secs_f64(),
            keys,
            share,
            expiry_rate,
            growth: measured.or_else(|| before.and_then(|before| before.growth)),
            target,
        })
    }

    /// Returns the mean share between the last two scans, about: half of what the later one found, since the share grows from
    /// nothing. `None`: there were not two scans yet that counted exactly.
    pub fn mean_share(&self) -> Option<f64> {
        self.growth.map(|_| self.share / 2.0)
    }

    /// Returns the growth of the share, a second: as measured for this target, else as fast as keys expire; `None`: unknown.
    fn growth(&self, target: TargetShare) -> Option<f64> {
        let initial = self.expiry_rate.map(|rate| rate / self.keys.max(1) as f64);
        self.growth.filter(|_| self.target == target).or(initial).or(self.growth)
    }
}

/// Whether an adaptive auto-scan keeps its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// No scan has measured yet how fast stale keys gather.
    Measuring,
    /// The interval keeps the mean at the target, a tenth above it at most.
    Holding,
    /// The target cannot be held by scanning: even the shortest interval, ten times the duration of a scan, leaves a mean of more
    /// than a tenth above it.
    CannotHold,
}

impl Hold {
    /// Returns the name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Measuring => "measuring",
            Self::Holding => "holding",
            Self::CannotHold => "cannot_hold",
        }
    }
}

/// The interval of an adaptive auto-scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// The mean share to keep.
    pub target: TargetShare,
    /// Whether it is kept.
    pub hold: Hold,
    /// From the start of one scan to the next.
    pub interval: Duration,
    /// Mean share that this interval holds, 0–1; `None`: unknown.
    pub expected_share: Option<f64>,
}

impl AutoScan {
    /// Returns the interval of an adaptive auto-scan; `None`: the interval is fixed.
    ///
    /// It is 2x/g for a target x and a growth of the share of g a second, at least ten times the duration of a scan and at most
    /// a day. Until a growth is known the stored interval applies, within the same limits.
    pub fn adaptive(&self) -> Option<Adaptive> {
        let target = self.target?;
        let scan_seconds = self.gathering.as_ref().map_or(0.0, |gathering| gathering.scan_seconds);
        let within = |seconds: f64| seconds.max(shortest_interval(scan_seconds)).min(MAX_INTERVAL);
        let growth = self.gathering.as_ref().and_then(|gathering| gathering.growth(target));
        let (hold, seconds) = match growth {
            None => (Hold::Measuring, within(self.interval.as_secs_f64())),
            Some(growth) => {
                let holds = interval_from_regrowth(target.share(), growth);
                match ScanInterval::of(holds, scan_seconds, target.share()) {
                    ScanInterval::Every(seconds) => (Hold::Holding, seconds),
                    ScanInterval::CannotHold(_) => (Hold::CannotHold, within(0.0)),
                }
            }
        };
        Some(Adaptive {
            target,
            hold,
            interval: Duration::from_secs_f64(seconds),
            expected_share: growth.map(|growth| (growth * seconds / 2.0).min(1.0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{Outcome, Remaining, Report, Totals};

    use super::*;
    use crate::model::{ScanType, Status, Task};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).expect("a time")
    }

    fn target(percent: f64) -> TargetShare {
        TargetShare::new(percent / 100.0).expect("in range")
    }

    /// Returns a scan of ten seconds that began at `start` and found `reclaimed` stale keys beside a million.
    fn scan(start: i64, reclaimed: u64, expired_per_second: Option<f64>) -> TaskDetail {
        let remaining = Remaining { keys: 1_000_000, expired_per_second, ..Remaining::default() };
        let report = Report {
            target: String::new(),
            outcome: Outcome::Done,
            reason: None,
            message: None,
            pace: "normal".into(),
            totals: Totals { remaining: Some(remaining), ..Totals::default() },
            warnings: Vec::new(),
            shards: Vec::new(),
        };
        let task = Task {
            seq: start,
            id: format!("scan-{start}"),
            project_id: "p".into(),
            instance_id: "i".into(),
            status: Status::Success,
            reason: None,
            reason_detail: None,
            scan_type: ScanType::Auto,
            triggered_by: None,
            created_at: at(start),
            started_at: Some(at(start)),
            finished_at: Some(at(start + 10)),
            due_at: None,
            cancel_requested: false,
            timeout: Duration::from_secs(60),
            used: Duration::from_secs(10),
            attempts: 0,
            keys_per_second: None,
            reclaimed,
            scanned: 1_000_000 + reclaimed,
            exact: true,
        };
        let report = Some(serde_json::to_string(&report).expect("JSON"));
        TaskDetail { task, progress: None, checkpoint: None, report, documents_error: None }
    }

    fn after(scans: &[TaskDetail], percent: f64) -> AutoScan {
        let add =
            |before: Option<Gathering>, scan: &TaskDetail| Gathering::after(before.as_ref(), scan, target(percent));
        let gathering = scans.iter().fold(None, add);
        AutoScan { target: Some(target(percent)), gathering, ..AutoScan::unset("i") }
    }

    #[test]
    fn the_interval_follows_what_scans_have_measured() {
        let day = 86_400.0;
        // λ = 100/s of 1 M keys: 5 % is held by T = 2·0.05·1 M/100 = 1,000 s.
        let first = || scan(0, 300_000, Some(100.0));
        let cases: [(&str, &[TaskDetail], f64, Hold, f64); 10] = [
            ("no scan yet", &[], 5.0, Hold::Measuring, day),
            ("a scan without a rate", &[scan(0, 300_000, None)], 5.0, Hold::Measuring, day),
            ("T = 2xN/λ after the first scan", &[first()], 5.0, Hold::Holding, 1_000.0),
            // 1 M · 0.1/0.9 keys gathered in 1,000 s: 10 % of all that were scanned.
            (
                "as many keys gather as expire",
                &[first(), scan(1_000, 111_111, Some(100.0))],
                5.0,
                Hold::Holding,
                1_000.0,
            ),
            ("T = 2x/g without a rate", &[scan(0, 1, None), scan(1_000, 52_632, None)], 5.0, Hold::Holding, 2_000.0),
            ("nothing gathers", &[first(), scan(1_000, 0, Some(100.0))], 5.0, Hold::Holding, day),
            ("the server holds less itself", &[first(), scan(1_000, 30_928, Some(100.0))], 5.0, Hold::Holding, day),
            ("at least ten scans long", &[scan(0, 1, Some(1_050.0))], 5.0, Hold::Holding, 100.0),
            // A scan takes a fifth of T = 50 s: every 100 s leaves a mean of 10 %.
            ("ten scans are twice as long as T", &[scan(0, 1, Some(2_000.0))], 5.0, Hold::CannotHold, 100.0),
            ("a scan takes more than T/4", &[scan(0, 1, Some(2_600.0))], 5.0, Hold::CannotHold, 100.0),
        ];
        for (name, scans, percent, hold, seconds) in cases {
            let found = after(scans, percent).adaptive().expect("adaptive");
            assert_eq!(found.hold, hold, "{name}: {found:?}");
            assert!((found.interval.as_secs_f64() / seconds - 1.0).abs() < 0.01, "{name}: {found:?} is not {seconds}");
        }
        assert_eq!(AutoScan { target: None, ..after(&[first()], 5.0) }.adaptive(), None, "the interval is fixed");
    }

    #[test]
    fn a_measurement_weighs_three_tenths() {
        let even = |start, share: f64| scan(start, (share / (1.0 - share) * 1e6) as u64, None);
        let scans = [even(0, 0.3), even(1_000, 0.02), even(2_000, 0.04)];
        let growth = after(&scans, 5.0).gathering.expect("measured").growth.expect("a growth");
        assert!((growth - (0.7 * 2e-5 + 0.3 * 4e-5)).abs() < 1e-8, "{growth}");
    }

    #[test]
    fn the_mean_share_is_said_where_the_limits_keep_the_interval_from_the_target() {
        let expected = |config: AutoScan| config.adaptive().expect("adaptive").expected_share.expect("known");
        assert!((expected(after(&[scan(0, 1, Some(100.0))], 5.0)) - 0.05).abs() < 1e-6);
        assert!((expected(after(&[scan(0, 1, Some(10_000.0))], 5.0)) - 0.5).abs() < 1e-6);
        assert!((expected(after(&[scan(0, 1, Some(2_000.0))], 5.0)) - 0.1).abs() < 1e-6, "every 100 s, not every 50 s");
        assert!((expected(after(&[scan(0, 1, Some(0.1))], 5.0)) - 0.00432).abs() < 1e-6);
    }

    #[test]
    fn another_target_starts_from_the_rate_until_it_is_measured() {
        let scans = [scan(0, 300_000, Some(100.0)), scan(1_000, 60_000, Some(100.0))];
        let moved = AutoScan { target: Some(target(2.0)), ..after(&scans, 5.0) };
        assert!((moved.adaptive().expect("adaptive").interval.as_secs_f64() - 400.0).abs() < 1.0);
    }

    #[test]
    fn the_mean_between_two_scans_is_half_of_what_the_second_one_found() {
        let mean = |scans: &[TaskDetail]| after(scans, 5.0).gathering.expect("scanned").mean_share();
        assert_eq!(mean(&[scan(0, 300_000, None)]), None, "what the first one found had gathered for an unknown time");
        let second = mean(&[scan(0, 300_000, None), scan(1_000, 250_000, None)]).expect("two scans");
        assert!((second - 0.1).abs() < 1e-9, "{second}");
    }

    #[test]
    fn a_lower_bound_is_no_measurement() {
        let mut second = scan(1_000, 10, None);
        second.task.exact = false;
        let found = after(&[scan(0, 300_000, None), second], 5.0).gathering.expect("scanned");
        assert_eq!((found.growth, found.task_id.as_str()), (None, "scan-1000"));
    }

    #[test]
    fn targets_are_percentages_within_their_range() {
        assert_eq!((target(5.0).to_string(), target(2.5).to_string()), ("5%".into(), "2.5%".into()));
        assert_eq!(TargetShare::from_millionths(50_000), Some(target(5.0)));
        for share in [0.0, 0.0009, 0.51, -1.0, f64::NAN] {
            assert_eq!(TargetShare::new(share), None, "{share}");
        }
    }
}

//! When one server was written to, until when nothing may be written, which effort broke a limit, and what the cycle costs: the next
//! holder of the server continues with these.

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::ceiling::{Ceiling, RecordedCeiling};
use crate::stale::CycleCost;

/// Seconds for which a write counts.
pub const DAY: f64 = 86_400.0;

/// Returns how many of these times are less than a day ago.
pub fn within_a_day(times: &VecDeque<f64>, now: f64) -> usize {
    times.iter().filter(|at| now - **at < DAY).count()
}

/// Times in seconds of a controller's clock, which may be before its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// The writes of the last day, the last one last.
    pub writes: VecDeque<f64>,
    /// When the share has followed the last write.
    pub settle_until: f64,
    /// Until when the server keeps its own settings, since a limit was broken or the server was busy.
    pub back_off_until: f64,
    /// Highest effort that keeps the limits.
    pub ceiling: Option<Ceiling>,
    /// What the cycle costs on this server.
    pub cost: Option<CycleCost>,
}

/// The same times in a record. Remaining times are lengths, so that a clock that was set moves them by no more than their length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedTimes {
    /// When settings were written within the last day, seconds since the Unix epoch, the last one last.
    pub writes: Vec<u64>,
    /// When this was recorded, seconds since the Unix epoch.
    pub recorded_at: u64,
    /// Seconds from then on in which the share follows the last write.
    pub settling_seconds: u64,
    /// Seconds from then on in which the server keeps its own settings.
    pub backing_off_seconds: u64,
    /// Highest effort that keeps the limits, where a higher one has broken them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<RecordedCeiling>,
    /// What the cycle costs on this server, as far as it was measured with the server's own settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<CycleCost>,
}

/// The clock of controllers, which never goes back, beside that of records.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    begun: Instant,
}

impl Clock {
    /// Returns a clock that begins now.
    pub fn new() -> Self {
        Self { begun: Instant::now() }
    }

    /// Returns when the clock began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Returns the seconds since the clock began.
    pub fn now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Returns times for a record.
    pub fn record(&self, times: &Times) -> RecordedTimes {
        RecordedTimes::of(times, self.now(), unix_seconds())
    }

    /// Returns the times of a record.
    pub fn recall(&self, recorded: &RecordedTimes) -> Times {
        recorded.times(self.now(), unix_seconds())
    }
}

impl RecordedTimes {
    /// Whether nothing was recorded, as in old records.
    pub fn is_unknown(&self) -> bool {
        self.recorded_at == 0
    }

    /// Returns the same times, recorded now.
    pub fn renewed(&self) -> Self {
        let clock = Clock::new();
        clock.record(&clock.recall(self))
    }

    /// Converts times; `now` and `unix` are the same moment on both clocks.
    fn of(times: &Times, now: f64, unix: u64) -> Self {
        let left = |until: f64| (until - now).clamp(0.0, DAY).ceil() as u64;
        let writes = times.writes.iter().map(|at| now - at).filter(|age| *age < DAY);
        Self {
            writes: writes.map(|age| unix.saturating_sub(age.max(0.0) as u64)).collect(),
            recorded_at: unix,
            settling_seconds: left(times.settle_until),
            backing_off_seconds: left(times.back_off_until),
            ceiling: times.ceiling.as_ref().map(|ceiling| ceiling.recorded(now)),
            cost: times.cost,
        }
    }

    fn times(&self, now: f64, unix: u64) -> Times {
        // What lies in the future by this clock was written just now.
        let age = |at: u64| unix.saturating_sub(at) as f64;
        let until = |seconds: u64| now + (seconds as f64).min(DAY) - age(self.recorded_at);
        Times {
            writes: self.writes.iter().map(|at| age(*at)).filter(|age| *age < DAY).map(|age| now - age).collect(),
            settle_until: until(self.settling_seconds),
            back_off_until: until(self.backing_off_seconds),
            ceiling: self.ceiling.as_ref().map(|ceiling| ceiling.ceiling(until(0))),
            cost: self.cost,
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_in_another_process_with_another_clock() {
        let times = Times { writes: [-90_000.0, 40.0, 90.0].into(), settle_until: 150.5, ..Times::default() };
        let recorded = RecordedTimes::of(&times, 100.0, 1_000_000);
        assert_eq!((recorded.writes.as_slice(), recorded.settling_seconds), (&[999_940, 999_990][..], 51));
        let later = recorded.times(5.0, 1_000_020);
        assert_eq!(
            later,
            Times { writes: [-75.0, -25.0].into(), settle_until: 36.0, back_off_until: -15.0, ..Times::default() }
        );
        assert!(recorded.times(5.0, 1_000_000 + 86_400).writes.is_empty(), "they count for a day");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_wait_longer_than_it_would_have() {
        let times = Times { writes: [90.0].into(), settle_until: 160.0, back_off_until: 700.0, ..Times::default() };
        let later = RecordedTimes::of(&times, 100.0, 1_000_000).times(5.0, 0);
        assert_eq!(
            later,
            Times { writes: [5.0].into(), settle_until: 65.0, back_off_until: 605.0, ..Times::default() }
        );
    }
}

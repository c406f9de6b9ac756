//! What successive observations say together: how many keys expire a second, whether that is steady, what the cycle takes, and
//! whether it reaches its time limit.

use std::collections::VecDeque;

use super::signals::Signals;
use crate::stale::{Reading, expiry_rate};

/// Rates that are kept. A decision needs two that agree, so that one spike changes nothing.
const RATES: usize = 2;
/// Intervals without a valid reading after which the rate is unknown.
const MAX_GAP: u32 = 5;
/// Change of the rate, as a factor, from which on a new steady state begins.
pub const SHIFT: f64 = 1.3;
/// Factor between two successive rates from which on they are not steady, and how often in a row.
const UNSTEADY: f64 = 2.0;
const MAX_UNSTEADY: u32 = 4;
/// Part of the cycles that reach their time limit from which on the counter counts as rising.
const CAPPED_PART: f64 = 0.02;

/// Successive observations of one server process.
#[derive(Debug, Clone, Default)]
pub struct History {
    before: Option<Before>,
    was_scanning: bool,
    /// Whether a scan was to begin at the observation before.
    is_awaited: bool,
    rates: VecDeque<f64>,
    gap: u32,
    reference: Option<f64>,
    unsteady: u32,
    /// When the rate last changed to another level.
    pub shifted_at: Option<f64>,
    /// Seconds since the observation before.
    pub seconds: f64,
    /// Share of the main thread that the cycle took since the observation before.
    pub load: Option<f64>,
    /// Successive intervals in which the cycle reached its time limit.
    pub capped: u32,
    /// Whether fields of hashes expire, which share the budget of the cycle: no law.
    pub has_field_ttls: bool,
    /// All keys.
    pub keys: u64,
}

#[derive(Debug, Clone)]
struct Before {
    at: f64,
    reading: Option<Reading>,
    cycle_seconds: Option<f64>,
    time_caps: Option<u64>,
}

impl History {
    /// Adds an observation.
    pub fn observe(&mut self, now: f64, signals: &Signals) {
        self.keys = signals.keys().0;
        let next = Before {
            at: now,
            reading: signals.reading.clone(),
            cycle_seconds: signals.cycle_seconds,
            time_caps: signals.time_caps,
        };
        // The keys that a scan reclaims count as expired, also if it began and ended since the observation before.
        let is_over = std::mem::replace(&mut self.is_awaited, signals.is_scan_queued) && !signals.is_scan_queued;
        let was_scanning =
            std::mem::replace(&mut self.was_scanning, signals.is_scanning) || signals.is_scanning || is_over;
        let Some(before) = self.before.replace(next) else { return };
        let seconds = now - before.at;
        if seconds <= 0.0 {
            return;
        }
        self.seconds = seconds;
        let hz = f64::from(signals.hz.unwrap_or(10));
        self.load = before.cycle_seconds.zip(signals.cycle_seconds).map(|(before, after)| (after - before) / seconds);
        self.load = self.load.filter(|load| (0.0..=1.0).contains(load) && !was_scanning);
        let caps = before.time_caps.zip(signals.time_caps).and_then(|(before, after)| after.checked_sub(before));
        let is_rising = caps.is_some_and(|caps| caps as f64 > (CAPPED_PART * hz * seconds).max(1.0));
        self.capped = if is_rising { self.capped + 1 } else { 0 };
        let readings = before.reading.as_ref().zip(signals.reading.as_ref());
        self.has_field_ttls = readings.is_some_and(|(before, after)| after.expired_fields > before.expired_fields);
        match readings.and_then(|(before, after)| expiry_rate(before, after)).filter(|_| !signals.is_paused) {
            _ if was_scanning => {}
            Some(rate) => self.add(now, rate, seconds),
            None => self.miss(),
        }
    }

    /// Expects a scan before the next observation.
    pub fn await_scan(&mut self) {
        self.is_awaited = true;
    }

    fn add(&mut self, now: f64, rate: f64, seconds: f64) {
        self.gap = 0;
        // The counts of short intervals scatter.
        let noise = |rate: f64| (3.0 * (rate * seconds).sqrt() + 1.0) / seconds;
        let differ = |one: f64, other: f64, factor: f64| {
            one.max(other) > factor * one.min(other) && (one - other).abs() > noise(one.max(other))
        };
        let is_unsteady = self.rates.back().is_some_and(|last| differ(*last, rate, UNSTEADY));
        self.unsteady = if is_unsteady { self.unsteady + 1 } else { 0 };
        match self.reference {
            Some(reference) if !differ(reference, rate, SHIFT) => {}
            first => {
                self.reference = Some(rate);
                if first.is_some() {
                    self.shifted_at = Some(now);
                }
            }
        }
        self.rates.push_back(rate);
        if self.rates.len() > RATES {
            self.rates.pop_front();
        }
    }

    fn miss(&mut self) {
        self.gap += 1;
        if self.gap > MAX_GAP {
            self.rates.clear();
            self.reference = None;
        }
    }

    /// Returns the last rate, keys a second.
    pub fn rate(&self) -> Option<f64> {
        self.rates.back().copied()
    }

    /// Returns the lower and the higher of the last two rates; `None`: there are no two yet.
    pub fn range(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.rates.front()?, self.rates.back()?);
        (self.rates.len() == RATES).then(|| (first.min(*last), first.max(*last)))
    }

    /// Whether keys expire in bursts, for which there is no law.
    pub fn is_bursty(&self) -> bool {
        self.unsteady >= MAX_UNSTEADY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(history: &mut History, at: f64, expired: u64, caps: u64) {
        let reading = Reading { run_id: "one".into(), at, expired, ..Reading::default() };
        let signals = Signals {
            reading: Some(reading),
            hz: Some(10),
            time_caps: Some(caps),
            cycle_seconds: Some(at * 0.01),
            ..Signals::default()
        };
        history.observe(at, &signals);
    }

    #[test]
    fn a_rate_takes_two_observations_and_a_decision_three() {
        let mut history = History::default();
        observe(&mut history, 0.0, 0, 0);
        assert_eq!((history.rate(), history.range()), (None, None));
        observe(&mut history, 10.0, 10_000, 0);
        assert_eq!((history.rate(), history.range()), (Some(1_000.0), None));
        observe(&mut history, 20.0, 21_000, 0);
        assert_eq!(history.range(), Some((1_000.0, 1_100.0)));
        assert!(history.load.is_some_and(|load| (load - 0.01).abs() < 1e-9) && history.shifted_at.is_none());
        observe(&mut history, 30.0, 121_000, 0);
        assert_eq!(history.shifted_at, Some(30.0), "ten times as many");
    }

    #[test]
    fn readings_that_say_nothing_are_left_out_and_the_rate_is_forgotten_after_some() {
        let mut history = History::default();
        for (step, expired) in [0, 10_000, 20_000].into_iter().enumerate() {
            observe(&mut history, step as f64 * 10.0, expired, 0);
        }
        observe(&mut history, 30.0, 0, 0);
        assert_eq!(history.range(), Some((1_000.0, 1_000.0)), "CONFIG RESETSTAT");
        for step in 4..10 {
            history.observe(f64::from(step) * 10.0, &Signals::default());
        }
        assert_eq!(history.range(), None);
    }

    #[test]
    fn bursts_and_time_caps_are_noticed_only_in_a_row() {
        let mut history = History::default();
        for step in 0..8u64 {
            observe(&mut history, step as f64 * 10.0, step / 2 * 50_000, step * 3);
        }
        assert!(history.is_bursty() && history.capped >= 2);
        observe(&mut history, 80.0, 200_000, 22);
        assert_eq!(history.capped, 0, "one cycle of a hundred is chance");
    }
}

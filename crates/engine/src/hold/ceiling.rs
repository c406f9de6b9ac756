//! Highest effort that keeps the limits, learned from one that broke them.

use serde::{Deserialize, Serialize};

use super::{history::SHIFT, policy::Policy};
use crate::stale::CycleSetting;

/// Seconds for which it is remembered. Other programs on the machine may have made the cycles longer, so it is not final.
const REMEMBERED: f64 = 21_600.0;

/// An effort that is not exceeded for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceiling {
    /// The effort; the server's own where no other keeps the limits.
    pub effort: u8,
    /// What was measured above it.
    pub sentence: String,
    hz: u32,
    seen: Seen,
}

/// When, and under what, a limit was broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// The time, seconds.
    pub at: f64,
    /// Keys that expired a second.
    pub rate: f64,
    /// The limits of the stall, milliseconds, and of the CPU, share of a core.
    pub limits: [f64; 2],
}

/// A ceiling in a record, with which the next holder continues.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedCeiling {
    effort: u8,
    hz: u32,
    rate: f64,
    limits: [f64; 2],
    /// Seconds since it was learned, when the record was written.
    age_seconds: u64,
    sentence: String,
}

impl Seen {
    /// Returns what is the case now.
    pub fn now(at: f64, rate: f64, policy: &Policy) -> Self {
        Self { at, rate, limits: limits(policy) }
    }
}

/// Returns the limits of a policy that a ceiling is learned under: of the stall, milliseconds, and of the CPU, share of a core.
fn limits(policy: &Policy) -> [f64; 2] {
    [policy.max_added_stall_ms, policy.max_added_cpu]
}

impl Ceiling {
    /// Returns an effort that is not exceeded. `found`: the setting above it, with which a limit was broken.
    pub fn new(effort: u8, found: CycleSetting, broken: &str, seen: Seen) -> Self {
        Self { effort, sentence: format!("at effort {}, {broken}", found.effort), hz: found.hz, seen }
    }

    /// Returns the ceiling below a setting at which the cycle reached its own time limit.
    pub fn below_time_limit(baseline: CycleSetting, found: CycleSetting, seen: Seen) -> Self {
        let effort = found.effort.saturating_sub(1).max(baseline.effort);
        Self::new(effort, found, "the cycle reached its own time limit", seen)
    }

    /// Whether it still stands: hz is no higher, no fewer keys expire a second, and it is not too old.
    pub fn stands(&self, now: f64, hz: u32, rate: f64) -> bool {
        hz <= self.hz && rate >= self.seen.rate / SHIFT && now - self.seen.at < REMEMBERED
    }

    /// Whether it was learned under the limits of this policy.
    pub fn is_of(&self, policy: &Policy) -> bool {
        self.seen.limits == limits(policy)
    }

    /// Returns the ceiling for a record.
    pub fn recorded(&self, now: f64) -> RecordedCeiling {
        let Self { effort, hz, seen: Seen { at, rate, limits }, .. } = *self;
        let age_seconds = (now - at).max(0.0) as u64;
        RecordedCeiling { effort, hz, rate, limits, age_seconds, sentence: self.sentence.clone() }
    }
}

impl RecordedCeiling {
    /// Returns the ceiling of a record that was written at `recorded_at`, seconds.
    pub fn ceiling(&self, recorded_at: f64) -> Ceiling {
        let Self { effort, hz, rate, limits, age_seconds, .. } = *self;
        let at = recorded_at - age_seconds as f64;
        Ceiling { effort, hz, seen: Seen { at, rate, limits }, sentence: self.sentence.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceiling() -> Ceiling {
        let found = CycleSetting { effort: 8, hz: 10 };
        Ceiling::new(6, found, "a cycle blocks clients for 1.5 ms more", Seen::now(0.0, 10_000.0, &Policy::default()))
    }

    #[test]
    fn a_ceiling_stands_until_fewer_keys_expire_hz_is_raised_or_it_is_old() {
        let ceiling = ceiling();
        assert!(ceiling.stands(3_600.0, 10, 9_000.0) && ceiling.stands(60.0, 10, 20_000.0));
        assert!(!ceiling.stands(60.0, 10, 5_000.0) && !ceiling.stands(60.0, 20, 10_000.0));
        assert!(!ceiling.stands(REMEMBERED, 10, 10_000.0));
    }

    #[test]
    fn a_recorded_ceiling_is_the_same_but_for_other_limits() {
        let ceiling = ceiling();
        let text = serde_json::to_string(&ceiling.recorded(3_600.0)).expect("JSON");
        let recorded: RecordedCeiling = serde_json::from_str(&text).expect("a ceiling");
        // On another clock, a minute later.
        let later = recorded.ceiling(-60.0);
        assert_eq!((later.effort, &later.sentence), (ceiling.effort, &ceiling.sentence));
        let left = REMEMBERED - 3_660.0;
        assert!(later.stands(left - 1.0, 10, 9_000.0) && !later.stands(left + 1.0, 10, 9_000.0));
        assert!(later.is_of(&Policy::default()));
        assert!(!later.is_of(&Policy { max_added_stall_ms: 2.0, ..Policy::default() }));
    }
}

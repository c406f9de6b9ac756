//! What an operator allows in order to hold a target. Parsed where it enters: every error names field, value and remedy.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::stale::{MAX_ADVISED_HZ, MAX_EFFORT, MIN_EFFORT};

/// Highest limits that a policy may have: of the additional stall, milliseconds, and of the additional CPU, as a share of a core.
pub(super) const MAX_ADDED_STALL_MS: f64 = 10.0;
pub(super) const MAX_ADDED_CPU: f64 = 0.2;

/// What is done about the stale share of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is sampled and nothing is written.
    #[default]
    Observe,
    /// The setting that would hold the target is reported and not written.
    Advise,
    /// The settings of the server's expiry cycle are changed so that the target is held.
    Hold,
}

impl Level {
    /// All levels, the least intrusive first.
    pub const ALL: [Self; 3] = [Self::Observe, Self::Advise, Self::Hold];

    /// Returns the name on the command line, in the API and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Advise => "advise",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|level| level.as_str() == name);
        level.ok_or_else(|| format!("invalid level {name:?}: expected observe, advise or hold"))
    }
}

/// Limits within which a target is held. Stall and CPU are those that the expiry cycle takes beyond the server's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What is done.
    pub level: Level,
    /// Share of all keys below which the stale keys are held, 0–1.
    pub below: f64,
    /// Highest `active-expire-effort` that is written.
    pub max_effort: u8,
    /// Highest `hz` that is written; `None`: `hz` is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hz: Option<u32>,
    /// Longest additional time that one cycle may block clients, milliseconds.
    pub max_added_stall_ms: f64,
    /// Additional share of the main thread that the cycle may take, 0–1.
    pub max_added_cpu: f64,
    /// Seconds between two observations.
    pub interval_seconds: u64,
    /// Seconds without another write after each write, at least.
    pub settle_floor_seconds: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            level: Level::Observe,
            below: 0.1,
            max_effort: 7,
            max_hz: None,
            max_added_stall_ms: 1.0,
            max_added_cpu: 0.03,
            interval_seconds: 60,
            settle_floor_seconds: 60,
        }
    }
}

/// A value of a policy that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field} {value}: expected {expected}")]
pub struct PolicyError {
    /// Name of the field in the API.
    pub field: &'static str,
    /// The value.
    pub value: String,
    /// What is expected instead.
    pub expected: &'static str,
}

impl Policy {
    /// Checks every value.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn validated(self) -> Result<Self, PolicyError> {
        let hz = self.max_hz.unwrap_or(1);
        for (is_valid, field, value, expected) in [
            (
                (0.02..=0.3).contains(&self.below),
                "below",
                self.below.to_string(),
                "a share from 0.02 to 0.3 (2 to 30 %)",
            ),
            (
                (MIN_EFFORT..=MAX_EFFORT).contains(&self.max_effort),
                "max_effort",
                self.max_effort.to_string(),
                "an active-expire-effort from 1 to 10",
            ),
            ((1..=MAX_ADVISED_HZ).contains(&hz), "max_hz", hz.to_string(), "cycles a second from 1 to 100"),
            (
                (0.1..=MAX_ADDED_STALL_MS).contains(&self.max_added_stall_ms),
                "max_added_stall_ms",
                self.max_added_stall_ms.to_string(),
                "milliseconds from 0.1 to 10",
            ),
            (
                (0.001..=MAX_ADDED_CPU).contains(&self.max_added_cpu),
                "max_added_cpu",
                self.max_added_cpu.to_string(),
                "a share of a core from 0.001 to 0.2 (0.1 to 20 %)",
            ),
            (
                (1..=3_600).contains(&self.interval_seconds),
                "interval_seconds",
                self.interval_seconds.to_string(),
                "seconds from 1 to 3600",
            ),
            (
                (1..=3_600).contains(&self.settle_floor_seconds),
                "settle_floor_seconds",
                self.settle_floor_seconds.to_string(),
                "seconds from 1 to 3600",
            ),
        ] {
            if !is_valid {
                return Err(PolicyError { field, value, expected });
            }
        }
        Ok(self)
    }

    /// Returns the time between two observations.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::too_low(Policy { below: 0.01, ..Policy::default() }, "invalid below 0.01: expected a share from 0.02 to 0.3")]
    #[case::percent(Policy { below: 8.0, ..Policy::default() }, "invalid below 8: expected a share")]
    #[case::not_a_number(Policy { below: f64::NAN, ..Policy::default() }, "invalid below NaN")]
    #[case::effort(Policy { max_effort: 11, ..Policy::default() }, "invalid max_effort 11: expected an active-expire-effort from 1 to 10")]
    #[case::hz(Policy { max_hz: Some(500), ..Policy::default() }, "invalid max_hz 500: expected cycles a second from 1 to 100")]
    #[case::stall(Policy { max_added_stall_ms: 0.0, ..Policy::default() }, "invalid max_added_stall_ms 0")]
    #[case::cpu(Policy { max_added_cpu: 3.0, ..Policy::default() }, "invalid max_added_cpu 3")]
    #[case::interval(Policy { interval_seconds: 0, ..Policy::default() }, "invalid interval_seconds 0")]
    #[case::settling(Policy { settle_floor_seconds: 9_999, ..Policy::default() }, "invalid settle_floor_seconds 9999")]
    fn a_value_out_of_range_is_named_with_what_is_expected(#[case] policy: Policy, #[case] expected: &str) {
        let error = policy.validated().expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn the_default_is_valid_and_writes_nothing() {
        assert_eq!(Policy::default().validated().map(|policy| policy.level), Ok(Level::Observe));
    }

    #[test]
    fn levels_are_parsed_by_name() {
        assert_eq!("hold".parse(), Ok(Level::Hold));
        assert_eq!("on".parse::<Level>(), Err("invalid level \"on\": expected observe, advise or hold".into()));
    }
}

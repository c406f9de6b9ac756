//! What a server counts of its commands: which of them keep all other clients waiting.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::link::Info;

/// Most commands that are kept: real servers have some 450, subcommands included.
const MAX_COMMANDS: usize = 1_024;
/// Commands of the scan itself. What others run in a transaction counts under its own name.
const OWN: [&str; 2] = ["exec", "scan"];

/// How often each command was called, and how long its calls took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandTimes(HashMap<u64, (u64, u64)>);

/// Calls of commands that take long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LongCalls {
    /// How many there were.
    pub calls: u64,
    /// How long they took together.
    pub total: Duration,
}

impl LongCalls {
    /// Returns how long one of them took in the mean.
    pub fn mean(self) -> Duration {
        self.total.div_f64(self.calls.max(1) as f64)
    }
}

impl CommandTimes {
    /// Reads section commandstats. Commands of modules are left out, whose time counts even where a thread of their own runs them.
    pub(crate) fn read(info: &Info) -> Self {
        let counted = info.commands().filter(|(name, _)| !OWN.contains(name) && !name.contains('.'));
        let hashed = |name: &str| {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            hasher.finish()
        };
        Self(counted.map(|(name, counted)| (hashed(name), counted)).take(MAX_COMMANDS).collect())
    }

    /// Returns the calls since `before` of all commands whose mean call has taken longer than `limit` since then. `None`: the counters
    /// were reset.
    pub fn longer_than(&self, limit: Duration, before: &Self) -> Option<LongCalls> {
        self.0.iter().try_fold(LongCalls::default(), |sum, (name, (calls, micros))| {
            let (calls_before, micros_before) = before.0.get(name).copied().unwrap_or_default();
            let (calls, micros) = (calls.checked_sub(calls_before)?, micros.checked_sub(micros_before)?);
            let is_long = u128::from(micros) > limit.as_micros().saturating_mul(u128::from(calls.max(1)));
            Some(match is_long {
                true => LongCalls {
                    calls: sum.calls.saturating_add(calls),
                    total: sum.total.saturating_add(Duration::from_micros(micros)),
                },
                false => sum,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn times(statistics: &[(&str, u64, u64)]) -> CommandTimes {
        let line = |(name, calls, micros): &(&str, u64, u64)| format!("cmdstat_{name}:calls={calls},usec={micros}\r\n");
        CommandTimes::read(&Info::read(&statistics.iter().map(line).collect::<String>()))
    }

    #[test]
    fn a_command_is_long_by_its_mean_since_the_last_sample() {
        let before = times(&[("get", 1_000_000, 2_000_000), ("keys", 3, 900)]);
        let after = times(&[("get", 1_002_500, 2_005_000), ("keys", 7, 200_900), ("debug", 2, 100_000)]);
        let found = after.longer_than(MILLI, &before).expect("counters that grow");
        assert_eq!(found, LongCalls { calls: 6, total: 300 * MILLI });
        assert_eq!(found.mean(), 50 * MILLI);
        assert_eq!(after.longer_than(MILLI, &after), Some(LongCalls::default()));
    }

    #[test]
    fn neither_the_scan_itself_nor_a_module_counts_nor_do_counters_that_were_reset() {
        let none = times(&[]);
        let own = [("exec", 10, 100_000), ("scan", 10, 90_000), ("FT.SEARCH", 4, 400_000)];
        assert_eq!(times(&own).longer_than(MILLI, &none), Some(LongCalls::default()));
        assert_eq!(times(&[("get", 5, 5)]).longer_than(MILLI, &times(&[("get", 9, 9)])), None);
    }
}

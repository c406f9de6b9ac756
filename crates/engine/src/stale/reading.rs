//! How many keys expire a second, from two readings of a server's counters.

use serde::{Deserialize, Serialize};

/// Counters of one server at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Identity of the server process (`run_id`); empty where it is unknown.
    pub run_id: String,
    /// Seconds, on any clock that is common to the readings.
    pub at: f64,
    /// Expired keys that were removed since the start (`expired_keys`).
    pub expired: u64,
    /// Expired fields of hashes that were removed (`expired_fields`, Valkey 9): they share the budget of the cycle.
    pub expired_fields: u64,
    /// Commands so far that pause expiry.
    pub pauses: u64,
}

/// Returns the keys that expired a second between two readings; `None` where they say nothing about a steady state: another
/// process, a reset counter, a pause of expiry, expired fields, or no time between them.
pub fn expiry_rate(before: &Reading, after: &Reading) -> Option<f64> {
    let seconds = after.at - before.at;
    let is_steady = before.run_id == after.run_id
        && before.pauses == after.pauses
        && before.expired_fields == after.expired_fields
        && seconds > 0.0;
    let expired = after.expired.checked_sub(before.expired).filter(|_| is_steady)?;
    Some(expired as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: f64, expired: u64) -> Reading {
        Reading { run_id: "one".into(), at, expired, ..Reading::default() }
    }

    #[test]
    fn a_rate_is_the_difference_over_the_time() {
        assert_eq!(expiry_rate(&reading(10.0, 5_000), &reading(70.0, 11_000)), Some(100.0));
        assert_eq!(expiry_rate(&reading(10.0, 5_000), &reading(11.0, 5_000)), Some(0.0));
    }

    #[test]
    fn readings_that_are_not_steady_are_discarded() {
        let (before, after) = (reading(10.0, 5_000), reading(70.0, 11_000));
        for (after, why) in [
            (reading(70.0, 4_000), "CONFIG RESETSTAT"),
            (reading(10.0, 6_000), "no time"),
            (Reading { run_id: "two".into(), ..after.clone() }, "a restart"),
            (Reading { pauses: 1, ..after.clone() }, "CLIENT PAUSE"),
            (Reading { expired_fields: 1, ..after }, "fields that expire"),
        ] {
            assert_eq!(expiry_rate(&before, &after), None, "{why}");
        }
    }
}

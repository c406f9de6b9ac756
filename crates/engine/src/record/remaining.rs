//! An estimate of the stale keys after a scan: keys that expired after the scan had passed them, unless the scan left keys out.
//! Calculated from the sums of one pass, without reading the keys again.

use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Stale keys that are left after a scan. Those that were stale before it are reclaimed, unless that is in doubt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Remaining {
    /// All keys of the scanned databases.
    pub keys: u64,
    /// Stale keys among them, about.
    pub stale_keys: u64,
    /// `stale_keys` divided by `keys`, 0–1.
    pub share: f64,
    /// Keys that expired a second while the scan ran, about; `None`: the scan was resumed, and what expired before that is
    /// unknown.
    pub expired_per_second: Option<f64>,
    /// Whether the scan may have left some of them out; `false`: all of them expired while it ran.
    #[serde(default)]
    pub in_doubt: bool,
}

/// What INFO tells before and after a scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Keys of the databases that are scanned.
    pub keys: u64,
    /// Those of them that have a TTL.
    pub with_ttl: u64,
    /// Keys that the server has reclaimed since its start, by the scan and by everything else.
    pub expired: u64,
}

/// The live keys that a scan has returned.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Living {
    /// Returned in the first half of the keyspace, without repeats.
    pub early: f64,
    /// Returned in the second half.
    pub late: f64,
    /// Estimate of the repeats that are not in these numbers.
    pub repeated: f64,
    /// Whether both halves hold equally many keys but for chance, as in one hash table.
    pub is_even: bool,
}

impl Add for Living {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            early: self.early + other.early,
            late: self.late + other.late,
            repeated: self.repeated + other.repeated,
            ..self
        }
    }
}

impl Add for Remaining {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let keys = self.keys.saturating_add(other.keys);
        let stale_keys = self.stale_keys.saturating_add(other.stale_keys);
        Self {
            keys,
            stale_keys,
            share: share(stale_keys, keys),
            expired_per_second: self.expired_per_second.zip(other.expired_per_second).map(|(left, right)| left + right),
            in_doubt: self.in_doubt || other.in_doubt,
        }
    }
}

/// How many times [`chance`] the stale keys and those that expired may differ by growth that is not seen: it is up to four times
/// that, and counts half in the one number and wholly in the other.
const UNSEEN: f64 = 6.0;

fn share(stale: u64, keys: u64) -> f64 {
    if keys == 0 { 0.0 } else { stale as f64 / keys as f64 }
}

/// Returns by how much a number of keys may differ by chance.
fn chance(keys: f64) -> f64 {
    4.0 * keys.max(0.0).sqrt()
}

impl Living {
    /// Returns by how much the live keys have grown during the scan: what the second half has more than the first has come
    /// meanwhile, unless it is chance.
    fn growth(self) -> f64 {
        let more = self.late - self.early;
        match self.is_even && more.abs() > chance(self.early + self.late) {
            true => 4.0 * more,
            false => 0.0,
        }
    }

    /// Returns the live keys at the end of the scan: halfway through it there were as many as it returned.
    fn at_end(self) -> f64 {
        self.early + self.late + self.growth() / 2.0
    }
}

/// Returns what a scan has left. `before`: the counters of its start, and the seconds since then; `None`: it was resumed.
pub(crate) fn remaining(before: Option<(Counters, f64)>, after: Counters, living: Living) -> Remaining {
    let stale = (after.keys as f64 - living.at_end()).clamp(0.0, after.with_ttl as f64);
    // What the estimate of the repeats may be wrong by is none.
    let stale_keys = if stale <= chance(living.repeated) { 0 } else { stale.round() as u64 };
    let expired = before.map(|(before, seconds)| (expired(before, after, living), seconds));
    // The growth that could be chance is in both numbers.
    let unseen = UNSEEN * chance(living.early + living.late + living.repeated);
    Remaining {
        keys: after.keys,
        stale_keys,
        share: share(stale_keys, after.keys),
        expired_per_second: expired.map(|(expired, seconds)| expired / seconds.max(1e-3)),
        in_doubt: expired.is_some_and(|(expired, _)| stale_keys as f64 > expired + unseen),
    }
}

/// Returns how many keys expired between `before` and `after`.
fn expired(before: Counters, after: Counters, living: Living) -> f64 {
    let without_ttl = |counters: Counters| counters.keys.saturating_sub(counters.with_ttl) as f64;
    let growth_with_ttl = living.growth() - (without_ttl(after) - without_ttl(before));
    let growth_with_ttl = if living.growth() == 0.0 { 0.0 } else { growth_with_ttl };
    // What has expired was reclaimed, or is among the keys with a TTL that are more than before.
    let reclaimed = after.expired.saturating_sub(before.expired) as f64;
    (reclaimed + after.with_ttl as f64 - before.with_ttl as f64 - growth_with_ttl).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_server_has_nothing_left() {
        let before = Counters { keys: 1_000_000, with_ttl: 600_000, expired: 7 };
        let after = Counters { keys: 800_000, with_ttl: 400_000, expired: 200_007 };
        let living = Living { early: 400_300.0, late: 399_700.0, is_even: true, ..Living::default() };
        let expected = Remaining { keys: 800_000, expired_per_second: Some(0.0), ..Remaining::default() };
        assert_eq!(remaining(Some((before, 2.0)), after, living), expected);
        assert_eq!(remaining(None, after, living), Remaining { expired_per_second: None, ..expected });
    }

    #[test]
    fn repeats_of_a_table_that_was_resized_are_no_negative_keys() {
        let counters = Counters { keys: 1_000, with_ttl: 1_000, expired: 0 };
        let living = Living { early: 600.0, late: 500.0, is_even: true, ..Living::default() };
        assert_eq!(remaining(Some((counters, 1.0)), counters, living).stale_keys, 0);
    }

    #[test]
    fn what_may_be_an_error_of_the_estimated_repeats_is_no_stale_key() {
        let counters = Counters { keys: 10_000, with_ttl: 10_000, expired: 0 };
        let left = |stale: f64| {
            let living = Living { early: 5_000.0, late: 5_000.0 - stale, repeated: 100.0, is_even: true };
            remaining(None, counters, living).stale_keys
        };
        assert_eq!((left(15.0), left(40.0), left(41.0)), (0, 0, 41));
    }

    #[test]
    fn more_stale_keys_than_have_expired_are_in_doubt() {
        let before = Counters { keys: 12_000, with_ttl: 12_000, expired: 0 };
        let in_doubt = |stale: u64, expired: u64| {
            let after = Counters { keys: 10_000 + stale, with_ttl: 10_000 + stale, expired: 2_000 - stale + expired };
            let living = Living { early: 5_000.0, late: 5_000.0, is_even: true, ..Living::default() };
            let found = remaining(Some((before, 2.0)), after, living);
            assert_eq!((found.stale_keys, found.expired_per_second), (stale, Some(expired as f64 / 2.0)));
            assert!(!remaining(None, after, living).in_doubt, "what has expired is unknown");
            found.in_doubt
        };
        // Growth that is not seen explains up to 24 times the root of the keys.
        assert_eq!((in_doubt(2_000, 0), in_doubt(2_000, 2_000), in_doubt(1_000, 0)), (false, false, false));
        let few = Living { early: 500.0, late: 500.0, is_even: true, ..Living::default() };
        let hidden = Counters { keys: 3_000, with_ttl: 3_000, expired: 0 };
        let found = remaining(Some((hidden, 2.0)), hidden, few);
        assert!(found.in_doubt && found.stale_keys == 2_000, "nothing has expired: {found:?}");
        let both = found + Remaining { in_doubt: false, ..found };
        assert!(both.in_doubt, "{both:?}");
    }

    #[test]
    fn an_empty_server_has_no_share() {
        let living = Living { is_even: true, ..Living::default() };
        assert_eq!(remaining(Some((Counters::default(), 0.0)), Counters::default(), living).share, 0.0);
    }

    proptest! {
        /// A keyspace whose keys expire and come at even rates, scanned at an even rate: what expires ahead of the scan is
        /// reclaimed by it, what expires behind it is left.
        #[test]
        fn what_is_left_under_churn_is_told(
            living in 50_000.0f64..1_000_000.0, without_ttl in 0.0f64..0.6, stale in 0.0f64..0.3,
            churn in 0.001f64..0.3, growth in -0.3f64..0.5, seconds in 1.0f64..3_600.0,
        ) {
            let stale = living * stale;
            let expired = living * churn;
            let grown = living * growth;
            let persistent = living * without_ttl;
            let left = expired / 2.0;
            let before = Counters { keys: (living + stale) as u64, with_ttl: (living + stale - persistent) as u64, expired: 0 };
            let after = Counters {
                keys: (living + grown + left) as u64,
                with_ttl: (living + grown + left - persistent) as u64,
                expired: (stale + expired - left) as u64,
            };
            let returned = Living {
                early: living / 2.0 + grown / 8.0, late: living / 2.0 + 3.0 * grown / 8.0, repeated: 0.0, is_even: true,
            };
            let found = remaining(Some((before, seconds)), after, returned);
            // Growth that could be chance is none.
            let unseen = 2.0 * 4.0 * (living * 1.5).sqrt() + 2.0;
            prop_assert!((found.stale_keys as f64 - left).abs() <= unseen, "{found:?}, {left} are left");
            prop_assert!(!found.in_doubt, "half of what expired is left: {found:?}");
            let rate = found.expired_per_second.expect("the start is known");
            prop_assert!((rate * seconds - expired).abs() <= 2.0 * unseen, "{found:?}, {expired} expired");
        }
    }
}

//! The stale share from a count on a replica: SCAN hides stale keys there, and DBSIZE counts them.

use super::sample::{NORMAL, Share};

/// A count of a part of a replica's keyspace, while keys come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReplicaCount {
    /// Keys that SCAN returned: live ones, since it hides stale keys on a replica.
    returned: u64,
    /// Part of the keyspace that was covered, 0–1.
    fraction: f64,
    /// Sum of DBSIZE at each slice times the part of the keyspace that the slice covered.
    weighted_size: f64,
    /// DBSIZE at the last slice.
    size: u64,
    /// Keys that came or went from one slice to the next.
    changed: u64,
}

impl ReplicaCount {
    /// Starts at the beginning of a database with so many keys.
    pub fn of(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    /// Adds a slice: the keys that it returned, DBSIZE then, and the part of the keyspace that is covered with it, 0–1.
    pub fn add(&mut self, returned: u64, size: u64, fraction: f64) {
        let fraction = fraction.clamp(self.fraction, 1.0);
        self.returned += returned;
        self.weighted_size += size as f64 * (fraction - self.fraction);
        self.changed = self.changed.saturating_add(size.abs_diff(self.size));
        (self.fraction, self.size) = (fraction, size);
    }

    /// Returns the keys at the last slice, stale keys included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the stale share: what DBSIZE counts and SCAN hides. `expiring`: the keys with a TTL, at most which can be stale.
    ///
    /// Each slice stands for its part of the keyspace at its own time, so that the sizes are weighted by these parts: a server that
    /// grows meanwhile has no stale keys for that. A hash decides whether a key that comes or goes is met.
    pub fn share(&self, expiring: u64) -> Share {
        if self.size == 0 || self.fraction <= 0.0 || self.weighted_size <= 0.0 {
            return Share::default();
        }
        let (all, most) = (self.weighted_size / self.fraction, (expiring as f64 / self.size as f64).min(1.0));
        let share = ((all - self.returned as f64 / self.fraction) / all).clamp(0.0, most);
        let uncovered = (1.0 - share) * (1.0 - self.fraction) / (self.fraction * all);
        let error = (uncovered + self.changed as f64 / (4.0 * all * all)).sqrt();
        Share { share, low: share - NORMAL * error, high: (share + NORMAL * error).min(most) }.clamped()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_replica_that_grows_during_its_count_has_no_stale_keys_for_that() {
        // Live keys only: the count meets 1 % of the keyspace in each slice, as it is then.
        let mut count = ReplicaCount::of(100_000);
        for slice in 1..=100u64 {
            let size = 100_000 + 5_000 * slice;
            count.add(size / 100, size, slice as f64 / 100.0);
        }
        let found = count.share(600_000);
        assert!(found.share < 1e-6 && found.low == 0.0, "{found:?}");
        assert!((1e-3..3e-3).contains(&found.high), "600,000 keys of which 500,000 came: {found:?}");
        assert_eq!(count.share(0), Share::default(), "no key has a TTL");
        let mut hidden = ReplicaCount::of(1_000);
        hidden.add(500, 1_000, 1.0);
        assert_eq!(hidden.share(100), Share::exact(0.1), "at most the keys with a TTL are stale");
    }

    #[test]
    fn nothing_is_estimated_from_nothing() {
        assert_eq!(ReplicaCount::of(0).share(0), Share::default());
    }

    proptest! {
        #[test]
        fn a_count_of_the_whole_replica_is_exact(keys in 1u64..1_000_000, part in 0.0f64..=1.0) {
            let returned = (keys as f64 * part) as u64;
            let mut count = ReplicaCount::of(keys);
            count.add(returned / 2, keys, 0.3);
            count.add(returned - returned / 2, keys, 1.0);
            let found = count.share(keys);
            prop_assert!((found.share * keys as f64 - (keys - returned) as f64).abs() < 1e-3);
            prop_assert_eq!((found.low, found.high), (found.share, found.share));
        }
    }
}

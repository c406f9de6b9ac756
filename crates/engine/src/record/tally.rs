//! The sums of one pass over a database, from which the end check tells whether keys were passed over. Pure.

use serde::{Deserialize, Serialize};

use super::remaining::Living;
use crate::link::SliceReply;

/// Part of a database that may be missing from the sums, beyond the writes of clients that show, 0–1: clients that add
/// and delete keys in turn leave no trace between two slices.
const TOLERANCE: f64 = 0.01;
/// How many times the square root of its keys may be missing from a database by chance before a pass proves it.
const DEVIATIONS: f64 = 4.0;

/// Sums of one pass over one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Keys when the pass began, and after its last slice.
    sizes: Option<(u64, u64)>,
    returned: u64,
    /// Those that were returned in the first half of the pass.
    #[serde(default)]
    returned_early: u64,
    #[serde(alias = "released")]
    reclaimed: u64,
    /// Keys that clients added and deleted between slices, as far as DBSIZE shows them.
    churn: u64,
    /// Slices of the pass. Clients cannot write in the middle of a single one.
    #[serde(default)]
    slices: u64,
}

/// The sums of one pass over one database, for the end check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub database: u32,
    pub tally: Tally,
    /// Whether the keys are spread evenly over the tables that the pass visits one after the other: then clients add and
    /// delete as many keys ahead of the cursor as behind it.
    pub is_even: bool,
}

impl Tally {
    /// Adds a slice of the pass. `early`: the part of it that lies in the first half of the keyspace, 0–1.
    pub fn record(&mut self, slice: &SliceReply, early: f64) {
        let Some((before, after)) = slice.sizes else { return };
        let (first, last) = self.sizes.unwrap_or((before, before));
        self.churn += before.abs_diff(last);
        self.sizes = Some((first, after));
        self.returned += slice.returned;
        self.returned_early += (slice.returned as f64 * early).round() as u64;
        self.reclaimed += slice.reclaimed;
        self.slices += 1;
    }

    /// Returns the keys that were neither returned nor reclaimed, if there are enough to scan the database again; `None`:
    /// every key is accounted for.
    pub fn unaccounted(&self) -> Option<u64> {
        Some(self.missing()).filter(|missing| *missing as f64 > self.explained())
    }

    /// Whether more keys are missing than clients can have hidden by adding and deleting keys in turn between slices: of
    /// `first` keys that come and go at random places, a few times `√first` are missing by chance.
    pub fn proves_missing_keys(&self) -> bool {
        let first = self.sizes.map_or(0, |(first, _)| first);
        let chance = if self.slices > 1 { DEVIATIONS * (first as f64).sqrt() } else { 0.0 };
        self.missing() as f64 > self.explained() + chance
    }

    /// Whether clients added or deleted keys between slices, as far as DBSIZE shows them.
    pub fn has_churn(&self) -> bool {
        self.churn > 0
    }

    /// Whether the pass reclaimed nothing.
    pub fn has_reclaimed_nothing(&self) -> bool {
        self.reclaimed == 0
    }

    /// Whether the pass reclaimed nothing and leaves keys unexplained, as where transactions delete no expired key.
    pub fn may_hide_stale_keys(&self) -> bool {
        self.has_reclaimed_nothing() && (self.unaccounted().is_some() || self.is_doubtful())
    }

    /// Whether any key is missing that twice the visible writes of clients do not explain. Detects a single stale key
    /// that was passed over in a quiet keyspace; clients that add and delete keys in turn can cause it as well.
    pub fn is_doubtful(&self) -> bool {
        self.missing() > 2 * self.churn
    }

    /// Returns the live keys that the pass returned.
    pub(super) fn living(&self) -> Living {
        let (early, all) = (self.returned_early as f64, self.returned as f64);
        Living { early, late: all - early, is_even: false }
    }

    /// Returns the missing keys that the visible writes of clients and the tolerance explain.
    fn explained(&self) -> f64 {
        self.churn as f64 + self.sizes.map_or(0, |(first, _)| first) as f64 * TOLERANCE
    }

    fn missing(&self) -> u64 {
        self.sizes.map_or(0, |(first, _)| first.saturating_sub(self.returned + self.reclaimed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::RoleView;

    fn slice(before: u64, after: u64, returned: u64) -> SliceReply {
        let reclaimed = before - after;
        SliceReply { role: RoleView::Unknown, cursor: 1, returned, reclaimed, sizes: Some((before, after)) }
    }

    fn tally(slices: &[SliceReply]) -> Tally {
        let mut tally = Tally::default();
        slices.iter().for_each(|slice| tally.record(slice, 1.0));
        tally
    }

    #[test]
    fn a_quiet_pass_adds_up() {
        assert_eq!(tally(&[slice(1000, 900, 400), slice(900, 800, 400)]).unaccounted(), None);
    }

    #[test]
    fn stale_keys_that_were_passed_over_are_unaccounted_for() {
        assert_eq!(tally(&[slice(1000, 1000, 400), slice(1000, 900, 400)]).unaccounted(), Some(100));
    }

    #[test]
    fn a_few_missing_keys_of_a_small_database_prove_nothing() {
        let halves = |first: u64, missing: u64| {
            let (half, rest) = ((first - missing) / 2, first - missing - (first - missing) / 2);
            tally(&[slice(first, first, half), slice(first, first, rest)])
        };
        for (first, missing, proves) in
            [(200, 5, false), (10_000, 400, false), (300, 100, true), (1_000, 500, true), (10_000, 600, true)]
        {
            let pass = halves(first, missing);
            assert_eq!(
                (pass.unaccounted(), pass.proves_missing_keys()),
                (Some(missing), proves),
                "{missing} of {first}"
            );
        }
    }

    #[test]
    fn a_key_that_is_missing_from_a_single_slice_is_proof_of_itself() {
        assert!(tally(&[slice(10, 10, 9)]).proves_missing_keys());
        assert!(!tally(&[slice(10, 8, 8)]).proves_missing_keys());
    }

    #[test]
    fn one_key_that_was_passed_over_makes_a_pass_doubtful() {
        let passed_over = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
        assert_eq!((passed_over.unaccounted(), passed_over.is_doubtful()), (None, true));
        assert!(!tally(&[slice(1000, 900, 400), slice(700, 600, 300)]).is_doubtful());
    }

    #[test]
    fn keys_that_clients_deleted_between_slices_are_explained() {
        assert_eq!(tally(&[slice(1000, 900, 400), slice(700, 600, 300)]).unaccounted(), None);
    }

    #[test]
    fn a_pass_without_sizes_is_never_unaccounted() {
        let blind = SliceReply { sizes: None, ..slice(10, 10, 0) };
        assert_eq!(tally(&[blind]).unaccounted(), None);
    }
}

//! The sums of one pass over a database, from which the end check tells whether keys were passed over. Pure.

use serde::{Deserialize, Serialize};

use super::remaining::Living;
use crate::link::SliceReply;

/// Part of a database that may be missing from the sums, beyond the writes of clients that show, 0–1: clients that add
/// and delete keys in turn leave no trace between two slices.
const TOLERANCE: f64 = 0.01;
/// How many times the square root of a number of keys may be missing from it by chance.
const DEVIATIONS: f64 = 4.0;

/// Sums of one pass over one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Keys when the pass began, and after its last slice.
    sizes: Option<(u64, u64)>,
    returned: u64,
    /// Those that were returned in the first half of the pass, without repeats.
    #[serde(default)]
    returned_early: f64,
    /// Keys that were returned more than once, an estimate.
    #[serde(default)]
    repeated: f64,
    #[serde(alias = "released")]
    reclaimed: u64,
    /// Keys that clients added and deleted between slices, as far as DBSIZE shows them.
    churn: u64,
    /// The part of these that were deleted.
    #[serde(default)]
    fallen: u64,
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
    /// Whether the pass was divided into chunks.
    pub is_divided: bool,
    /// Whether any key had a TTL, so that some may have been stale.
    pub may_expire: bool,
    /// Keys of all databases that others than the scan removed during the pass, at most, as the server counts them; `None`: unknown.
    pub removed: Option<u64>,
}

impl Pass {
    /// Returns how many keys the pass has certainly left out: those that were there when it began, that it neither returned nor
    /// reclaimed, and that nothing else can have removed meanwhile. 0 where what others removed is unknown.
    pub fn left_out(&self) -> u64 {
        self.removed.map_or(0, |removed| self.tally.left_out(removed))
    }

    /// Whether the pass has left keys out without a doubt. Where what others removed is unknown, only clients that add and delete
    /// keys at random places are reckoned with, and none where the keys are spread unevenly.
    pub fn proves_missing_keys(&self) -> bool {
        match self.removed {
            Some(_) => self.left_out() > 0,
            None => self.tally.proves_missing_keys() && (self.is_even || !self.tally.has_churn()),
        }
    }
}

impl Tally {
    /// Whether no slice was recorded.
    pub fn is_fresh(&self) -> bool {
        self.sizes.is_none()
    }

    /// Adds a slice of the pass. `repeated`: keys of it that were returned before, an estimate. `early`: the part of it that
    /// lies in the first half of the pass, 0–1.
    pub fn record(&mut self, slice: &SliceReply, repeated: f64, early: f64) {
        let Some((before, after)) = slice.sizes else { return };
        let (first, last) = self.sizes.unwrap_or((before, before));
        self.churn = self.churn.saturating_add(before.abs_diff(last));
        self.fallen = self.fallen.saturating_add(last.saturating_sub(before));
        self.sizes = Some((first, after));
        self.returned += slice.returned;
        self.returned_early += (slice.returned as f64 - repeated) * early;
        self.repeated += repeated;
        self.reclaimed = self.reclaimed.saturating_add(slice.reclaimed);
        self.slices += 1;
    }

    /// Returns the keys that were neither returned nor reclaimed, if there are enough to scan the database again; `None`:
    /// every key is accounted for.
    pub fn unaccounted(&self) -> Option<u64> {
        Some(self.missing()).filter(|missing| *missing as f64 > self.explained())
    }

    /// Whether more keys are missing than clients can have hidden by adding and deleting keys in turn between slices: of
    /// `first` keys that come and go at random places, a few times `√first` are missing by chance.
    fn proves_missing_keys(&self) -> bool {
        let first = self.sizes.map_or(0, |(first, _)| first);
        let chance = if self.slices > 1 { DEVIATIONS * (first as f64).sqrt() } else { 0.0 };
        self.missing() as f64 > self.explained() + chance
    }

    /// Returns how many keys were certainly left out where others removed at most `removed` keys meanwhile. What vanished between
    /// two slices was removed as well. Nearly all of that is among the counted keys, so that it explains missing keys only where
    /// it is more: a server that drops whole slots, or swaps databases, does not count them.
    fn left_out(&self, removed: u64) -> u64 {
        let explained = removed.max(self.fallen) as f64 + self.uncertainty();
        (self.missing() as f64 - explained).max(0.0) as u64
    }

    /// Whether clients added or deleted keys between slices, as far as DBSIZE shows them.
    fn has_churn(&self) -> bool {
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

    /// Whether the pass reclaimed nothing while clients wrote: stale keys that it has left out need not be missing from its sums,
    /// because keys that clients added meanwhile stand for them.
    pub fn may_mask_stale_keys(&self) -> bool {
        self.has_reclaimed_nothing() && self.has_churn()
    }

    /// Whether any key is missing that twice the visible writes of clients do not explain. Detects a single stale key
    /// that was passed over in a quiet keyspace; clients that add and delete keys in turn can cause it as well.
    pub fn is_doubtful(&self) -> bool {
        self.missing() as f64 > 2.0 * self.churn as f64 + self.uncertainty()
    }

    /// Returns the live keys that the pass returned.
    pub(super) fn living(&self) -> Living {
        let all = self.returned as f64 - self.repeated;
        Living { early: self.returned_early, late: all - self.returned_early, repeated: self.repeated, is_even: false }
    }

    /// Whether so many keys were returned more than once that missing keys may not show beside them.
    pub fn is_blurred(&self) -> bool {
        self.uncertainty() > self.tolerance()
    }

    /// Returns by how much the estimate of repeated keys may be wrong by chance.
    fn uncertainty(&self) -> f64 {
        DEVIATIONS * self.repeated.sqrt()
    }

    fn tolerance(&self) -> f64 {
        self.sizes.map_or(0, |(first, _)| first) as f64 * TOLERANCE
    }

    /// Returns the missing keys that the visible writes of clients, the tolerance and the estimate of repeats explain.
    fn explained(&self) -> f64 {
        self.churn as f64 + self.tolerance() + self.uncertainty()
    }

    /// Returns the keys that were there when the pass began and were neither returned nor reclaimed by it, on balance.
    pub fn missing(&self) -> u64 {
        let seen = (self.returned + self.reclaimed) as f64 - self.repeated;
        self.sizes.map_or(0, |(first, _)| (first as f64 - seen).max(0.0).round() as u64)
    }
}

/// Replies and tallies for tests.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;
    use crate::link::RoleView;

    /// Returns the reply to a slice that found `before` keys and left `after`.
    pub fn slice(before: u64, after: u64, returned: u64) -> SliceReply {
        SliceReply {
            role: RoleView::Unknown,
            cursor: 1,
            returned,
            reclaimed: before - after,
            sizes: Some((before, after)),
            clock: None,
            memory: None,
            commands: 6,
        }
    }

    /// Returns the tally of slices that returned nothing twice.
    pub fn tally(slices: &[SliceReply]) -> Tally {
        let mut tally = Tally::default();
        slices.iter().for_each(|slice| tally.record(slice, 0.0, 1.0));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::{
        examples::{slice, tally},
        *,
    };

    #[test]
    fn a_quiet_pass_adds_up() {
        assert_eq!(tally(&[slice(1000, 900, 400), slice(900, 800, 400)]).unaccounted(), None);
    }

    #[test]
    fn stale_keys_that_were_passed_over_are_unaccounted_for() {
        assert_eq!(tally(&[slice(1000, 1000, 400), slice(1000, 900, 400)]).unaccounted(), Some(100));
    }

    #[test]
    fn repeated_keys_are_not_taken_for_the_missing_ones() {
        let pass = |repeated: f64| {
            let mut tally = Tally::default();
            tally.record(&slice(10_000, 9_000, 4_000), 0.0, 1.0);
            tally.record(&slice(9_000, 8_000, 4_000), repeated, 0.0);
            tally
        };
        assert_eq!(pass(400.0).unaccounted(), Some(400), "as many were left out as were returned twice");
        assert!(!pass(10.0).is_doubtful() && pass(20.0).is_doubtful(), "chance explains four times the square root");
        assert!(!pass(600.0).is_blurred() && pass(700.0).is_blurred());
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

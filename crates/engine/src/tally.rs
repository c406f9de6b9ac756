//! The end check: whether what a pass over a database returned and released is all that was there.
//!
//! Servers before Redis 7.4 and Valkey 8.1 do not tell that expiry is paused, and a pause of the server's own making (slots
//! that are handed over) can come and go between two looks at any. But a SCAN that meets a dead key while it is paused
//! neither returns nor releases it, and that shows in the sums. Pure.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::link::SliceReply;

/// Part of a database that may be missing from the sums, beyond what shows of others' writes, 0–1: clients that add and
/// take keys in turn leave no trace between two slices.
const TOLERANCE: f64 = 0.01;

/// How long to wait before a database is swept again because keys are missing from the sums, the first time and later: a
/// hand-over that is given up pauses expiry for up to ten seconds, and not every server tells.
const REPEAT_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(6)];

/// The sums of one pass over one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Keys when the pass began, and after its last slice.
    sizes: Option<(u64, u64)>,
    returned: u64,
    released: u64,
    /// What others added and took between our slices, as far as it shows.
    churn: u64,
}

impl Tally {
    /// Enters a slice of the pass.
    pub fn enter(&mut self, slice: &SliceReply) {
        let Some((before, after)) = slice.sizes else { return };
        let (first, last) = self.sizes.unwrap_or((before, before));
        self.churn += before.abs_diff(last);
        self.sizes = Some((first, after));
        self.returned += slice.returned;
        self.released += slice.released;
    }

    /// Keys that were neither returned nor released, beyond what others probably explain; `None`: all is accounted for.
    pub fn unaccounted(&self) -> Option<u64> {
        let (first, _) = self.sizes?;
        let missing = self.missing();
        (missing as f64 > self.churn as f64 + first as f64 * TOLERANCE).then_some(missing)
    }

    /// Whether anything is missing that others' writes, as far as they show, do not explain twice over. One dead key that
    /// was passed over in a quiet keyspace is seen by this; so may be clients who add and take keys in turn.
    pub fn is_doubtful(&self) -> bool {
        self.missing() > 2 * self.churn
    }

    fn missing(&self) -> u64 {
        self.sizes.map_or(0, |(first, _)| first.saturating_sub(self.returned + self.released))
    }
}

/// What to do about databases whose sums do not add up, and how often that was done already.
#[derive(Debug, Default)]
pub(crate) struct EndCheck {
    repeats: HashMap<u32, usize>,
}

/// What an end check comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The databases to sweep again, and how long to wait before that.
    pub again: Vec<u32>,
    pub wait: Duration,
    /// Those for which that has not helped, with the keys that are still missing.
    pub given_up: Vec<(u32, u64)>,
}

impl EndCheck {
    /// Judges passes that are through. On a server that tells when expiry is paused only a part that others' writes cannot
    /// explain counts, on others a single key does, once.
    pub fn judge(&mut self, passes: impl Iterator<Item = (u32, Tally)>, shows_expiry: bool) -> Judgement {
        let mut judgement = Judgement::default();
        for (database, tally) in passes {
            let repeats = self.repeats.entry(database).or_default();
            let missing = tally.unaccounted();
            let doubtful = missing.is_some() || (!shows_expiry && *repeats == 0 && tally.is_doubtful());
            if !doubtful {
                continue;
            }
            // A pause that is told has been waited for already.
            let tries = if shows_expiry { 1 } else { REPEAT_AFTER.len() };
            match (REPEAT_AFTER[..tries].get(*repeats), missing) {
                (Some(wait), _) => {
                    judgement.again.push(database);
                    judgement.wait = judgement.wait.max(*wait);
                }
                (None, Some(missing)) => judgement.given_up.push((database, missing)),
                (None, None) => {}
            }
            *repeats += 1;
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::RoleView;

    fn slice(before: u64, after: u64, returned: u64) -> SliceReply {
        let released = before - after;
        SliceReply { role: RoleView::Unknown, cursor: 1, returned, released, sizes: Some((before, after)) }
    }

    fn tally(slices: &[SliceReply]) -> Tally {
        let mut tally = Tally::default();
        slices.iter().for_each(|slice| tally.enter(slice));
        tally
    }

    #[test]
    fn a_quiet_pass_adds_up() {
        assert_eq!(tally(&[slice(1000, 900, 400), slice(900, 800, 400)]).unaccounted(), None);
    }

    #[test]
    fn dead_keys_that_were_passed_over_are_missing() {
        assert_eq!(tally(&[slice(1000, 1000, 400), slice(1000, 900, 400)]).unaccounted(), Some(100));
    }

    #[test]
    fn one_key_that_was_passed_over_is_a_reason_for_doubt() {
        let passed_over = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
        assert_eq!((passed_over.unaccounted(), passed_over.is_doubtful()), (None, true));
        assert!(!tally(&[slice(1000, 900, 400), slice(700, 600, 300)]).is_doubtful());
    }

    #[test]
    fn what_others_took_between_slices_is_explained() {
        assert_eq!(tally(&[slice(1000, 900, 400), slice(700, 600, 300)]).unaccounted(), None);
    }

    #[test]
    fn without_sizes_nothing_can_be_said() {
        let blind = SliceReply { sizes: None, ..slice(10, 10, 0) };
        assert_eq!(tally(&[blind]).unaccounted(), None);
    }

    #[test]
    fn what_is_missing_time_and_again_is_waited_for_and_then_given_up() {
        let missing = tally(&[slice(1000, 1000, 400), slice(1000, 900, 400)]);
        let mut check = EndCheck::default();
        let mut judge = || check.judge([(0, missing), (3, Tally::default())].into_iter(), false);
        for wait in REPEAT_AFTER {
            assert_eq!(judge(), Judgement { again: vec![0], wait, given_up: Vec::new() });
        }
        assert_eq!(judge(), Judgement { given_up: vec![(0, 100)], ..Judgement::default() });
    }

    #[test]
    fn a_doubt_is_cleared_by_one_more_pass_and_only_where_the_server_does_not_tell() {
        let doubtful = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
        let passes = || [(0, doubtful)].into_iter();
        let mut check = EndCheck::default();
        assert_eq!(check.judge(passes(), true), Judgement::default());
        assert_eq!(check.judge(passes(), false).again, [0]);
        assert_eq!(check.judge(passes(), false), Judgement::default());
    }
}

//! The end check: whether the keys that a pass returned and reclaimed are all keys of the database. Pure.
//!
//! Servers before Redis 7.4 and Valkey 8.1 do not report that expiry is paused, and a pause that the server causes itself
//! (a slot migration) can begin and end between two samples of any server's state. A SCAN that meets an expired key during
//! a pause neither returns nor deletes it, and that shows in the sums.

use std::{collections::HashMap, time::Duration};

use crate::record::Pass;

/// How long to wait before a database is swept again because keys are missing from the sums, the first time and later.
/// A hand-over that is given up pauses expiry for up to ten seconds, and not every server reports that.
const REPEAT_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(6)];

/// Counts how often each database was swept again because its sums do not add up.
#[derive(Debug, Default)]
pub(crate) struct EndCheck {
    repeats: HashMap<u32, usize>,
}

/// Result of an end check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The databases to sweep again, and how long to wait before that.
    pub again: Vec<u32>,
    pub wait: Duration,
    /// Whether to sweep them without transactions, which may delete no expired key.
    pub plain: bool,
    /// The databases for which sweeping again has not helped, with the keys that are still missing.
    pub given_up: Vec<(u32, u64)>,
    /// The databases from which keys are missing as well, but no more than clients may have added and deleted in turn.
    pub unproven: Vec<(u32, u64)>,
}

impl EndCheck {
    /// Judges finished passes. Where the server reports paused expiry, only a part that clients' writes cannot explain
    /// counts; on other servers a single key does, once. `transactions_in_doubt`: the passes ran in transactions, and whether
    /// these delete expired keys is unknown.
    pub fn judge(&mut self, passes: &[Pass], reports_expiry: bool, transactions_in_doubt: bool) -> Judgement {
        let mut judgement = Judgement::default();
        for &Pass { database, tally, is_even } in passes {
            let repeats = self.repeats.entry(database).or_default();
            let missing = tally.unaccounted();
            let hidden = transactions_in_doubt && tally.may_hide_stale_keys();
            let doubtful = hidden || missing.is_some() || (!reports_expiry && *repeats == 0 && tally.is_doubtful());
            if !doubtful {
                continue;
            }
            // A pause that the server reports was waited for already.
            let tries = if reports_expiry { 1 } else { REPEAT_AFTER.len() };
            match (REPEAT_AFTER[..tries].get(*repeats), missing) {
                (Some(wait), _) => {
                    judgement.again.push(database);
                    judgement.wait = judgement.wait.max(*wait);
                }
                // Without transactions the next pass can differ from all before.
                (None, _) if hidden => judgement.again.push(database),
                (None, Some(missing)) if tally.proves_missing_keys() && (is_even || !tally.has_churn()) => {
                    judgement.given_up.push((database, missing));
                }
                (None, Some(missing)) => judgement.unproven.push((database, missing)),
                (None, None) => {}
            }
            judgement.plain |= hidden;
            *repeats += 1;
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{
        Tally,
        examples::{slice, tally},
    };

    fn pass(tally: Tally) -> Pass {
        Pass { database: 0, tally, is_even: true }
    }

    #[test]
    fn a_database_whose_sums_stay_wrong_is_swept_again_after_longer_waits_and_then_given_up() {
        let missing = tally(&[slice(1000, 1000, 300), slice(1000, 900, 400)]);
        let mut check = EndCheck::default();
        let mut judge = || check.judge(&[pass(missing), Pass { database: 3, ..pass(Tally::default()) }], false, false);
        for wait in REPEAT_AFTER {
            assert_eq!(judge(), Judgement { again: vec![0], wait, ..Judgement::default() });
        }
        assert_eq!(judge(), Judgement { given_up: vec![(0, 200)], ..Judgement::default() });
    }

    /// Judges a pass until its database is not swept again.
    fn last_judgement(pass: Pass) -> Judgement {
        let mut check = EndCheck::default();
        let mut judgements = (0..10).map(|_| check.judge(&[pass], false, false));
        judgements.find(|judgement| judgement.again.is_empty()).expect("an end")
    }

    #[test]
    fn a_few_missing_keys_of_a_small_busy_database_are_swept_again_and_then_no_failure() {
        let busy = tally(&[slice(200, 200, 95), slice(200, 200, 99)]);
        assert_eq!(last_judgement(pass(busy)), Judgement { unproven: vec![(0, 6)], ..Judgement::default() });
    }

    #[test]
    fn clients_that_write_explain_missing_keys_where_the_keys_are_spread_unevenly() {
        let (quiet, busy) = (slice(1000, 1000, 250), slice(1010, 1010, 250));
        let uneven = |tally| last_judgement(Pass { is_even: false, ..pass(tally) });
        assert_eq!(uneven(tally(&[quiet.clone(), quiet.clone()])).given_up, [(0, 500)]);
        assert_eq!(uneven(tally(&[quiet.clone(), busy.clone()])).unproven, [(0, 500)]);
        assert_eq!(last_judgement(pass(tally(&[quiet, busy]))).given_up, [(0, 500)]);
    }

    #[test]
    fn a_doubt_causes_one_more_pass_and_only_where_the_server_does_not_report_expiry() {
        let doubtful = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
        let passes = [pass(doubtful)];
        let mut check = EndCheck::default();
        assert_eq!(check.judge(&passes, true, false), Judgement::default());
        assert_eq!(check.judge(&passes, false, false).again, [0]);
        assert_eq!(check.judge(&passes, false, false), Judgement::default());
    }

    #[test]
    fn transactions_are_given_up_only_where_they_reclaimed_nothing() {
        let reclaiming = tally(&[slice(1000, 900, 400), slice(900, 801, 400)]);
        let found = EndCheck::default().judge(&[pass(reclaiming)], false, true);
        assert_eq!((found.again, found.plain), (vec![0], false));
        let idle = tally(&[slice(1000, 1000, 999)]);
        let mut check = EndCheck::default();
        assert!(!check.judge(&[pass(reclaiming)], false, true).plain);
        // The setting was turned in the middle of the first pass.
        let found = check.judge(&[pass(idle)], false, true);
        assert_eq!((found.again, found.plain), (vec![0], true));
        assert_eq!(check.judge(&[pass(idle)], false, false), Judgement::default());
    }
}

//! The end check: whether the keys that a pass returned and reclaimed are all keys of the database. Pure.
//!
//! Redis (up to 8.2 at least) and Valkey before 8.1 do not report that expiry is paused, and a pause that the server causes itself
//! (a slot migration) can begin and end between two samples of any server's state. A SCAN that meets an expired key during
//! a pause neither returns nor deletes it, and that shows in the sums.
//!
//! Keys that clients remove before the pass comes to them are missing from the sums as well. How many these can be is measured:
//! the server counts what expires, what is evicted and what commands change. What is missing beyond that was left out.

use std::{collections::HashMap, time::Duration};

use crate::record::Pass;

/// How long to wait before a database is swept again because keys are missing from the sums, the first time and later.
/// A hand-over that is given up pauses expiry for up to ten seconds, and not every server reports that.
const REPEAT_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(6)];

/// Judges the passes of one connection, and counts how often each database was swept again because its sums do not add up.
#[derive(Debug, Default)]
pub(crate) struct EndCheck {
    repeats: HashMap<u32, usize>,
    /// The last pass over each database, as it was when it was judged first.
    judged: HashMap<u32, Pass>,
    /// Whether a pass has reclaimed keys in transactions.
    have_transactions_reclaimed: bool,
}

/// Keys that a pass has neither returned nor reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MissingKeys {
    pub database: u32,
    pub keys: u64,
    /// Those that others may have removed; `None`: unknown.
    pub removed: Option<u64>,
}

impl MissingKeys {
    fn of(pass: &Pass) -> Self {
        let keys = pass.tally.missing();
        Self { database: pass.database, keys, removed: pass.removed.map(|_| keys - pass.left_out()) }
    }
}

/// Result of an end check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The databases to sweep again, and how long to wait before that.
    pub again: Vec<u32>,
    pub wait: Duration,
    /// Those of them to sweep forward: every pass in chunks has left keys out.
    pub forward: Vec<u32>,
    /// Whether to sweep them without transactions, which may delete no expired key.
    pub plain: bool,
    /// The databases for which sweeping again has not helped.
    pub given_up: Vec<MissingKeys>,
    /// The databases from which keys are missing as well, but no more than others may have removed.
    pub unproven: Vec<MissingKeys>,
}

impl EndCheck {
    /// Judges finished passes. A single key counts that nothing can have removed. Where that is unknown, only a part that clients'
    /// writes cannot explain counts, and once a single key on servers that do not report paused expiry. `transactions_in_doubt`:
    /// the passes ran in transactions, and whether these delete expired keys is unknown.
    pub fn judge(&mut self, passes: &[Pass], reports_expiry: bool, transactions_in_doubt: bool) -> Judgement {
        let mut judgement = Judgement::default();
        self.have_transactions_reclaimed |=
            transactions_in_doubt && passes.iter().any(|pass| !pass.tally.has_reclaimed_nothing());
        for pass in passes {
            // What others remove after the end of a pass, while other databases are swept again, explains none of its missing keys.
            let pass = *self.judged.entry(pass.database).or_insert(*pass);
            let Pass { database, tally, removed, .. } = pass;
            let repeats = self.repeats.entry(database).or_default();
            let missing = tally.unaccounted().is_some();
            // Under churn the sums cannot show what transactions hide. That a pass has reclaimed nothing at all can.
            let masked = !self.have_transactions_reclaimed && pass.may_expire && tally.may_mask_stale_keys();
            let hidden = transactions_in_doubt && (masked || tally.may_hide_stale_keys());
            let doubtful = !reports_expiry && *repeats == 0 && tally.is_doubtful();
            let left_out = pass.left_out() > 0;
            if !hidden && !missing && !doubtful && !left_out {
                continue;
            }
            let tries = match reports_expiry && removed.is_some() {
                // Another pass could prove no more: the server counts enough removed keys, and reports what hides others.
                true if !left_out => 0,
                // A pause that the server reports was waited for already.
                true => 1,
                // A pass whose proof is missing is worth another one.
                false => REPEAT_AFTER.len(),
            };
            let again = match REPEAT_AFTER[..tries].get(*repeats) {
                Some(wait) => {
                    judgement.wait = judgement.wait.max(*wait);
                    true
                }
                // Without transactions the next pass can differ from all before.
                None if hidden => true,
                // A forward scan needs nothing of a cursor but that the server knows it again.
                None if pass.proves_missing_keys() && pass.is_divided => {
                    judgement.forward.push(database);
                    true
                }
                None => {
                    match pass.proves_missing_keys() {
                        true => judgement.given_up.push(MissingKeys::of(&pass)),
                        false if missing => judgement.unproven.push(MissingKeys::of(&pass)),
                        false => {}
                    }
                    false
                }
            };
            if again {
                judgement.again.push(database);
                self.judged.remove(&database);
            }
            judgement.plain |= hidden;
            *repeats += 1;
        }
        judgement
    }

    /// Forgets the passes that were judged: all databases are swept again.
    pub fn forget_passes(&mut self) {
        self.judged.clear();
    }
}

#[cfg(test)]
mod tests;

//! Counts failed attempts and locks a key out after too many, and remembers who signed in lately. In memory: each process
//! counts for itself.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most keys that are counted, and most that are remembered, at a time, so that memory stays bounded. Beyond it keys that are not
/// locked are forgotten first: otherwise guesses with other keys would end a lock. Among them go those whose last failure is
/// oldest.
const MAX_KEYS: usize = 10_000;
/// Keys that are forgotten at a time, so that the search for the oldest ones is not repeated for each new key.
const FORGOTTEN: usize = MAX_KEYS / 10;

/// Failed attempts per key, for example per user name or per peer address.
pub(super) struct Lockout<K> {
    /// Failures within `span` that are allowed; one more locks the key.
    allowed: usize,
    /// How long a failure counts, and how long a lock lasts.
    span: Duration,
    records: Mutex<HashMap<K, Record>>,
}

#[derive(Default)]
struct Record {
    failures: VecDeque<Instant>,
    locked_until: Option<Instant>,
}

impl Record {
    fn is_over(&self, now: Instant, span: Duration) -> bool {
        self.locked_until.is_none_or(|until| until <= now)
            && self.failures.back().is_none_or(|last| now.duration_since(*last) >= span)
    }
}

impl<K: Eq + Hash + Clone> Lockout<K> {
    pub(super) fn new(allowed: usize, span: Duration) -> Self {
        Self { allowed, span, records: Mutex::new(HashMap::new()) }
    }

    /// Returns whether a key is locked.
    pub(super) fn is_locked(&self, key: &K, now: Instant) -> bool {
        self.locked_for(key, now).is_some()
    }

    /// Returns how long a key stays locked; `None` if it is not.
    pub(super) fn locked_for(&self, key: &K, now: Instant) -> Option<Duration> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let until = records.get(key).and_then(|record| record.locked_until)?;
        until.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// Counts a failure.
    pub(super) fn failed(&self, key: K, now: Instant) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= MAX_KEYS && !records.contains_key(&key) {
            records.retain(|_, record| !record.is_over(now, self.span));
            if records.len() >= MAX_KEYS {
                let is_locked = |record: &Record| record.locked_until.is_some_and(|until| until > now);
                forget_first(&mut records, |record| (is_locked(record), record.failures.back().copied()));
            }
        }
        let record = records.entry(key).or_default();
        while record.failures.front().is_some_and(|first| now.duration_since(*first) >= self.span) {
            record.failures.pop_front();
        }
        record.failures.push_back(now);
        if record.failures.len() > self.allowed {
            record.locked_until = Some(now + self.span);
        }
    }
}

/// Removes the first keys in this order.
fn forget_first<K: Eq + Hash + Clone, V, O: Ord>(kept: &mut HashMap<K, V>, order: impl Fn(&V) -> O) {
    let mut keys: Vec<(O, &K)> = kept.iter().map(|(key, value)| (order(value), key)).collect();
    keys.select_nth_unstable_by(FORGOTTEN - 1, |(one, _), (other, _)| one.cmp(other));
    let first: Vec<K> = keys.into_iter().take(FORGOTTEN).map(|(_, key)| key.clone()).collect();
    for key in first {
        kept.remove(&key);
    }
}

/// Keys that succeeded lately, for example a user at an address.
pub(super) struct Recent<K> {
    /// How long a success counts.
    span: Duration,
    successes: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash + Clone> Recent<K> {
    pub(super) fn new(span: Duration) -> Self {
        Self { span, successes: Mutex::new(HashMap::new()) }
    }

    /// Returns whether a key succeeded within the span.
    pub(super) fn contains(&self, key: &K, now: Instant) -> bool {
        let successes = self.successes.lock().unwrap_or_else(PoisonError::into_inner);
        successes.get(key).is_some_and(|last| now.saturating_duration_since(*last) < self.span)
    }

    /// Remembers a success.
    pub(super) fn succeeded(&self, key: K, now: Instant) {
        let mut successes = self.successes.lock().unwrap_or_else(PoisonError::into_inner);
        if successes.len() >= MAX_KEYS && !successes.contains_key(&key) {
            forget_first(&mut successes, |last| *last);
        }
        successes.insert(key, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(300);

    #[test]
    fn the_sixth_failure_in_five_minutes_locks_for_five_minutes() {
        let lockout = Lockout::new(5, SPAN);
        let start = Instant::now();
        for second in 0..5 {
            lockout.failed("a", start + Duration::from_secs(second));
            assert!(!lockout.is_locked(&"a", start + Duration::from_secs(second)));
        }
        let sixth = start + Duration::from_secs(299);
        lockout.failed("a", sixth);
        assert!(lockout.is_locked(&"a", sixth) && !lockout.is_locked(&"b", sixth), "other keys stay unlocked");
        let last = Duration::from_millis(1);
        assert_eq!(lockout.locked_for(&"a", sixth + SPAN - last), Some(last));
        assert!(!lockout.is_locked(&"a", sixth + SPAN));
    }

    #[test]
    fn failures_that_are_spread_out_do_not_lock() {
        let lockout = Lockout::new(5, SPAN);
        let start = Instant::now();
        for minute in 0..60 {
            let now = start + Duration::from_secs(minute * 61);
            lockout.failed("a", now);
            assert!(!lockout.is_locked(&"a", now), "after {minute} minutes");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let lockout = Lockout::new(0, SPAN);
        let start = Instant::now();
        for number in 0..=MAX_KEYS {
            lockout.failed(number, start + Duration::from_millis(number as u64));
        }
        let now = start + Duration::from_secs(11);
        assert_eq!(
            lockout.records.lock().expect("not poisoned").len(),
            MAX_KEYS - FORGOTTEN + 1,
            "a part goes at a time"
        );
        assert!(!lockout.is_locked(&0, now) && lockout.is_locked(&FORGOTTEN, now) && lockout.is_locked(&MAX_KEYS, now));
        let recent = Recent::new(SPAN);
        for number in 0..=MAX_KEYS {
            recent.succeeded(number, start + Duration::from_millis(number as u64));
        }
        assert!(!recent.contains(&(FORGOTTEN - 1), now) && recent.contains(&FORGOTTEN, now));
        assert!(recent.contains(&MAX_KEYS, now));
    }

    #[test]
    fn guesses_with_other_keys_do_not_end_a_lock() {
        let lockout = Lockout::new(1, SPAN);
        let start = Instant::now();
        for _ in 0..2 {
            lockout.failed(usize::MAX, start);
        }
        for number in 0..MAX_KEYS + 10 {
            lockout.failed(number, start + Duration::from_millis(1));
        }
        assert!(lockout.is_locked(&usize::MAX, start + Duration::from_secs(1)));
    }

    #[test]
    fn a_success_counts_for_its_span() {
        let recent = Recent::new(SPAN);
        let start = Instant::now();
        recent.succeeded("a", start);
        assert!(recent.contains(&"a", start + SPAN - Duration::from_millis(1)) && !recent.contains(&"b", start));
        assert!(!recent.contains(&"a", start + SPAN));
    }
}

//! Counts failed attempts and locks a key out after too many. In memory: each process counts for itself.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most keys that are counted at a time. Beyond it the key whose last failure is oldest is forgotten, so that memory
/// stays bounded.
const MAX_KEYS: usize = 10_000;

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
                let oldest = records.iter().min_by_key(|(_, record)| record.failures.back().copied());
                let oldest = oldest.map(|(key, _)| key.clone());
                oldest.and_then(|key| records.remove(&key));
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
        assert_eq!(lockout.records.lock().expect("not poisoned").len(), MAX_KEYS);
        assert!(!lockout.is_locked(&0, now) && lockout.is_locked(&MAX_KEYS, now));
    }
}

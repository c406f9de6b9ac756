//! Counts failed attempts and locks out who makes too many. In memory: each process counts for itself.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Whose attempts are kept at most; beyond that the longest silent are forgotten, so that memory stays bounded.
const MOST_KEPT: usize = 10_000;

/// Failed attempts by whoever makes them.
pub(super) struct Attempts<K> {
    /// This many failures within `span` are forgiven; one more locks.
    forgiven: usize,
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

impl<K: Eq + Hash + Clone> Attempts<K> {
    pub(super) fn new(forgiven: usize, span: Duration) -> Self {
        Self { forgiven, span, records: Mutex::new(HashMap::new()) }
    }

    /// Whether this one is locked out.
    pub(super) fn is_locked(&self, who: &K, now: Instant) -> bool {
        self.locked_for(who, now).is_some()
    }

    /// How long this one is still locked out; `None`: not at all.
    pub(super) fn locked_for(&self, who: &K, now: Instant) -> Option<Duration> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let until = records.get(who).and_then(|record| record.locked_until)?;
        until.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// Counts a failure.
    pub(super) fn failed(&self, who: K, now: Instant) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= MOST_KEPT && !records.contains_key(&who) {
            records.retain(|_, record| !record.is_over(now, self.span));
            if records.len() >= MOST_KEPT {
                let longest_silent = records.iter().min_by_key(|(_, record)| record.failures.back().copied());
                let longest_silent = longest_silent.map(|(who, _)| who.clone());
                longest_silent.and_then(|who| records.remove(&who));
            }
        }
        let record = records.entry(who).or_default();
        while record.failures.front().is_some_and(|first| now.duration_since(*first) >= self.span) {
            record.failures.pop_front();
        }
        record.failures.push_back(now);
        if record.failures.len() > self.forgiven {
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
        let attempts = Attempts::new(5, SPAN);
        let begin = Instant::now();
        for second in 0..5 {
            attempts.failed("a", begin + Duration::from_secs(second));
            assert!(!attempts.is_locked(&"a", begin + Duration::from_secs(second)));
        }
        let sixth = begin + Duration::from_secs(299);
        attempts.failed("a", sixth);
        assert!(attempts.is_locked(&"a", sixth) && !attempts.is_locked(&"b", sixth), "one locks nobody else out");
        let last = Duration::from_millis(1);
        assert_eq!(attempts.locked_for(&"a", sixth + SPAN - last), Some(last));
        assert!(!attempts.is_locked(&"a", sixth + SPAN));
    }

    #[test]
    fn failures_that_are_spread_out_lock_nobody() {
        let attempts = Attempts::new(5, SPAN);
        let begin = Instant::now();
        for minute in 0..60 {
            let now = begin + Duration::from_secs(minute * 61);
            attempts.failed("a", now);
            assert!(!attempts.is_locked(&"a", now), "after {minute} minutes");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let attempts = Attempts::new(0, SPAN);
        let begin = Instant::now();
        for number in 0..=MOST_KEPT {
            attempts.failed(number, begin + Duration::from_millis(number as u64));
        }
        let now = begin + Duration::from_secs(11);
        assert_eq!(attempts.records.lock().expect("unharmed").len(), MOST_KEPT);
        assert!(!attempts.is_locked(&0, now) && attempts.is_locked(&MOST_KEPT, now));
    }
}

//! What ends a sweep early: a flag that somebody raises, or the end of its time. Looked at by everything that waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// No wait or read goes on for longer than this without a look at the stop.
pub const LOOK: Duration = Duration::from_millis(250);

/// Asks a sweep to stop. Clones share the flag; each may have a deadline of its own.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// Asks only those who share it to leave off what they are at.
    recall: Option<Arc<AtomicBool>>,
}

/// Why something that waits should stop waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked.
    Asked,
    /// The deadline has passed.
    OutOfTime,
    /// What is being waited for is not worth it any more.
    Recalled,
}

impl Stop {
    /// A stop that nobody has asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same flag, with a deadline `time` from now.
    pub fn within(&self, time: Option<Duration>) -> Self {
        let deadline = time.and_then(|time| Instant::now().checked_add(time));
        Self { flag: Arc::clone(&self.flag), deadline, recall: self.recall.clone() }
    }

    /// The same flag and deadline, with a recall of its own.
    pub(crate) fn recallable(&self) -> Self {
        Self { recall: Some(Arc::default()), ..self.clone() }
    }

    /// Asks those who share this recall to leave off what they are at.
    pub(crate) fn recall(&self) {
        if let Some(recall) = &self.recall {
            recall.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there was a recall, which is hereby heard.
    pub(crate) fn hear_recall(&self) -> bool {
        self.recall.as_ref().is_some_and(|recall| recall.swap(false, Ordering::Relaxed))
    }

    /// Asks everything that shares this flag to stop, for good.
    pub fn raise(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether it is time to stop, and why.
    pub fn cause(&self) -> Option<Cause> {
        if self.flag.load(Ordering::Relaxed) {
            return Some(Cause::Asked);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Cause::OutOfTime);
        }
        self.recall.as_ref().is_some_and(|recall| recall.load(Ordering::Relaxed)).then_some(Cause::Recalled)
    }

    /// Whether it is time to stop.
    pub fn is_raised(&self) -> bool {
        self.cause().is_some()
    }

    /// Waits until `until`, or until it is time to stop.
    pub fn wait_until(&self, until: Instant) {
        while !self.is_raised() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_ends_a_long_wait_within_a_look() {
        let stop = Stop::new();
        let (raiser, begun) = (stop.clone(), Instant::now());
        let other = thread::spawn(move || raiser.raise());
        stop.wait_until(begun + Duration::from_secs(60));
        other.join().expect("the raising thread ends");
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(stop.cause(), Some(Cause::Asked));
    }

    #[test]
    fn a_deadline_belongs_to_one_clone_and_the_flag_to_all() {
        let stop = Stop::new();
        let bounded = stop.within(Some(Duration::ZERO));
        assert_eq!((bounded.cause(), stop.cause()), (Some(Cause::OutOfTime), None));
        stop.raise();
        assert_eq!(bounded.cause(), Some(Cause::Asked));
    }
}

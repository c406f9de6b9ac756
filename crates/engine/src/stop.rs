//! What ends a sweep early: a flag that a caller raises, a deadline, or the cancellation of one part. Every wait polls it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Longest time between two polls of the stop in any wait or read.
pub const STOP_POLL: Duration = Duration::from_millis(250);

/// Asks a sweep to stop. Clones share the flag; each may have a deadline of its own.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// Cancels only the part of the sweep that shares this child.
    cancelled: Option<Arc<AtomicBool>>,
}

/// Why a wait should end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A caller raised the stop.
    Requested,
    /// The deadline has passed.
    TimedOut,
    /// This part of the sweep was cancelled; the sweep itself goes on.
    Cancelled,
}

impl Stop {
    /// Returns a stop that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the same flag with a deadline `time` from now; `None`: without a deadline.
    pub fn within(&self, time: Option<Duration>) -> Self {
        let deadline = time.and_then(|time| Instant::now().checked_add(time));
        Self { flag: Arc::clone(&self.flag), deadline, cancelled: self.cancelled.clone() }
    }

    /// Returns the same flag and deadline as a child that can be cancelled alone.
    pub(crate) fn child(&self) -> Self {
        Self { cancelled: Some(Arc::default()), ..self.clone() }
    }

    /// Cancels what waits on this child, without raising the stop.
    pub(crate) fn cancel_child(&self) {
        if let Some(cancelled) = &self.cancelled {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether this child was cancelled; resets it.
    pub(crate) fn take_cancel(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.swap(false, Ordering::Relaxed))
    }

    /// Stops everything that shares this flag, for good.
    pub fn raise(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Returns why to stop; `None`: go on.
    pub fn cause(&self) -> Option<Cause> {
        if self.flag.load(Ordering::Relaxed) {
            return Some(Cause::Requested);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Cause::TimedOut);
        }
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)).then_some(Cause::Cancelled)
    }

    /// Whether to stop.
    pub fn is_raised(&self) -> bool {
        self.cause().is_some()
    }

    /// Waits until `until`, or until the stop is raised.
    pub fn wait_until(&self, until: Instant) {
        while !self.is_raised() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(STOP_POLL));
        }
    }
}

/// Cancels a child of a stop when it is dropped, however its holder ends. The stop itself is not raised.
#[derive(Debug)]
pub(crate) struct CancelOnDrop<'a>(pub &'a Stop);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.cancel_child();
    }
}

/// Raises a stop when it is dropped, however its holder ends.
#[derive(Debug)]
pub struct StopOnDrop(pub Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_ends_a_long_wait_within_one_poll() {
        let stop = Stop::new();
        let (raiser, begun) = (stop.clone(), Instant::now());
        let other = thread::spawn(move || raiser.raise());
        stop.wait_until(begun + Duration::from_secs(60));
        other.join().expect("the raising thread ends");
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(stop.cause(), Some(Cause::Requested));
    }

    #[test]
    fn a_deadline_belongs_to_one_clone_and_the_flag_to_all() {
        let stop = Stop::new();
        let bounded = stop.within(Some(Duration::ZERO));
        assert_eq!((bounded.cause(), stop.cause()), (Some(Cause::TimedOut), None));
        stop.raise();
        assert_eq!(bounded.cause(), Some(Cause::Requested));
    }
}

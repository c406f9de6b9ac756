//! Waiting for something to become true, with an end.
//!
//! Tests never sleep for a fixed time: that is too short on a busy machine and too long on every other.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at: often enough that waiting adds nothing to a test's time.
const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `probe` until it returns a value, and returns that.
///
/// # Panics
/// When `limit` has passed, naming `what` was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_value() {
        let mut calls = 0;
        let value = eventually("third call", Duration::from_secs(10), || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "in vain: never")]
    fn ends_when_the_time_is_up() {
        eventually("never", Duration::from_millis(1), || None::<()>);
    }
}

//! Waits for conditions, with a timeout.
//!
//! Tests never sleep for a fixed time, which is too short on a busy machine and too long on an idle one.

use std::thread;
use std::time::{Duration, Instant};

/// Interval at which a condition is checked: short enough to add nothing to a test's time.
const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `probe` until it returns a value, and returns that value.
///
/// # Panics
/// If there is none after `timeout`; the message names the condition `what`.
pub fn eventually<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(began.elapsed() < timeout, "timed out after {timeout:?}: {what}");
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
    #[should_panic(expected = ": never")]
    fn panics_after_the_timeout() {
        eventually("never", Duration::from_millis(1), || None::<()>);
    }
}

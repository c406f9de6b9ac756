//! Whether this worker's clock agrees with the database's. Times of tasks are the database's; but the engine compares the clocks
//! of servers with this machine's, so that a worker whose clock is off fails tasks that others would carry out.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::store::{ClockDifference, Store};

/// Most that the clocks may differ, beyond half the round trip to the database.
const MAX_DIFFERENCE: Duration = Duration::from_secs(2);
/// Good readings in a row after which a worker claims again.
const GOOD_READINGS: u32 = 3;
/// Shortest time between two readings.
const READING_INTERVAL: Duration = Duration::from_millis(900);

/// The last readings of the difference. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ClockWatch(Arc<Mutex<Readings>>);

#[derive(Debug, Default)]
struct Readings {
    read_at: Option<Instant>,
    last: f64,
    /// Whether the difference was too large, and has not been small for some readings since.
    is_off: bool,
    good: u32,
}

/// This worker's clock is off.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "this machine's clock is {:.1} s {} the database's, so that this worker claims no task; synchronise the clocks (NTP)",
    .0.abs(),
    if *.0 < 0.0 { "behind" } else { "ahead of" }
)]
pub struct ClockOff(pub f64);

impl ClockWatch {
    /// Reads the difference again if the last reading is old enough. Returns whether the worker may claim. A database that does
    /// not answer leaves the last verdict: claims fail by themselves then. `note` receives each reading, in seconds.
    pub async fn allows_claims(&self, store: &Store, note: impl FnOnce(f64)) -> bool {
        let is_due = self.readings().read_at.is_none_or(|at| at.elapsed() >= READING_INTERVAL);
        if is_due && let Ok(Some(difference)) = store.clock_difference().await {
            note(difference.seconds());
            self.record(difference);
        }
        self.verdict().is_ok()
    }

    /// Returns why the worker claims nothing, if it does not.
    pub fn verdict(&self) -> Result<(), ClockOff> {
        let readings = self.readings();
        if readings.is_off { Err(ClockOff(readings.last)) } else { Ok(()) }
    }

    fn record(&self, difference: ClockDifference) {
        let mut readings = self.readings();
        readings.read_at = Some(Instant::now());
        readings.last = difference.seconds();
        if difference.exceeds(MAX_DIFFERENCE) {
            if !readings.is_off {
                tracing::error!(difference_seconds = readings.last, "{}", ClockOff(readings.last));
            }
            (readings.is_off, readings.good) = (true, 0);
        } else if readings.is_off {
            readings.good += 1;
            if readings.good >= GOOD_READINGS {
                readings.is_off = false;
                tracing::info!(difference_seconds = readings.last, "the clock agrees with the database's again");
            }
        }
    }

    fn readings(&self) -> std::sync::MutexGuard<'_, Readings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_whose_clock_is_off_claims_again_after_three_good_readings() {
        let watch = ClockWatch::default();
        let record = |micros: i64| {
            watch.record(ClockDifference { micros, round_trip: Duration::from_millis(200) });
            watch.verdict()
        };
        assert_eq!(record(2_000_000), Ok(()));
        assert_eq!(record(-2_050_000), Ok(()), "half of the round trip may explain it");
        assert_eq!(record(-2_200_000), Err(ClockOff(-2.2)));
        assert_eq!(record(0), Err(ClockOff(0.0)));
        assert_eq!(record(0), Err(ClockOff(0.0)));
        assert_eq!(record(30_000_000), Err(ClockOff(30.0)), "the readings are not in a row");
        assert_eq!((record(0), record(0), record(0)), (Err(ClockOff(0.0)), Err(ClockOff(0.0)), Ok(())));
        let sentence = ClockOff(-30.04).to_string();
        assert!(sentence.contains("30.0 s behind the database's"), "{sentence}");
    }
}

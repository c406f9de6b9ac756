//! The clock that a store's verbs use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;

/// Where a store's verbs get the time from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The database's clock at the time of each verb, so that replicas agree.
    #[default]
    Database,
    /// A clock that tests move, in microseconds since the epoch.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Returns a clock that stays at this time until it is set.
    pub fn at(time: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(time.as_microsecond())))
    }

    /// Sets the clock and its clones. The database's clock is not set by keysweep.
    pub fn set(&self, time: Timestamp) {
        if let Self::Manual(micros) = self {
            micros.store(time.as_microsecond(), Ordering::Relaxed);
        }
    }
}

/// How far this machine's clock is from the database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDifference {
    /// Microseconds by which this machine is ahead, taking the database's answer for the middle of the round trip.
    pub micros: i64,
    /// The round trip to the database.
    pub round_trip: Duration,
}

impl ClockDifference {
    /// Returns the difference in seconds, negative if this machine is behind.
    pub fn seconds(self) -> f64 {
        self.micros as f64 / 1e6
    }

    /// Whether the clocks differ by more than this, whichever way the round trip was slow.
    pub fn exceeds(self, most: Duration) -> bool {
        Duration::from_micros(self.micros.unsigned_abs()) > most + self.round_trip / 2
    }
}

/// Returns the time after `duration`, or the latest one that there is.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

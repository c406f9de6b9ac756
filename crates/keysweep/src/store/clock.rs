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

/// Returns the time after `duration`, or the latest one that there is.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

//! The limit of shards that are swept at a time.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::stop::{STOP_POLL, Stop};

/// A number of permits that shards take in turn. A shard that waits for its server to return needs none.
pub(crate) struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

/// One permit, returned when it is dropped.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    /// Returns `count` free permits, at least one.
    pub fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), returned: Condvar::new() }
    }

    /// Waits for a permit; `None`: the stop was raised first.
    pub fn take(&self, stop: &Stop) -> Option<Permit<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if stop.is_raised() {
                return None;
            }
            if *free > 0 {
                break;
            }
            free = self.returned.wait_timeout(free, STOP_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}

//! Whether writes go through: readers go on where no task can be accepted, so that reading alone does not tell.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::StoreError;

/// Raised by a write that found no database, until one goes through again.
#[derive(Debug, Clone, Default)]
pub struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// Takes note of what came of a write.
    pub(super) fn note<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(done, Err(StoreError::Unavailable(_))) {
            self.0.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Where there is doubt, finds out by this trial.
    pub(super) async fn settle(&self, trial: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        if self.0.load(Ordering::Relaxed) {
            trial.await?;
            self.0.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

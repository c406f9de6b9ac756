//! Whether the database takes writes: on a full disk, or while another process holds the file, reads alone do not tell.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::StoreError;

/// Set by a write that failed and was not its caller's fault, until a later write goes through.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteHealth(Arc<AtomicBool>);

impl WriteHealth {
    /// Notes that a write failed.
    pub fn doubt(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Runs `trial` if a write has failed, and forgets that when the trial succeeds. Returns the trial's error.
    pub async fn settle(&self, trial: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        if self.0.load(Ordering::Relaxed) {
            trial.await?;
            self.0.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

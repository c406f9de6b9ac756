//! Estimates of how many keys are stale, without reclaiming any.

use std::{sync::Arc, time::Duration};

use keysweep_engine::{Estimate, Failure, FailureKind, Stop, StopOnDrop, estimate};
use tokio::sync::Semaphore;

use super::{InstanceError, Instances};
use crate::model::{Instance, ScanType};

/// How long an estimate may take.
pub const ESTIMATE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most estimates that one process makes at a time; each has a thread of its own.
const CONCURRENT_ESTIMATES: usize = 4;

/// Why there is no estimate.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// A node refuses a command, or its address is not allowed.
    #[error("{0}")]
    Server(Failure),
    /// Counting takes too long.
    #[error(
        "counting the keys takes longer than {} s; count a part of them with ?sample=0.05, or all of them with `keysweep estimate`",
        ESTIMATE_TIMEOUT.as_secs()
    )]
    TooLong,
    /// Too many estimates are in progress; after [`ESTIMATE_TIMEOUT`] they have finished.
    #[error("{CONCURRENT_ESTIMATES} estimates are in progress already; try again when one has finished")]
    Busy,
    /// The instance's settings cannot be read.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

/// Returns the permits of one process.
pub(super) fn permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONCURRENT_ESTIMATES))
}

impl Instances {
    /// Estimates how many of an instance's keys are stale, at the instance's pace and within half a minute. `sample`: share
    /// of the keys to count on a replica, above 0 and up to 1; `None`: all of them.
    pub async fn estimate(&self, instance: &Instance, sample: Option<f64>) -> Result<Estimate, EstimateError> {
        let permit = self.estimates.clone().try_acquire_owned().map_err(|_| EstimateError::Busy)?;
        self.check_readable(instance, ScanType::Manual)?;
        let (target, dialer) = self.connect_to(instance)?;
        let limits = instance.pace.value().copied().unwrap_or_default().limits();
        // A caller that disconnects ends the count.
        let count = StopOnDrop(Stop::new());
        let stop = count.0.within(Some(ESTIMATE_TIMEOUT));
        let estimated = tokio::task::spawn_blocking(move || {
            let estimated = estimate(&*dialer, &target, sample, limits, &stop);
            drop(permit);
            estimated
        });
        let estimated =
            estimated.await.unwrap_or_else(|panic| Err(Failure::new(FailureKind::Internal, panic.to_string())));
        estimated.map_err(|failure| match failure.kind {
            // Only the timeout interrupts an estimate whose caller still waits.
            FailureKind::Interrupted => EstimateError::TooLong,
            _ => EstimateError::Server(failure),
        })
    }
}

//! How much is dead on an instance's servers, without releasing anything: for those who ask before they sweep.

use std::time::Duration;

use keysweep_engine::{Estimate, Failure, FailureKind, Preset, Stop, estimate};

use super::{Fleet, FleetError};
use crate::model::Instance;

/// How long somebody may be kept waiting.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Estimates that one process makes at a time; each has a thread of its own.
pub(super) const AT_ONCE: usize = 4;

/// Why there is no estimate.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// A node does not let itself be asked, or is not to be dialled.
    #[error("{0}")]
    Server(Failure),
    /// Counting takes too long for an answer.
    #[error(
        "counting the keys takes longer than {} s; count a part of them with ?sample=0.05, or all of them with `keysweep estimate`",
        PATIENCE.as_secs()
    )]
    TooLong,
    /// Others are being made; after [`PATIENCE`] they have ended.
    #[error("{AT_ONCE} estimates are being made already; ask again when one has ended")]
    Busy,
    /// It is not known how to reach it.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

/// Ends the count when nobody waits for it any more.
struct Given(Stop);

impl Drop for Given {
    fn drop(&mut self) {
        self.0.raise();
    }
}

impl Fleet {
    /// Estimates how much of an instance's keyspace is dead, at the instance's pace and within half a minute. `sample`: the
    /// share of the keys to count on a replica, above 0 and up to 1; `None`: all of them.
    pub async fn estimate(&self, instance: &Instance, sample: Option<f64>) -> Result<Estimate, EstimateError> {
        let turn = self.estimates.clone().try_acquire_owned().map_err(|_| EstimateError::Busy)?;
        let (target, dialer) = self.way_to(instance)?;
        let limits = instance.pace.parse::<Preset>().unwrap_or_default().limits();
        let given = Given(Stop::new());
        let stop = given.0.within(Some(PATIENCE));
        let count = tokio::task::spawn_blocking(move || {
            let estimated = estimate(&*dialer, &target, sample, limits, &stop);
            drop(turn);
            estimated
        });
        let estimated = count.await.unwrap_or_else(|died| Err(Failure::new(FailureKind::Internal, died.to_string())));
        estimated.map_err(|failure| match failure.kind {
            // Nobody but the deadline has stopped it.
            FailureKind::Interrupted => EstimateError::TooLong,
            _ => EstimateError::Server(failure),
        })
    }
}

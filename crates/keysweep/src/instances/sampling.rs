//! Background estimates: each instance that allows them is estimated by one of the replicas, every five minutes at most.

use std::time::Duration;

use keysweep_engine::MIN_SAMPLE_INTERVAL;

use super::{
    EstimateError, InstanceError, Instances,
    backlog::work_off,
    estimate::{Estimated, Wanted},
    polls::unless_moved,
};
use crate::{
    model::{Instance, Sampling},
    store::StoreError,
};

/// Most instances that one replica estimates in the background at a time.
pub const CONCURRENT_SAMPLINGS: usize = 8;
/// How long a background estimate may take; the primaries of a cluster are estimated one after the other.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long a replica has an instance to itself. Longer than the timeout, so that no other one begins meanwhile.
const LEASE: Duration = Duration::from_secs(180);
/// Keys that are counted on each replica: they give the share within ±0.35 %.
pub(super) const MAX_COUNTED: u64 = 300_000;

impl Instances {
    /// Estimates the instances that are due, at most [`CONCURRENT_SAMPLINGS`] at a time, until none is, and saves the results. Returns
    /// how many there were.
    pub async fn estimate_due_instances(&self) -> Result<usize, StoreError> {
        let claim = |limit, last: Vec<String>| {
            let store = self.store.clone();
            async move { store.claim_estimates(LEASE, limit, &last).await }
        };
        let estimate = |instance: Instance| {
            let instances = self.clone();
            // A failed estimate is stored with its instance; only the store's own failure ends the work.
            async move { instances.estimate_in_background(&instance).await }
        };
        work_off(CONCURRENT_SAMPLINGS, claim, estimate).await
    }

    async fn estimate_in_background(&self, instance: &Instance) -> Result<(), StoreError> {
        let wanted = Wanted {
            method: None,
            may_sample: instance.sampling == Sampling::Primary,
            max_counted: MAX_COUNTED,
            timeout: TIMEOUT,
        };
        let stored = match self.estimate_or_latest(instance, wanted).await {
            Ok(Estimated::New(found) | Estimated::Unsampled(found)) => self.save_estimate(instance, &found).await,
            Ok(Estimated::Latest(_, wait)) => self.store.defer_estimate(instance, wait).await,
            Err(EstimateError::Instance(InstanceError::Store(error))) => return Err(error),
            Err(error) => {
                tracing::debug!(instance_id = instance.id, %error, "background estimate failed");
                self.store.record_estimate_failure(instance, &error.to_string(), MIN_SAMPLE_INTERVAL).await
            }
        };
        unless_moved(stored)
    }
}

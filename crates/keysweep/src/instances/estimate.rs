//! Estimates of how many keys are stale, on request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use keysweep_engine::{
    Estimate, EstimateRequest, Failure, FailureKind, KnownRights, Method, Stop, StopOnDrop, estimate,
    stale::reversion_seconds,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{InstanceError, Instances, polls::unless_moved, sampling::next_estimate};
use crate::{
    model::{
        DEFAULT_TARGET, EstimatePoint, EstimateTotal, Instance, InstanceEstimate, LatestEstimate, Mark, ScanType, now,
    },
    store::StoreError,
    units::whole_seconds,
};

/// How long an estimate may take.
pub const ESTIMATE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most estimates on request that one process makes at a time; each has a thread of its own.
const CONCURRENT_ESTIMATES: usize = 4;
/// Most of them of one project, so that there is always room for another.
const ESTIMATES_OF_A_PROJECT: usize = 2;
/// Most keys that are counted on each replica, so that the count ends in time.
const MAX_COUNTED: u64 = 1_000_000;
/// Shortest time between two samples of an instance.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(300);
/// Longest time between two samples of an instance.
const MAX_SAMPLE_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// Why there is no estimate.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// A node refuses a command, or its address is not allowed.
    #[error("{0}")]
    Server(Failure),
    /// Counting takes too long.
    #[error(
        "the estimate takes longer than {} s; run `keysweep estimate` against the server, or choose a faster pace of the instance",
        ESTIMATE_TIMEOUT.as_secs()
    )]
    TooLong,
    /// Too many estimates are in progress; after [`ESTIMATE_TIMEOUT`] they have finished.
    #[error("{0} estimates are in progress already; try again when one has finished")]
    Busy(&'static str),
    /// The instance was sampled a short time ago; holds how long to wait.
    #[error(
        "the primaries of this instance were sampled a short time ago; sample them again in {} s, or choose a method that reclaims nothing",
        whole_seconds(*.0)
    )]
    TooSoon(Duration),
    /// The instance's settings cannot be read, or the store failed.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl From<StoreError> for EstimateError {
    fn from(error: StoreError) -> Self {
        Self::Instance(error.into())
    }
}

/// What the estimates of one process share.
#[derive(Clone)]
pub(super) struct Estimates {
    permits: Arc<Semaphore>,
    /// The projects of the estimates in progress, each as often as it has any.
    projects: Arc<Mutex<Vec<String>>>,
    /// Permits of the surveys.
    pub(super) surveys: Arc<Semaphore>,
    /// The rights for which servers are not asked each time.
    rights: KnownRights,
}

impl Default for Estimates {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(CONCURRENT_ESTIMATES)),
            projects: Arc::default(),
            surveys: Arc::new(Semaphore::new(super::survey::CONCURRENCY)),
            rights: KnownRights::default(),
        }
    }
}

/// An estimate in progress.
struct Place {
    _permit: OwnedSemaphorePermit,
    project: String,
    projects: Arc<Mutex<Vec<String>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = projects.iter().position(|project| *project == self.project) {
            projects.swap_remove(index);
        }
    }
}

impl Estimates {
    /// Takes a place for an estimate of this project.
    fn begin(&self, project: &str) -> Result<Place, EstimateError> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if projects.iter().filter(|running| *running == project).count() >= ESTIMATES_OF_A_PROJECT {
            return Err(EstimateError::Busy("two of this project's"));
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| EstimateError::Busy("four"))?;
        projects.push(project.to_owned());
        Ok(Place { _permit: permit, project: project.to_owned(), projects: Arc::clone(&self.projects) })
    }
}

/// How an instance is estimated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The method; `None`: a replica, else a sample or INFO.
    pub method: Option<Method>,
    /// Whether the primaries may be sampled.
    pub may_sample: bool,
    /// Most keys that are counted on each replica.
    pub max_counted: u64,
    /// How long the estimate may take.
    pub timeout: Duration,
}

/// Returns how long to wait after a sample: until the share has returned to what the servers hold, and five minutes at least.
pub(super) fn sample_interval(found: &Estimate) -> Duration {
    let reversions = found.primaries.iter().filter_map(|primary| {
        let finding = &primary.finding;
        reversion_seconds(finding.share_of_expiring?, finding.keys_with_ttl, finding.expiry_rate?)
    });
    let longest = Duration::try_from_secs_f64(reversions.fold(0.0, f64::max)).unwrap_or(MAX_SAMPLE_INTERVAL);
    longest.clamp(SAMPLE_INTERVAL, MAX_SAMPLE_INTERVAL)
}

/// Returns whether an estimate has sampled a primary, although the caller may have left the method open.
pub(super) fn has_sampled(found: &Estimate) -> bool {
    found.primaries.iter().any(|primary| primary.finding.method == Some(Method::Sample))
}

impl Instances {
    /// Estimates how many of an instance's keys are stale, at the instance's pace and within half a minute, and saves the
    /// result as the instance's latest estimate. Only the method `sample` reclaims keys. `None`: counts on a replica, or reads
    /// the servers' own averages.
    pub async fn estimate(&self, instance: &Instance, method: Option<Method>) -> Result<Estimate, EstimateError> {
        let place = self.estimates.begin(&instance.project_id)?;
        let wanted = Wanted {
            method,
            may_sample: method == Some(Method::Sample),
            max_counted: MAX_COUNTED,
            timeout: ESTIMATE_TIMEOUT,
        };
        let found = self.estimate_as(instance, wanted, place).await?;
        self.save_estimate(instance, &found).await?;
        Ok(found)
    }

    /// Saves what was found as the instance's latest estimate, and when the next one is due.
    pub(super) async fn save_estimate(&self, instance: &Instance, found: &Estimate) -> Result<(), StoreError> {
        let record = InstanceEstimate::new(found.clone(), DEFAULT_TARGET, now());
        unless_moved(self.store.record_estimate(instance, &record, next_estimate(found)).await)
    }

    /// Estimates an instance, and keeps the time between samples of it over all replicas. `permit`: held until the estimate has
    /// ended, also where its caller does not wait.
    pub(super) async fn estimate_as(
        &self,
        instance: &Instance,
        wanted: Wanted,
        permit: impl Send + 'static,
    ) -> Result<Estimate, EstimateError> {
        self.check_readable(instance, ScanType::Manual)?;
        let (target, dialer) = self.connect_to(instance)?;
        if wanted.may_sample {
            let wait = self.store.reserve_sample(&instance.id, SAMPLE_INTERVAL.max(wanted.timeout)).await;
            if let Some(wait) = wait.map_err(super::error::gone)? {
                return Err(EstimateError::TooSoon(wait));
            }
        }
        let request = EstimateRequest {
            method: wanted.method,
            no_reclaim: !wanted.may_sample,
            limits: instance.pace.value().copied().unwrap_or_default().limits(),
            max_counted: wanted.max_counted,
            rights: self.estimates.rights.clone(),
            ..EstimateRequest::default()
        };
        // A caller that disconnects ends the count.
        let count = StopOnDrop(Stop::new());
        let stop = count.0.within(Some(wanted.timeout));
        let estimated = tokio::task::spawn_blocking(move || {
            let estimated = estimate(&*dialer, &target, &request, &stop);
            drop(permit);
            estimated
        });
        let estimated =
            estimated.await.unwrap_or_else(|panic| Err(Failure::new(FailureKind::Internal, panic.to_string())));
        if wanted.may_sample {
            // A sample that failed does not count.
            let is_sample = |found: &&Estimate| wanted.method == Some(Method::Sample) || has_sampled(found);
            let sampled = estimated.as_ref().ok().filter(is_sample);
            let wait = sampled.map_or(Duration::ZERO, sample_interval);
            unless_moved(self.store.set_next_sample(&instance.id, wait).await)?;
        }
        estimated.map_err(|failure| match failure.kind {
            // Only the timeout interrupts an estimate whose caller still waits.
            FailureKind::Interrupted | FailureKind::Timeout => EstimateError::TooLong,
            _ => EstimateError::Server(failure),
        })
    }

    /// Returns the latest estimate of an instance.
    pub async fn latest_estimate(&self, instance: &Instance) -> Result<LatestEstimate, InstanceError> {
        Ok(self.store.latest_estimate(&instance.id).await?)
    }

    /// Returns the totals of the latest estimates of several instances, by id.
    pub async fn latest_totals(&self, instances: &[Instance]) -> Result<HashMap<String, EstimateTotal>, InstanceError> {
        let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
        Ok(self.store.latest_totals_of(&ids).await?.into_iter().collect())
    }

    /// Returns an instance's history of estimates and marks from a time on, oldest first.
    pub async fn estimates_since(
        &self,
        instance: &Instance,
        from: Timestamp,
    ) -> Result<(Vec<EstimatePoint>, Vec<Mark>), InstanceError> {
        let points = self.store.estimates_since(&instance.id, from).await?;
        Ok((points, self.store.marks_since(&instance.id, from).await?))
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{Finding, PrimaryEstimate};

    use super::*;

    #[test]
    fn a_project_leaves_places_for_the_estimates_of_others() {
        let estimates = Estimates::default();
        let (first, _second) = (estimates.begin("one").expect("a place"), estimates.begin("one").expect("a place"));
        let Err(EstimateError::Busy(which)) = estimates.begin("one") else { panic!("a third place") };
        assert!(which.contains("this project"), "{which}");
        let (_third, _fourth) = (estimates.begin("two").expect("a place"), estimates.begin("two").expect("a place"));
        assert!(matches!(estimates.begin("three"), Err(EstimateError::Busy("four"))));
        drop(first);
        assert!(estimates.begin("three").is_ok(), "a place that was given back");
    }

    #[test]
    fn the_next_sample_waits_for_the_share_to_return() {
        let found = |share, rate| Estimate {
            target: String::new(),
            total: Finding::default(),
            primaries: vec![PrimaryEstimate {
                address: String::new(),
                source: String::new(),
                finding: Finding {
                    share_of_expiring: share,
                    expiry_rate: rate,
                    keys_with_ttl: 10_000_000,
                    ..Finding::default()
                },
                databases: Vec::new(),
                notes: Vec::new(),
                used_memory: None,
                cycle: keysweep_engine::Cycle::default(),
            }],
        };
        assert_eq!(sample_interval(&found(Some(0.2), Some(4_000.0))), Duration::from_secs(1_000));
        assert_eq!(sample_interval(&found(Some(0.2), Some(1e6))), SAMPLE_INTERVAL);
        assert_eq!(sample_interval(&found(Some(0.2), Some(1e-9))), MAX_SAMPLE_INTERVAL);
        assert_eq!(sample_interval(&found(None, Some(1.0))), SAMPLE_INTERVAL);
    }
}

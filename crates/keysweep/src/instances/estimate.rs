//! Estimates of how many keys are stale.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use keysweep_engine::{
    Estimate, EstimateRequest, Failure, FailureKind, Method, Stop, StopOnDrop, estimate, stale::reversion_seconds,
};
use tokio::sync::Semaphore;

use super::{InstanceError, Instances};
use crate::{
    model::{Instance, ScanType},
    units::whole_seconds,
};

/// How long an estimate may take.
pub const ESTIMATE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most estimates that one process makes at a time; each has a thread of its own.
const CONCURRENT_ESTIMATES: usize = 4;
/// Most keys that are counted on each replica, so that the count ends in time.
const MAX_COUNTED: u64 = 1_000_000;
/// Shortest time between two samples of an instance.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(300);
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
    #[error("{CONCURRENT_ESTIMATES} estimates are in progress already; try again when one has finished")]
    Busy,
    /// The instance was sampled a short time ago; holds how long to wait.
    #[error(
        "the primaries of this instance were sampled a short time ago; sample them again in {} s, or choose a method that reclaims nothing",
        whole_seconds(*.0)
    )]
    TooSoon(Duration),
    /// The instance's settings cannot be read.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

/// What the estimates of one process share.
#[derive(Clone)]
pub(super) struct Estimates {
    permits: Arc<Semaphore>,
    /// When each instance may be sampled again.
    sampled: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Default for Estimates {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(CONCURRENT_ESTIMATES)), sampled: Arc::default() }
    }
}

impl Estimates {
    /// Reserves a sample of an instance, so that no other one begins meanwhile.
    fn reserve(&self, instance: &str, now: Instant) -> Result<(), EstimateError> {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        sampled.retain(|_, due| *due > now);
        match sampled.get(instance) {
            Some(due) => Err(EstimateError::TooSoon(*due - now)),
            None => {
                sampled.insert(instance.to_owned(), now + SAMPLE_INTERVAL);
                Ok(())
            }
        }
    }

    /// Sets when an instance may be sampled again, or at once if the sample has failed.
    fn set_next(&self, instance: &str, next: Option<Instant>) {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        match next {
            Some(next) => sampled.insert(instance.to_owned(), next),
            None => sampled.remove(instance),
        };
    }
}

/// Returns how long to wait after a sample: until the share has returned to what the servers hold, and five minutes at least.
fn sample_interval(found: &Estimate) -> Duration {
    let reversions = found.primaries.iter().filter_map(|primary| {
        let finding = &primary.finding;
        reversion_seconds(finding.share_of_expiring?, finding.keys_with_ttl, finding.expiry_rate?)
    });
    let longest = Duration::try_from_secs_f64(reversions.fold(0.0, f64::max)).unwrap_or(MAX_SAMPLE_INTERVAL);
    longest.clamp(SAMPLE_INTERVAL, MAX_SAMPLE_INTERVAL)
}

impl Instances {
    /// Estimates how many of an instance's keys are stale, at the instance's pace and within half a minute. Only the method
    /// `sample` reclaims keys. `None`: counts on a replica, or reads the servers' own averages.
    pub async fn estimate(&self, instance: &Instance, method: Option<Method>) -> Result<Estimate, EstimateError> {
        let permit = self.estimates.permits.clone().try_acquire_owned().map_err(|_| EstimateError::Busy)?;
        self.check_readable(instance, ScanType::Manual)?;
        let (target, dialer) = self.connect_to(instance)?;
        let is_sample = method == Some(Method::Sample);
        if is_sample {
            self.estimates.reserve(&instance.id, Instant::now())?;
        }
        let request = EstimateRequest {
            method,
            no_reclaim: !is_sample,
            limits: instance.pace.value().copied().unwrap_or_default().limits(),
            max_counted: MAX_COUNTED,
            ..EstimateRequest::default()
        };
        // A caller that disconnects ends the count.
        let count = StopOnDrop(Stop::new());
        let stop = count.0.within(Some(ESTIMATE_TIMEOUT));
        let estimated = tokio::task::spawn_blocking(move || {
            let estimated = estimate(&*dialer, &target, &request, &stop);
            drop(permit);
            estimated
        });
        let estimated =
            estimated.await.unwrap_or_else(|panic| Err(Failure::new(FailureKind::Internal, panic.to_string())));
        if is_sample {
            let next = estimated.as_ref().ok().map(|found| Instant::now() + sample_interval(found));
            self.estimates.set_next(&instance.id, next);
        }
        estimated.map_err(|failure| match failure.kind {
            // Only the timeout interrupts an estimate whose caller still waits.
            FailureKind::Interrupted | FailureKind::Timeout => EstimateError::TooLong,
            _ => EstimateError::Server(failure),
        })
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{Finding, PrimaryEstimate};

    use super::*;

    #[test]
    fn an_instance_is_not_sampled_again_before_its_time() {
        let (estimates, now) = (Estimates::default(), Instant::now());
        assert!(estimates.reserve("one", now).is_ok());
        let Err(EstimateError::TooSoon(wait)) = estimates.reserve("one", now) else { panic!("it is too soon") };
        assert_eq!(wait, SAMPLE_INTERVAL);
        assert!(estimates.reserve("two", now).is_ok(), "another instance is independent of it");
        estimates.set_next("one", Some(now + Duration::from_secs(1_000)));
        let Err(error) = estimates.reserve("one", now + SAMPLE_INTERVAL) else { panic!("it is too soon") };
        assert!(error.to_string().contains("again in 700 s"), "{error}");
        assert!(estimates.reserve("one", now + Duration::from_secs(1_000)).is_ok());
        estimates.set_next("one", None);
        assert!(estimates.reserve("one", now).is_ok(), "a sample that failed does not count");
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
                cycle: keysweep_engine::Cycle::default(),
            }],
        };
        assert_eq!(sample_interval(&found(Some(0.2), Some(4_000.0))), Duration::from_secs(1_000));
        assert_eq!(sample_interval(&found(Some(0.2), Some(1e6))), SAMPLE_INTERVAL);
        assert_eq!(sample_interval(&found(Some(0.2), Some(1e-9))), MAX_SAMPLE_INTERVAL);
        assert_eq!(sample_interval(&found(None, Some(1.0))), SAMPLE_INTERVAL);
    }
}

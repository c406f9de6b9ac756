//! Estimates of how many keys are stale, on request.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use keysweep_engine::{
    Estimate, EstimateRequest, ExpiredKeys, Failure, FailureKind, HoldLevel, KnownRights, MIN_SAMPLE_INTERVAL, Method,
    SampleLimit, Stop, StopOnDrop, estimate, stale::Gap,
};
use tokio::sync::Semaphore;

use super::{
    InstanceError, Instances,
    places::{NoPlace, Place, Places},
    polls::unless_moved,
    sample_times::SampleTimes,
};
use crate::{
    model::{
        DEFAULT_TARGET, EstimatePoint, Instance, InstanceEstimate, LastScan, LatestEstimate, LatestShare, Mark,
        ScanType, TargetShare, now,
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
/// Longest time between two estimates that reclaim nothing, so that the history has one an hour and a batch of expired keys
/// is noticed.
const MAX_INTERVAL: Duration = Duration::from_secs(3_600);
/// Part of the interval by which background estimates are spread.
const SPREAD: f64 = 0.1;
/// Instances that the surveys of one process estimate at a time; the primaries of each one after the other.
const CONCURRENT_SURVEYED: usize = 8;

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
    /// A server of the instance was sampled a short time ago; holds how long to wait.
    #[error(
        "a server of this instance was sampled a short time ago, for this instance or another one; sample it again in {} s, or choose a method that reclaims nothing",
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
    places: Places,
    /// Permits of the surveys.
    pub(super) surveys: Arc<Semaphore>,
    /// The rights for which servers are not asked each time.
    rights: KnownRights,
}

impl Default for Estimates {
    fn default() -> Self {
        Self {
            places: Places::new(CONCURRENT_ESTIMATES, ESTIMATES_OF_A_PROJECT),
            surveys: Arc::new(Semaphore::new(CONCURRENT_SURVEYED)),
            rights: KnownRights::default(),
        }
    }
}

impl Estimates {
    /// Takes a place for an estimate of this project.
    fn begin(&self, project: &str) -> Result<Place, EstimateError> {
        self.places.take(project).map_err(|no_place| match no_place {
            NoPlace::OfTheProject => EstimateError::Busy("two of this project's"),
            NoPlace::OfTheProcess => EstimateError::Busy("four"),
        })
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

/// An estimate that was made now, or the one that stands for it.
pub(super) enum Estimated {
    /// It was made now.
    New(Box<Estimate>),
    /// A server was sampled a short time ago, and the latest estimate is from before a scan, or there is none: one that reclaims
    /// nothing was made now.
    Unsampled(Box<Estimate>),
    /// A server was sampled a short time ago: the latest estimate, and how long another sample has to wait.
    Latest(Box<InstanceEstimate>, Duration),
}

/// Returns how long after an estimate the next one is due: after the time constant of the servers' cycle, and five minutes at
/// least. An estimate that sampled nothing is repeated within an hour.
fn next_estimate(found: &Estimate) -> Duration {
    let interval = found.sample_interval();
    let interval = if found.has_sampled() { interval } else { interval.min(MAX_INTERVAL) };
    interval.mul_f64(1.0 + rand::random_range(0.0..SPREAD))
}

/// Returns why a share is unknown where a server was sampled a short time ago.
fn sampled_before(wait: Duration) -> Gap {
    Gap {
        cause: "a server of this instance was sampled a short time ago, for another instance or before a scan".into(),
        remedy: Some(format!("estimate again in {} s", whole_seconds(wait))),
    }
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

    /// Estimates an instance. Where one of its servers was sampled a short time ago, its latest estimate stands for another one, and
    /// without one since its last scan what reclaims nothing: another instance may be on the same servers.
    pub(super) async fn estimate_or_latest(
        &self,
        instance: &Instance,
        wanted: Wanted,
    ) -> Result<Estimated, EstimateError> {
        match self.estimate_as(instance, wanted, ()).await {
            Err(EstimateError::TooSoon(wait)) => match self.store.latest_estimate(&instance.id).await? {
                LatestEstimate { estimate: Some(latest), scanned_since: None, .. } => {
                    Ok(Estimated::Latest(Box::new(latest), wait))
                }
                _ => {
                    let wanted = Wanted { may_sample: false, ..wanted };
                    let mut found = self.estimate_as(instance, wanted, ()).await?;
                    for primary in &mut found.primaries {
                        primary.gap.get_or_insert_with(|| sampled_before(wait));
                    }
                    Ok(Estimated::Unsampled(Box::new(found)))
                }
            },
            found => Ok(Estimated::New(Box::new(found?))),
        }
    }

    /// Estimates an instance, and keeps the time between samples of its servers over all replicas and instances. `permit`: held
    /// until the estimate has ended, also where its caller does not wait.
    pub(super) async fn estimate_as(
        &self,
        instance: &Instance,
        wanted: Wanted,
        permit: impl Send + 'static,
    ) -> Result<Estimate, EstimateError> {
        self.check_readable(instance, ScanType::Manual)?;
        let (target, dialer) = self.connect_to(instance)?;
        let reserved = MIN_SAMPLE_INTERVAL.max(wanted.timeout);
        let samples = wanted.may_sample.then(|| Arc::new(SampleTimes::new(self.store.clone(), reserved)));
        let request = EstimateRequest {
            method: wanted.method,
            no_reclaim: !wanted.may_sample,
            limits: instance.pace.value().copied().unwrap_or_default().limits(),
            max_counted: wanted.max_counted,
            rights: self.estimates.rights.clone(),
            earlier: self.earlier_counters(instance).await?,
            samples: samples.clone().map(|samples| samples as Arc<dyn SampleLimit>),
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
        if let Some(wait) = samples.and_then(|samples| samples.refused()) {
            return Err(EstimateError::TooSoon(wait));
        }
        estimated.map_err(|failure| match failure.kind {
            // Only the timeout interrupts an estimate whose caller still waits.
            FailureKind::Interrupted | FailureKind::Timeout => EstimateError::TooLong,
            _ => EstimateError::Server(failure),
        })
    }

    /// Returns what the primaries of an instance had counted of their expiry at its last polls, none from before the end of a scan:
    /// a scan reclaims keys that expired long before it.
    async fn earlier_counters(&self, instance: &Instance) -> Result<Vec<ExpiredKeys>, StoreError> {
        let newest = self.store.newest_tasks(std::slice::from_ref(&instance.id)).await?.pop();
        let scanned_until = match newest {
            Some(task) if task.status.is_active() => return Ok(Vec::new()),
            newest => newest.and_then(|task| task.finished_at),
        };
        let counters = instance.stats.iter().flat_map(|stats| &stats.expired);
        let is_undisturbed = |counted: &&ExpiredKeys| {
            scanned_until.is_none_or(|end| i128::from(counted.at) > i128::from(end.as_millisecond()))
        };
        Ok(counters.filter(is_undisturbed).cloned().collect())
    }

    /// Returns the latest estimate of an instance, with the verdicts for its own target and its name in their remedies.
    pub async fn latest_estimate(&self, instance: &Instance) -> Result<LatestEstimate, InstanceError> {
        let latest = self.store.latest_estimate(&instance.id).await?;
        let target = self.target_share(instance).await?;
        let of_instance = |estimate: InstanceEstimate| estimate.for_target(target).for_instance(&instance.name);
        Ok(LatestEstimate { estimate: latest.estimate.map(of_instance), ..latest })
    }

    /// Returns the share of all keys below which the stale keys of an instance are to stay, 0–1: what it is held at, else what its
    /// auto-scan keeps, else 10 %.
    async fn target_share(&self, instance: &Instance) -> Result<f64, StoreError> {
        if let Some(hold) = self.store.hold(&instance.id).await?
            && hold.policy.level != HoldLevel::Observe
        {
            return Ok(hold.policy.below);
        }
        let config = self.store.auto_scan(&instance.id).await?.filter(|config| config.enabled);
        Ok(config.and_then(|config| config.target).map_or(DEFAULT_TARGET, TargetShare::share))
    }

    /// Returns the stale shares of several instances by their latest estimates and scans, as far as these say anything, by id.
    pub async fn latest_shares(&self, instances: &[Instance]) -> Result<HashMap<String, LatestShare>, InstanceError> {
        let ids: Vec<String> = instances.iter().map(|instance| instance.id.clone()).collect();
        let estimates: HashMap<_, _> = self.store.latest_totals_of(&ids).await?.into_iter().collect();
        let scans: HashMap<String, LastScan> = self.store.last_scans(&ids).await?.into_iter().collect();
        let now = now();
        let share = |id: String| {
            let share = LatestShare::new(estimates.get(&id), scans.get(&id), now)?;
            Some((id, share))
        };
        Ok(ids.into_iter().filter_map(share).collect())
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
    fn an_estimate_that_sampled_nothing_is_repeated_within_an_hour_and_all_are_spread() {
        let found = |method| Estimate {
            target: String::new(),
            total: Finding::default(),
            primaries: vec![PrimaryEstimate {
                finding: Finding {
                    share_of_expiring: Some(0.2),
                    expiry_rate: Some(100.0),
                    keys_with_ttl: 10_000_000,
                    method: Some(method),
                    ..Finding::default()
                },
                ..PrimaryEstimate::default()
            }],
        };
        for (method, least) in [(Method::Sample, 40_000.0), (Method::Replica, 3_600.0), (Method::Info, 3_600.0)] {
            let next = next_estimate(&found(method)).as_secs_f64();
            assert!((least..=least * (1.0 + SPREAD)).contains(&next), "{method:?}: {next}");
        }
    }
}

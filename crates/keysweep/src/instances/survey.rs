//! Surveys: the instances of a project are estimated one after the other, and each of their primaries gets a verdict.
//!
//! A survey runs in the process that created it, which renews it while it does. Its rows are in the store, so that every replica
//! shows them; a survey whose process has ended is interrupted, and is not resumed: another one takes as long as the rest of it.

use std::time::Duration;

use jiff::Timestamp;
use keysweep_engine::{Method, stale::Code};
use tokio::task::JoinSet;

use super::{
    EstimateError, InstanceError, Instances,
    estimate::{Estimated, Wanted},
    sampling::MAX_COUNTED,
};
use crate::{
    model::{
        AuditEvent, DEFAULT_TARGET, Instance, InstanceEstimate, Labels, Sampling, Survey, SurveyRow, SurveyStatus, now,
    },
    random::new_id,
    store::{Store, StoreError},
};

/// Most instances of one survey.
pub const MAX_INSTANCES: usize = 1_000;
/// How long the estimate of one instance may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a survey counts as running without a renewal.
const LEASE: Duration = Duration::from_secs(30);
/// Time between two renewals.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

/// What to survey.
#[derive(Debug, Clone)]
pub struct SurveyRequest {
    /// Stale share to stay below, 0–1.
    pub target: f64,
    /// Labels that the instances have.
    pub labels: Labels,
    /// Whether no key is reclaimed, whatever the instances allow.
    pub no_reclaim: bool,
}

impl Default for SurveyRequest {
    fn default() -> Self {
        Self { target: DEFAULT_TARGET, labels: Labels::default(), no_reclaim: false }
    }
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The target is no share.
    #[error("invalid below {0}: give a share above 0 and below 1, for example 0.1 for 10 %")]
    Target(f64),
    /// No instance has the labels.
    #[error("no instance has these labels; leave some out")]
    Nothing,
    /// Too many instances have the labels.
    #[error("{0} instances are too many for one survey, at most {MAX_INSTANCES}; select some of them by labels")]
    TooMany(usize),
    /// Another survey of the project runs; holds its id.
    #[error("survey {0} of this project is running; wait until it is done")]
    Running(String),
    /// The instances cannot be read, or the store failed.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl From<StoreError> for SurveyError {
    fn from(error: StoreError) -> Self {
        Self::Instance(error.into())
    }
}

impl Instances {
    /// Creates a survey of a project's instances and runs it in this process. Returns it as it is then, without rows.
    pub async fn start_survey(
        &self,
        project_id: &str,
        request: SurveyRequest,
        by: Option<&str>,
    ) -> Result<Survey, SurveyError> {
        if !(request.target > 0.0 && request.target < 1.0) {
            return Err(SurveyError::Target(request.target));
        }
        let labels: Vec<_> = request.labels.iter().collect();
        let (instances, share) = self.select(project_id, &labels).await?.into_parts();
        match instances.len() {
            0 => return Err(SurveyError::Nothing),
            1..=MAX_INSTANCES => {}
            many => return Err(SurveyError::TooMany(many)),
        }
        let survey = Survey {
            id: new_id(),
            project_id: project_id.to_owned(),
            triggered_by: by.map(str::to_owned),
            created_at: now(),
            finished_at: None,
            status: SurveyStatus::Running,
            target: request.target,
            labels: request.labels.clone(),
            instances: instances.len() as u64,
            surveyed: 0,
            rows: Vec::new(),
        };
        let event =
            AuditEvent { project_id: Some(project_id), actor: by, action: "survey.create", subject: &survey.id };
        let detail = serde_json::json!({
            "instances": survey.instances, "labels": request.labels.as_map(), "below": request.target,
            "no_reclaim": request.no_reclaim,
        });
        let store = self.store.with_audit(vec![event.entry(&detail)]);
        if let Some(running) = store.add_survey(&survey, LEASE).await? {
            return Err(SurveyError::Running(running));
        }
        tracing::info!(survey_id = survey.id, instances = survey.instances, triggered_by = by, "survey created");
        let (this, id) = (self.clone(), survey.id.clone());
        tokio::spawn(async move {
            let _share = share;
            if let Err(error) = this.run_survey(&id, instances, &request).await {
                tracing::warn!(survey_id = id, %error, "survey interrupted");
            }
        });
        Ok(survey)
    }

    /// Returns a survey of a project with its rows.
    pub async fn survey(&self, project_id: &str, id: &str) -> Result<Option<Survey>, InstanceError> {
        Ok(self.store.survey(project_id, id).await?)
    }

    /// Returns the newest survey of a project with its rows.
    pub async fn latest_survey(&self, project_id: &str) -> Result<Option<Survey>, InstanceError> {
        Ok(self.store.latest_survey(project_id).await?)
    }

    async fn run_survey(&self, id: &str, instances: Vec<Instance>, request: &SurveyRequest) -> Result<(), StoreError> {
        // Ends with this call, however it ends.
        let mut renewal = JoinSet::new();
        renewal.spawn(renew(self.store.clone(), id.to_owned()));
        let mut running = JoinSet::new();
        for instance in instances {
            // The semaphore is never closed.
            let Ok(permit) = self.estimates.surveys.clone().acquire_owned().await else { break };
            let (this, id, request) = (self.clone(), id.to_owned(), request.clone());
            running.spawn(async move {
                let _permit = permit;
                let rows = this.survey_rows(&instance, &request).await?;
                this.store.add_survey_rows(&id, &instance.id, &rows, LEASE).await
            });
            while let Some(ended) = running.try_join_next() {
                saved(ended)?;
            }
        }
        while let Some(ended) = running.join_next().await {
            saved(ended)?;
        }
        self.store.finish_survey(id).await
    }

    /// Estimates an instance, as its sampling allows, and returns its rows.
    async fn survey_rows(&self, instance: &Instance, request: &SurveyRequest) -> Result<Vec<SurveyRow>, StoreError> {
        let wanted = Wanted {
            // What INFO says needs no count.
            method: (instance.sampling == Sampling::Off).then_some(Method::Info),
            may_sample: instance.sampling == Sampling::Primary && !request.no_reclaim,
            max_counted: MAX_COUNTED,
            timeout: TIMEOUT,
        };
        let name = || instance.name.clone();
        let unknown = |reason| SurveyRow::unknown(name(), Code::Unknown, reason);
        let found = match self.estimate_or_latest(instance, wanted).await {
            Ok(Estimated::New(found) | Estimated::Unsampled(found)) => {
                self.save_estimate(instance, &found).await?;
                Ok((InstanceEstimate::new(*found, request.target, now()), None))
            }
            Ok(Estimated::Latest(latest, wait)) => {
                let note = earlier(latest.taken_at, now(), wait);
                Ok((latest.for_target(request.target), Some(note)))
            }
            Err(EstimateError::Instance(InstanceError::Store(error))) => return Err(error),
            Err(EstimateError::Server(failure)) => Err(SurveyRow::unreached(name(), &failure, failure.message.clone())),
            Err(error) => Err(unknown(error.to_string())),
        };
        let mut rows = match found {
            Ok((found, note)) => {
                let taken_at = Some(found.taken_at);
                let row = |primary| {
                    let row = SurveyRow { taken_at, ..SurveyRow::of(name(), primary) };
                    SurveyRow { notes: row.notes.into_iter().chain(note.clone()).collect(), ..row }
                };
                found.for_instance(&instance.name).primaries.into_iter().map(row).collect()
            }
            Err(row) => vec![row],
        };
        for row in &mut rows {
            row.instance_id = Some(instance.id.clone());
        }
        Ok(rows)
    }
}

/// Returns the note of a row whose estimate is from before the survey. `wait`: how long until its servers may be sampled again.
fn earlier(taken_at: Timestamp, now: Timestamp, wait: Duration) -> String {
    let age = now.duration_since(taken_at).unsigned_abs();
    format!(
        "estimated {} before this survey, since a server was sampled a short time ago; it is sampled again in {} at the earliest",
        rounded(age),
        rounded(wait)
    )
}

/// Formats a time in its largest unit.
fn rounded(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// Renews a survey until it is finished.
async fn renew(store: Store, id: String) {
    loop {
        tokio::time::sleep(RENEWAL_INTERVAL).await;
        match store.renew_survey(&id, LEASE).await {
            Err(StoreError::Missing(_)) => return,
            Err(error) => tracing::debug!(survey_id = id, %error, "the survey cannot be renewed; retrying"),
            Ok(()) => {}
        }
    }
}

/// Passes on the failure to save rows. A crash leaves an instance without rows, and the survey goes on.
fn saved(ended: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Result<(), StoreError> {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the survey of an instance crashed");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_earlier_estimate_says_how_old_it_is_and_when_another_one_is_possible() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let note = |age, wait| earlier(at(0), at(age), Duration::from_secs(wait));
        assert!(note(5 * 3_600 + 59, 70_000).starts_with("estimated 5 h before this survey"));
        assert!(note(5 * 3_600, 70_000).ends_with("sampled again in 19 h at the earliest"));
        assert!(note(59, 241).contains("estimated 59 s") && note(59, 241).contains("again in 4 min"));
    }
}

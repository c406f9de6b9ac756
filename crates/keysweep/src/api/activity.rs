//! What is going on at instances: the newest task, the next scheduled scan, and the estimated stale share.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiState, error::ApiError, task::ListedTaskView};
use crate::{model::Instance, request::query_value, store::ProjectTask, task::schedule::next_run};

/// What is going on at an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActivityView {
    /// The newest task; null: none yet.
    last_task: Option<ListedTaskView>,
    /// When the schedule starts the next scan; null: it starts none.
    next_scan_at: Option<Timestamp>,
    /// Stale keys as a share of all keys, 0–1, as the latest estimate measured it or, if a scan has reclaimed keys since, as that
    /// left it; null: unknown.
    stale_share: Option<f64>,
    /// When the share was that.
    stale_share_at: Option<Timestamp>,
}

/// Returns whether a list of instances is to show their activity.
pub(super) fn is_wanted(query: &str) -> Result<bool, ApiError> {
    match query_value(query, "activity").as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            let other: String = other.chars().take(80).collect();
            Err(ApiError::Invalid(format!("invalid parameter activity {other:?}: write true or false")))
        }
    }
}

impl ApiState {
    /// Returns what is going on at each of these instances, by id.
    pub(super) async fn activity(&self, instances: &[Instance]) -> Result<HashMap<String, ActivityView>, ApiError> {
        let now = Timestamp::now();
        let newest = self.tasks.newest(instances).await?.into_iter();
        let mut newest: HashMap<String, _> = newest.map(|task| (task.instance_id.clone(), task)).collect();
        let schedules = self.instances.auto_scans(instances).await?.into_iter();
        let schedules: HashMap<String, _> = schedules.map(|config| (config.instance_id.clone(), config)).collect();
        let shares = self.instances.latest_shares(instances).await?;
        let activity = instances.iter().map(|instance| {
            let task = newest.remove(&instance.id);
            let last_end = task.as_ref().and_then(|task| task.finished_at);
            let config = schedules.get(&instance.id);
            let share = shares.get(&instance.id);
            let view = ActivityView {
                last_task: task.map(|task| ProjectTask { task, instance_name: instance.name.clone() }.into()),
                next_scan_at: config.and_then(|config| next_run(now, config, instance, last_end)),
                stale_share: share.map(|latest| latest.share),
                stale_share_at: share.map(|latest| latest.at),
            };
            (instance.id.clone(), view)
        });
        Ok(activity.collect())
    }
}

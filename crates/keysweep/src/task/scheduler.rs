//! Carries the schedule out: reads the plans that are due, and creates or skips their runs.

use jiff::Timestamp;

use super::{
    Tasks,
    schedule::{Due, due},
};
use crate::{
    model::{AutoScan, Gathering, NewTask, ScanType, hosts},
    random::new_id,
    store::{Plan, StoreError},
};

/// `scan_keys_count` counts keys every 5 ms.
const PER_SECOND: u64 = 200;
/// Plans that are read at a time.
const BATCH: u32 = 500;

impl Tasks {
    /// Checks every plan that is due to be checked. Returns how many runs were started.
    pub async fn keep_schedule(&self) -> Result<usize, StoreError> {
        let mut started = 0;
        loop {
            let due = self.store.due_plans(BATCH).await?;
            for plan in &due.plans {
                started += usize::from(self.follow(due.now, plan).await?);
            }
            if due.plans.len() < BATCH as usize {
                return Ok(started);
            }
        }
    }

    async fn follow(&self, now: Timestamp, plan: &Plan) -> Result<bool, StoreError> {
        if self.measure(plan).await? {
            // The plan stays due, and is read again with what was measured.
            return Ok(false);
        }
        match due(now, plan) {
            Due::Nothing { next_check_at } => self.store.reschedule(plan, plan.handled, next_check_at).await?,
            Due::Skip { due_at, cause, next_check_at } => {
                tracing::info!(instance_id = plan.instance.id, %due_at, %cause, "scheduled run skipped");
                self.store.reschedule(plan, Some(due_at), next_check_at).await?;
            }
            Due::Start { due_at, next_check_at } => {
                let new = NewTask {
                    id: new_id(),
                    project_id: plan.instance.project_id.clone(),
                    instance_id: plan.instance.id.clone(),
                    scan_type: ScanType::Auto,
                    triggered_by: None,
                    timeout: plan.config.timeout,
                    keys_per_second: Some(u64::from(plan.config.scan_keys_count) * PER_SECOND),
                    due_at: Some(due_at),
                    hosts: hosts(&plan.instance),
                    history_retention: self.history_retention,
                };
                let span = self.begin_creation(&new);
                // Another replica may have been faster, or a manual task, or an operator who changed something.
                if let Some(task) = self.store.start_run(plan, &new, next_check_at).await? {
                    tracing::info!(task_id = task.id, instance_id = task.instance_id, %due_at, "scheduled task created");
                    self.hint.notify_one();
                    return Ok(true);
                }
                span.forget();
            }
        }
        Ok(false)
    }

    /// Saves what the last successful scan has measured for an adaptive interval, unless it is saved already. Returns whether
    /// something was saved.
    async fn measure(&self, plan: &Plan) -> Result<bool, StoreError> {
        let (config, project) = (&plan.config, &plan.instance.project_id);
        let (Some(target), Some(last)) = (config.target, &plan.last_scan) else { return Ok(false) };
        if config.gathering.as_ref().is_some_and(|gathering| gathering.task_id == *last) {
            return Ok(false);
        }
        let Some(scan) = self.store.task(project, last).await? else { return Ok(false) };
        let Some(gathering) = Gathering::after(config.gathering.as_ref(), &scan, target) else { return Ok(false) };
        self.store.record_gathering(&config.instance_id, &gathering).await?;
        let saved = AutoScan { gathering: Some(gathering), ..config.clone() };
        if let (Some(before), Some(after)) = (config.adaptive(), saved.adaptive())
            && before.hold != after.hold
        {
            let (instance_id, hold) = (&config.instance_id, after.hold.as_str());
            tracing::info!(instance_id, target = %target, hold, "adaptive auto-scan");
        }
        Ok(true)
    }
}

/// The highest rate that a schedule may have stays far from this type's limit.
const _: () = assert!(u32::MAX as u64 * PER_SECOND < i64::MAX as u64);

//! The fleet at a glance, for metrics: figures of active tasks and of the last polls, never a read of all records.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Store, StoreError,
    auto_scan::auto_scan,
    db::{Row, sql},
    instances::stats,
};
use crate::model::{Adaptive, AutoScan, InstanceStats};

/// The fleet at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// Tasks that wait.
    pub waiting: u64,
    /// Tasks that run.
    pub running: u64,
    /// Running tasks that may be claimed: their lease was released, or has expired because a worker died.
    pub unattended: u64,
    /// For how long the task that has waited longest could have been started; zero when none waits in vain.
    pub longest_wait: Duration,
    /// Age of the oldest check of a schedule that is due and not yet done.
    pub schedule_lag: Duration,
    /// Every registered instance.
    pub instances: Vec<InstanceOverview>,
}

/// One instance in an [`Overview`].
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceOverview {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The name of its project.
    pub project: String,
    /// What the last successful poll returned.
    pub stats: Option<InstanceStats>,
    /// Whether the last poll succeeded; `None` before the first one.
    pub reachable: Option<bool>,
    /// When its newest successful task finished, of those whose records are kept.
    pub last_success: Option<Timestamp>,
    /// Interval between scheduled runs; `None` without an enabled auto-scan, before its first run, and while paused.
    pub auto_scan_interval: Option<Duration>,
    /// Since when its scans have been due: from the first one on, or since the instance was resumed. `None` without an
    /// interval.
    pub scans_since: Option<Timestamp>,
    /// The mean stale share that its auto-scan keeps, and how; `None` with a fixed interval, and without an interval.
    pub adaptive: Option<Adaptive>,
    /// The mean stale share between the last two scans of such an auto-scan, 0–1; `None`: there were not two scans yet.
    pub mean_share: Option<f64>,
}

impl Store {
    /// Returns the fleet as it is now, from one state of the database. The cost grows with the active tasks and the
    /// instances.
    pub async fn overview(&self) -> Result<Overview, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let now = self.now(&mut snapshot).await?;
        let tasks = sql("SELECT COUNT(CASE WHEN status = 'waiting' THEN 1 END) AS waiting,
                    COUNT(CASE WHEN status = 'running' THEN 1 END) AS running,
                    COUNT(CASE WHEN status = 'running' AND (not_before IS NULL OR not_before <= $1)
                                AND (lease.owner IS NULL OR lease.expires_at <= $1) THEN 1 END) AS unattended,
                    MIN(CASE WHEN status = 'waiting' THEN COALESCE(not_before, created_at) END) AS waits_since
             FROM task LEFT JOIN lease ON lease.instance_id = task.instance_id
             WHERE status IN ('waiting', 'running')")
        .bind(now)
        .one(&mut snapshot)
        .await?;
        // Settings that the schedule has not checked yet are due since they were saved.
        let due = sql("SELECT MIN(CASE WHEN look_at IS NULL OR seen_at IS NULL OR seen_at <> updated_at
                             THEN updated_at ELSE look_at END) AS due_since
             FROM auto_scan WHERE enabled")
        .one(&mut snapshot)
        .await?;
        let instances = sql("SELECT auto_scan.*, instance.id, instance.name, project.name AS project, instance.facts, instance.unreachable IS NOT NULL AS is_unreachable,
                    CASE WHEN auto_scan.enabled AND NOT instance.paused AND auto_scan.first_scan_at <= $1
                         THEN auto_scan.interval_us END AS due_interval_us,
                    CASE WHEN auto_scan.enabled AND NOT instance.paused AND auto_scan.first_scan_at <= $1
                         THEN CASE WHEN instance.resumed_at > auto_scan.first_scan_at
                                   THEN instance.resumed_at ELSE auto_scan.first_scan_at END END AS scans_since,
                    (
                        SELECT finished_at FROM task WHERE task.instance_id = instance.id AND status = 'success'
                        ORDER BY seq DESC LIMIT 1
                    ) AS last_success
             FROM instance JOIN project ON project.id = instance.project_id
                  LEFT JOIN auto_scan ON auto_scan.instance_id = instance.id
             ORDER BY instance.id")
        .bind(now)
        .list(&mut snapshot, instance_overview)
        .await?;
        snapshot.commit().await?;
        Ok(Overview {
            waiting: tasks.get("waiting")?,
            running: tasks.get("running")?,
            unattended: tasks.get("unattended")?,
            longest_wait: elapsed(tasks.get("waits_since")?, now),
            schedule_lag: elapsed(due.get("due_since")?, now),
            instances,
        })
    }
}

/// Returns the time from `since` to `now`; zero when `since` is absent or yet to come.
fn elapsed(since: Option<Timestamp>, now: Timestamp) -> Duration {
    since.and_then(|since| now.duration_since(since).try_into().ok()).unwrap_or_default()
}

fn instance_overview(row: &Row) -> Result<InstanceOverview, StoreError> {
    // Metrics leave out stats that cannot be read; lists name them.
    let stats = stats(row).unwrap_or(None);
    let interval: Option<Duration> = row.get("due_interval_us")?;
    let config = interval.map(|_| auto_scan(row)).transpose()?;
    let adaptive = config.as_ref().and_then(AutoScan::adaptive);
    let gathering = config.and_then(|config| config.gathering).filter(|_| adaptive.is_some());
    Ok(InstanceOverview {
        id: row.get("id")?,
        name: row.get("name")?,
        project: row.get("project")?,
        reachable: match row.get("is_unreachable")? {
            true => Some(false),
            false => stats.is_some().then_some(true),
        },
        stats,
        last_success: row.get("last_success")?,
        scans_since: row.get("scans_since")?,
        auto_scan_interval: adaptive.map(|adaptive| adaptive.interval).or(interval),
        adaptive,
        mean_share: gathering.and_then(|gathering| gathering.mean_share()),
    })
}

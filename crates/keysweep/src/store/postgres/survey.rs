//! The fleet at a glance.

use sqlx::PgConnection;

use super::{
    fault::Fault,
    row::{self, Reader},
};
use crate::store::Overview;

pub(super) async fn overview(db: &mut PgConnection, now: i64) -> Result<Overview, Fault> {
    let tasks = sqlx::query(
        "SELECT COUNT(CASE WHEN status = 'waiting' THEN 1 END) AS waiting,
                COUNT(CASE WHEN status = 'running' THEN 1 END) AS running,
                COUNT(CASE WHEN status = 'running' AND (not_before IS NULL OR not_before <= $1)
                            AND (lease.owner IS NULL OR lease.expires_at <= $1) THEN 1 END) AS unattended,
                MIN(CASE WHEN status = 'waiting' THEN COALESCE(not_before, created_at) END) AS waits_since
         FROM task LEFT JOIN lease ON lease.instance_id = task.instance_id
         WHERE status IN ('waiting', 'running')",
    )
    .bind(now)
    .fetch_one(&mut *db)
    .await?;
    // Settings that the schedule has not seen yet are due since they were made.
    let due_since: Option<i64> = sqlx::query_scalar(
        "SELECT MIN(CASE WHEN look_at IS NULL OR seen_at IS NULL OR seen_at <> updated_at THEN updated_at ELSE look_at END)
         FROM auto_scan WHERE enabled",
    )
    .fetch_one(&mut *db)
    .await?;
    let instances = sqlx::query(
        "SELECT instance.id, instance.facts, instance.unreachable IS NOT NULL AS is_unreachable,
                CASE WHEN auto_scan.enabled AND NOT instance.paused AND auto_scan.first_scan_at <= $1
                     THEN auto_scan.interval_us END AS interval_us,
                CASE WHEN auto_scan.enabled AND NOT instance.paused AND auto_scan.first_scan_at <= $1
                     THEN GREATEST(auto_scan.first_scan_at, COALESCE(instance.resumed_at, auto_scan.first_scan_at)) END AS scans_since,
                (
                    SELECT finished_at FROM task WHERE task.instance_id = instance.id AND status = 'success'
                    ORDER BY seq DESC LIMIT 1
                ) AS last_success
         FROM instance LEFT JOIN auto_scan ON auto_scan.instance_id = instance.id
         ORDER BY instance.id",
    )
    .bind(now)
    .fetch_all(db)
    .await?;
    let tasks = Reader(&tasks);
    Ok(Overview {
        waiting: tasks.count("waiting")?,
        running: tasks.count("running")?,
        unattended: tasks.count("unattended")?,
        longest_wait: row::since(tasks.get("waits_since")?, now),
        schedule_lag: row::since(due_since, now),
        instances: instances.iter().map(row::instance_overview).collect::<Result<_, _>>()?,
    })
}

//! How instances are swept by themselves.

use sqlx::PgConnection;

use super::{
    fault::{Fault, missing},
    row::{self, micros, span},
};
use crate::model::AutoScan;

pub(super) async fn get(db: &mut PgConnection, instance_id: &str) -> Result<Option<AutoScan>, Fault> {
    let found =
        sqlx::query("SELECT * FROM auto_scan WHERE instance_id = $1").bind(instance_id).fetch_optional(db).await?;
    Ok(found.as_ref().map(row::auto_scan).transpose()?)
}

pub(super) async fn several(db: &mut PgConnection, instance_ids: &[String]) -> Result<Vec<AutoScan>, Fault> {
    let found =
        sqlx::query("SELECT * FROM auto_scan WHERE instance_id = ANY ($1)").bind(instance_ids).fetch_all(db).await?;
    Ok(found.iter().map(row::auto_scan).collect::<Result<_, _>>()?)
}

/// What was set before is left as it is, with the run that may be pending, where it is set again unchanged.
pub(super) async fn set(db: &mut PgConnection, config: &AutoScan) -> Result<AutoScan, Fault> {
    let kept = sqlx::query(
        "INSERT INTO auto_scan (
             instance_id, enabled, first_scan_at, interval_us, timeout_us, scan_keys_count, updated_at
         ) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (instance_id) DO UPDATE SET
             updated_at = CASE WHEN
                 (auto_scan.enabled, auto_scan.interval_us, auto_scan.timeout_us, auto_scan.scan_keys_count)
                     = (excluded.enabled, excluded.interval_us, excluded.timeout_us, excluded.scan_keys_count)
                 AND auto_scan.first_scan_at IS NOT DISTINCT FROM excluded.first_scan_at
                 THEN auto_scan.updated_at ELSE excluded.updated_at END,
             enabled = excluded.enabled, first_scan_at = excluded.first_scan_at, interval_us = excluded.interval_us,
             timeout_us = excluded.timeout_us, scan_keys_count = excluded.scan_keys_count
         RETURNING *",
    )
    .bind(&config.instance_id)
    .bind(config.enabled)
    .bind(config.first_scan_at.map(micros))
    .bind(span(config.interval))
    .bind(span(config.timeout))
    .bind(i64::from(config.scan_keys_count))
    .bind(micros(config.updated_at))
    .fetch_one(db)
    .await
    .map_err(missing("instance"))?;
    Ok(row::auto_scan(&kept)?)
}

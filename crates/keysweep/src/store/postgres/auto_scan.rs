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

/// What was set before is left as it is, with the run that may be pending, where it is set again unchanged. Nothing is kept
/// where what was set is no longer what `before` was seen as: with none, no row is like it.
pub(super) async fn set(
    db: &mut PgConnection,
    before: Option<&AutoScan>,
    config: &AutoScan,
) -> Result<Option<AutoScan>, Fault> {
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
         WHERE (auto_scan.enabled, auto_scan.interval_us, auto_scan.timeout_us, auto_scan.scan_keys_count)
                   = ($8, $9, $10, $11)
             AND auto_scan.first_scan_at IS NOT DISTINCT FROM $12
         RETURNING *",
    )
    .bind(&config.instance_id)
    .bind(config.enabled)
    .bind(config.first_scan_at.map(micros))
    .bind(span(config.interval))
    .bind(span(config.timeout))
    .bind(i64::from(config.scan_keys_count))
    .bind(micros(config.updated_at))
    .bind(before.map(|before| before.enabled))
    .bind(before.map(|before| span(before.interval)))
    .bind(before.map(|before| span(before.timeout)))
    .bind(before.map(|before| i64::from(before.scan_keys_count)))
    .bind(before.and_then(|before| before.first_scan_at).map(micros))
    .fetch_optional(db)
    .await
    .map_err(missing("instance"))?;
    Ok(kept.as_ref().map(row::auto_scan).transpose()?)
}

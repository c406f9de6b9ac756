//! Auto-scan settings of instances.

use super::{
    Store, StoreError,
    db::{Row, forked, keys, sql},
    json,
};
use crate::model::{AutoScan, Gathering, TargetShare};

/// Version of the JSON in which measurements are stored.
const GATHERING_VERSION: u32 = 1;

impl Store {
    /// Returns the instance's auto-scan settings, if any were saved.
    pub async fn auto_scan(&self, instance_id: &str) -> Result<Option<AutoScan>, StoreError> {
        let found = sql("SELECT * FROM auto_scan WHERE instance_id = $1").bind(instance_id);
        found.optional(&mut self.reader().await?).await?.as_ref().map(auto_scan).transpose()
    }

    /// Returns the auto-scan settings of those of the instances that have any.
    pub async fn auto_scans(&self, instance_ids: &[String]) -> Result<Vec<AutoScan>, StoreError> {
        // PostgreSQL expects a hundred keys and reads the whole table for them, but ten elements of an array.
        forked(
            "SELECT * FROM auto_scan WHERE instance_id IN (SELECT key FROM json_each($1))",
            "SELECT * FROM auto_scan WHERE instance_id = ANY (ARRAY(SELECT key FROM json_each($1::json)))",
        )
        .bind(keys(instance_ids))
        .list(&mut self.reader().await?, auto_scan)
        .await
    }

    /// Saves an instance's auto-scan settings in place of those that were read as `before`, without what scans have measured.
    /// Returns what is saved: the time of change stays, and so does a pending run, when nothing else changes. Returns `None`, and does nothing, when the
    /// settings have changed since. `Missing` when the instance does not exist.
    pub async fn set_auto_scan(
        &self,
        before: Option<&AutoScan>,
        config: &AutoScan,
    ) -> Result<Option<AutoScan>, StoreError> {
        let mut tx = self.begin_request().await?;
        // Without a `before` its placeholders are NULL, which no row equals.
        let saved = sql("INSERT INTO auto_scan (
                 instance_id, enabled, first_scan_at, interval_us, timeout_us, scan_keys_count, updated_at,
                 first_scan_text, target_millionths
             ) VALUES ($1, $2, $3, $4, $5, $6, $7, $13, $14)
             ON CONFLICT (instance_id) DO UPDATE SET
                 updated_at = CASE WHEN
                     (auto_scan.enabled, auto_scan.interval_us, auto_scan.timeout_us, auto_scan.scan_keys_count)
                         = (excluded.enabled, excluded.interval_us, excluded.timeout_us, excluded.scan_keys_count)
                     AND auto_scan.first_scan_at IS NOT DISTINCT FROM excluded.first_scan_at
                     AND auto_scan.target_millionths IS NOT DISTINCT FROM excluded.target_millionths
                     THEN auto_scan.updated_at ELSE excluded.updated_at END,
                 enabled = excluded.enabled, first_scan_at = excluded.first_scan_at, interval_us = excluded.interval_us,
                 timeout_us = excluded.timeout_us, scan_keys_count = excluded.scan_keys_count,
                 first_scan_text = excluded.first_scan_text, target_millionths = excluded.target_millionths
             WHERE (auto_scan.enabled, auto_scan.interval_us, auto_scan.timeout_us, auto_scan.scan_keys_count)
                       = ($8, $9, $10, $11)
                 AND auto_scan.first_scan_at IS NOT DISTINCT FROM $12
                 AND auto_scan.target_millionths IS NOT DISTINCT FROM $15
             RETURNING *")
        .bind(&config.instance_id)
        .bind(config.enabled)
        .bind(config.first_scan_at)
        .bind(config.interval)
        .bind(config.timeout)
        .bind(config.scan_keys_count)
        .bind(config.updated_at)
        .bind(before.map(|before| before.enabled))
        .bind(before.map(|before| before.interval))
        .bind(before.map(|before| before.timeout))
        .bind(before.map(|before| before.scan_keys_count))
        .bind(before.and_then(|before| before.first_scan_at))
        .bind(config.first_scan_text.as_deref())
        .bind(config.target.map(TargetShare::millionths))
        .bind(before.and_then(|before| before.target).map(TargetShare::millionths))
        .refers_to("instance")
        .optional(&mut tx)
        .await?;
        let Some(saved) = saved else {
            tx.roll_back().await;
            return Ok(None);
        };
        self.commit(tx).await?;
        auto_scan(&saved).map(Some)
    }

    /// Saves what scans of an instance have measured. Of replicas that do so at once any may be the last: each starts from what
    /// is stored, and adds the same scan.
    pub async fn record_gathering(&self, instance_id: &str, gathering: &Gathering) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sql("UPDATE auto_scan SET gathering = $1 WHERE instance_id = $2")
            .bind(json::write_versioned("measurements", GATHERING_VERSION, gathering)?)
            .bind(instance_id)
            .execute(&mut tx)
            .await?;
        self.commit(tx).await
    }
}

pub(super) fn auto_scan(row: &Row) -> Result<AutoScan, StoreError> {
    Ok(AutoScan {
        instance_id: row.get("instance_id")?,
        enabled: row.get("enabled")?,
        first_scan_at: row.get("first_scan_at")?,
        first_scan_text: row.get("first_scan_text")?,
        interval: row.get("interval_us")?,
        timeout: row.get("timeout_us")?,
        scan_keys_count: row.get("scan_keys_count")?,
        target: row.get::<Option<u32>>("target_millionths")?.and_then(TargetShare::from_millionths),
        gathering: gathering(row)?,
        updated_at: row.get("updated_at")?,
    })
}

/// Reads the measurements. Those of another version are none: the next scans measure anew.
fn gathering(row: &Row) -> Result<Option<Gathering>, StoreError> {
    let stored = row.get::<Option<String>>("gathering")?;
    Ok(stored.and_then(|stored| json::read_versioned("measurements", GATHERING_VERSION, &stored).ok()))
}

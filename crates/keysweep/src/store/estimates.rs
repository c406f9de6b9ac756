//! Estimates of stale keys: when each instance is due for one, the latest, and the history of 90 days.
//!
//! An instance has one row of history an hour, the last estimate of that hour, and after seven days one a day. A row holds all
//! primaries, so that the rows of an instance are bounded whatever the size of its cluster.

use std::time::Duration;

use jiff::Timestamp;
use keysweep_engine::MIN_SAMPLE_INTERVAL;

use super::{
    Store, StoreError,
    clock::after,
    db::{DbSession, Row, keys, sql},
    hold::held_shares,
    instances::{claim_in_turn, stats},
    json,
    marks::{insert_mark, last_scans_of, marks_of},
};
use crate::model::{
    EstimatePoint, EstimateTotal, Instance, InstanceEstimate, LatestEstimate, MarkKind, PrimaryPoint, SettingChange,
};

/// The form of the JSON that this version writes.
const VERSION: u32 = 1;
/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;
/// Hours after which one row a day is kept.
const HOURLY: i64 = 7 * 24;
/// Hours after which no row is kept, and no mark.
const DAILY: i64 = 90 * 24;
/// Most primaries in a row of the history: the largest ones.
const MAX_PRIMARIES: usize = 256;

/// What [`Store::prune_estimates`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows of estimates.
    pub points: u64,
    /// Marks.
    pub marks: u64,
    /// Times of samples that have passed.
    pub samples: u64,
}

impl Store {
    /// Claims up to `limit` instances whose background estimate is due, the longest due first, those of the projects `last` after
    /// all others. No other replica claims them for the time of the lease. Instances that are paused, unreachable or being scanned
    /// are left out.
    pub async fn claim_estimates(
        &self,
        lease: Duration,
        limit: u32,
        last: &[String],
    ) -> Result<Vec<Instance>, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let claim = |limit: u32, left_out: &[String]| {
            // Those that another replica claims at this moment are left to it.
            sql("UPDATE instance SET estimate_at = $1 WHERE id IN (
                     SELECT id FROM instance
                     WHERE sampling <> 'off' AND NOT paused AND facts IS NOT NULL AND unreachable IS NULL
                         AND (estimate_at IS NULL OR estimate_at <= $2)
                         AND project_id NOT IN (SELECT key FROM json_each($4/*!::json*/))
                         AND NOT EXISTS (
                             SELECT 1 FROM task
                             WHERE task.instance_id = instance.id AND task.status IN ('waiting', 'running')
                         )
                     ORDER BY estimate_at NULLS FIRST LIMIT $3 /*! FOR UPDATE SKIP LOCKED */
                 ) RETURNING *")
            .bind(after(now, lease))
            .bind(now)
            .bind(limit)
            .bind(keys(left_out))
        };
        let claimed = claim_in_turn(&mut tx, limit, last, claim).await?;
        self.commit(tx).await?;
        Ok(claimed)
    }

    /// Saves an estimate of an instance as its latest and in its history, and when the next one is due in the background. In the
    /// history a share that holding the instance has sampled within the last hour stands for a hint or for none. Settings
    /// of the expiry cycle that differ from those of the estimate before, and that keysweep did not write, become marks. `Missing`
    /// when the instance does not exist or has another URL by now.
    pub async fn record_estimate(
        &self,
        instance: &Instance,
        found: &InstanceEstimate,
        next: Duration,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        set_due(&mut tx, instance, after(now, next)).await?;
        for change in changed_settings(&mut tx, instance, found).await? {
            insert_mark(&mut tx, now, &instance.id, MarkKind::Config, &change.detail()).await?;
        }
        let latest = json::write("estimates", found)?;
        sql("INSERT INTO estimate (instance_id, taken_at, version, latest, failure) VALUES ($1, $2, $3, $4, NULL)
             ON CONFLICT (instance_id) DO UPDATE SET
                 taken_at = excluded.taken_at, version = excluded.version, latest = excluded.latest, failure = NULL")
        .bind(&instance.id)
        .bind(found.taken_at)
        .bind(VERSION)
        .bind(latest)
        .execute(&mut tx)
        .await?;
        let sampled = held_shares(&mut tx, &instance.id, Duration::from_micros(HOUR.unsigned_abs()), now).await?;
        let measured = |point: PrimaryPoint| match sampled.get(&point.address) {
            Some(share) if point.approximate || point.share.is_none() => point.measured(*share),
            _ => point,
        };
        let mut primaries: Vec<PrimaryPoint> = found.primaries.iter().map(PrimaryPoint::from).map(measured).collect();
        if primaries.len() > MAX_PRIMARIES {
            primaries.sort_by_key(|primary| std::cmp::Reverse(primary.keys));
            primaries.truncate(MAX_PRIMARIES);
        }
        let hour = found.taken_at.as_microsecond().div_euclid(HOUR);
        sql("INSERT INTO estimate_point (instance_id, hour, taken_at, version, primaries) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (instance_id, hour) DO UPDATE SET
                 taken_at = excluded.taken_at, version = excluded.version, primaries = excluded.primaries")
        .bind(&instance.id)
        .bind(hour)
        .bind(found.taken_at)
        .bind(VERSION)
        .bind(json::write("estimates", &primaries)?)
        .execute(&mut tx)
        .await?;
        sql("DELETE FROM estimate_point WHERE instance_id = $1 AND (
                 hour < $3 OR hour < $2 AND EXISTS (
                     SELECT 1 FROM estimate_point AS later
                     WHERE later.instance_id = $1 AND later.hour > estimate_point.hour
                         AND later.hour / 24 = estimate_point.hour / 24
                 )
             )")
        .bind(&instance.id)
        .bind(hour - HOURLY)
        .bind(hour - DAILY)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await
    }

    /// Saves why an estimate failed, and when the next one is due; the latest estimate stays. `Missing` when the instance
    /// does not exist or has another URL by now.
    pub async fn record_estimate_failure(
        &self,
        instance: &Instance,
        cause: &str,
        next: Duration,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        set_due(&mut tx, instance, after(now, next)).await?;
        sql("INSERT INTO estimate (instance_id, failure) VALUES ($1, $2)
             ON CONFLICT (instance_id) DO UPDATE SET failure = excluded.failure")
        .bind(&instance.id)
        .bind(cause)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await
    }

    /// Saves that the next background estimate of an instance is due after a time.
    pub async fn defer_estimate(&self, instance: &Instance, next: Duration) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        set_due(&mut tx, instance, after(now, next)).await?;
        self.commit(tx).await
    }

    /// Returns the latest estimate of an instance, with the scan since then.
    pub async fn latest_estimate(&self, instance_id: &str) -> Result<LatestEstimate, StoreError> {
        let mut reader = self.reader().await?;
        let row = sql("SELECT * FROM estimate WHERE instance_id = $1").bind(instance_id).optional(&mut reader).await?;
        let latest = row.as_ref().map(latest).transpose()?.unwrap_or_default();
        let Some(taken_at) = latest.estimate.as_ref().map(|estimate| estimate.taken_at) else { return Ok(latest) };
        let scan = last_scans_of(&mut reader, &[instance_id.to_owned()]).await?.pop().map(|(_, scan)| scan);
        Ok(LatestEstimate { scanned_since: scan.filter(|scan| scan.is_after(taken_at)), ..latest })
    }

    /// Returns the totals of the latest estimate of every instance that has one, with the instance's id. Primaries are not decoded:
    /// their number has no bound that metrics could bear.
    pub async fn latest_totals(&self) -> Result<Vec<(String, EstimateTotal)>, StoreError> {
        let rows =
            sql("SELECT instance_id, version, latest FROM estimate WHERE latest IS NOT NULL ORDER BY instance_id");
        let found = rows.list(&mut self.reader().await?, latest_total).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Returns the totals of the latest estimates of those of these instances that have one, with the ids of the instances.
    pub async fn latest_totals_of(&self, instance_ids: &[String]) -> Result<Vec<(String, EstimateTotal)>, StoreError> {
        let rows = sql("SELECT instance_id, version, latest FROM estimate
             WHERE latest IS NOT NULL AND instance_id IN (SELECT key FROM json_each($1/*!::json*/))");
        let found = rows.bind(keys(instance_ids)).list(&mut self.reader().await?, latest_total).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Returns an instance's history from a time on, oldest first.
    pub async fn estimates_since(&self, instance_id: &str, from: Timestamp) -> Result<Vec<EstimatePoint>, StoreError> {
        let rows =
            sql("SELECT * FROM estimate_point WHERE instance_id = $1 AND hour >= $2 AND taken_at >= $3 ORDER BY hour")
                .bind(instance_id)
                .bind(from.as_microsecond().div_euclid(HOUR))
                .bind(from);
        let read = |row: &Row| {
            let primaries = json::read_column(row, "primaries", VERSION)?;
            Ok(primaries.map(|primaries| (row.get("taken_at"), primaries)))
        };
        let points = rows.list(&mut self.reader().await?, read).await?;
        points.into_iter().flatten().map(|(at, primaries)| Ok(EstimatePoint { taken_at: at?, primaries })).collect()
    }

    /// Removes up to `limit` points and marks each that are older than 90 days, of any instance, and times of samples that have
    /// passed. Estimates remove points and marks of their own instance; this verb is for instances that are not estimated any more.
    pub async fn prune_estimates(&self, limit: u32) -> Result<Pruned, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let oldest = now.as_microsecond().div_euclid(HOUR) - DAILY;
        let points = sql("DELETE FROM estimate_point WHERE (instance_id, hour) IN (
                 SELECT instance_id, hour FROM estimate_point WHERE hour < $1 LIMIT $2
             )")
        .bind(oldest)
        .bind(limit)
        .execute(&mut tx)
        .await?;
        let marks = sql("DELETE FROM mark WHERE seq IN (SELECT seq FROM mark WHERE happened_at < $1 LIMIT $2)")
            .bind(oldest * HOUR)
            .bind(limit)
            .execute(&mut tx)
            .await?;
        let samples = sql("DELETE FROM server_sample WHERE (address, run_id) IN (
                 SELECT address, run_id FROM server_sample WHERE next_at <= $1 LIMIT $2
             ) AND next_at <= $1")
        .bind(now)
        .bind(limit)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await?;
        Ok(Pruned { points, marks, samples })
    }
}

/// Reads the totals of a latest estimate, with the id of its instance; `None`: there was no estimate yet.
fn latest_total(row: &Row) -> Result<Option<(String, EstimateTotal)>, StoreError> {
    let total = json::read_column(row, "latest", VERSION)?;
    let id = row.get("instance_id")?;
    Ok(total.map(|total| (id, total)))
}

/// Lets an instance be estimated, and its servers sampled, five minutes after a scan. Times that are earlier stay.
pub(super) async fn estimate_soon(tx: &mut DbSession, now: Timestamp, instance_id: &str) -> Result<(), StoreError> {
    let soon = after(now, MIN_SAMPLE_INTERVAL);
    sql("UPDATE instance SET estimate_at = $1 WHERE id = $2 AND estimate_at > $1")
        .bind(soon)
        .bind(instance_id)
        .execute(tx)
        .await?;
    let row = sql("SELECT facts FROM instance WHERE id = $1").bind(instance_id).optional(tx).await?;
    // Without readable stats the servers are unknown, and their own times stay.
    let Some(stats) = row.and_then(|row| stats(&row).unwrap_or(None)) else { return Ok(()) };
    sql("UPDATE server_sample SET next_at = $1 WHERE (address, run_id) IN (
             SELECT address, run_id FROM server_sample
             WHERE next_at > $1 AND address IN (SELECT key FROM json_each($2/*!::json*/))
             ORDER BY address, run_id /*! FOR UPDATE */
         )")
    .bind(soon)
    .bind(keys(&stats.sampled_addresses()))
    .execute(tx)
    .await?;
    Ok(())
}

/// Saves when the next background estimate is due, if the instance still has this URL.
async fn set_due(tx: &mut DbSession, instance: &Instance, due: Timestamp) -> Result<(), StoreError> {
    sql("UPDATE instance SET estimate_at = $1 WHERE id = $2 AND url = $3")
        .bind(due)
        .bind(&instance.id)
        .bind(instance.url.text())
        .change("instance", tx)
        .await
}

/// Returns the settings that differ from those of the latest estimate, as far as no mark says that they were changed since.
async fn changed_settings(
    tx: &mut DbSession,
    instance: &Instance,
    found: &InstanceEstimate,
) -> Result<Vec<SettingChange>, StoreError> {
    let row = sql("SELECT * FROM estimate WHERE instance_id = $1").bind(&instance.id).optional(tx).await?;
    let before = row.as_ref().map(latest).transpose()?.and_then(|latest| latest.estimate);
    let Some(before) = before else { return Ok(Vec::new()) };
    let changes = found.changed_settings(&before);
    if changes.is_empty() {
        return Ok(changes);
    }
    let marks = marks_of(tx, &instance.id, before.taken_at).await?;
    Ok(changes.into_iter().filter_map(|change| change.since(&marks)).collect())
}

/// Reads the latest estimate. One of another version is none: the next one replaces it.
fn latest(row: &Row) -> Result<LatestEstimate, StoreError> {
    let (estimate, failure) = (json::read_column(row, "latest", VERSION)?, row.get("failure")?);
    Ok(LatestEstimate { estimate, failure, scanned_since: None })
}

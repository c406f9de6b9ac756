//! Instances, and what polls returned about their servers.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Store, StoreError,
    clock::after,
    db::{DbSession, Row, Statement, keys, lock, sql},
    held::{changed_instance, forget_servers, held_instance},
    hosts::hosts_after_move,
    json,
    merge::three_way_merge,
};
use crate::model::{Instance, InstanceStats, PollFailure, ScanType, Stored, Window, closed_until};

/// Shortest time from the registration of an instance to its first background estimate.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// Seconds over which those first estimates are spread.
const FIRST_SPREAD: u64 = 240;

impl Store {
    /// Registers an instance. `Taken` when its id, or its name in the project, is in use; `Missing` when the project does not
    /// exist.
    pub async fn add_instance(&self, instance: &Instance) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        insert_instance(&mut tx, instance).await?;
        self.commit(tx).await
    }

    /// Returns the instance with this id, if it belongs to the project.
    pub async fn instance(&self, project_id: &str, id: &str) -> Result<Option<Instance>, StoreError> {
        let found = sql("SELECT * FROM instance WHERE id = $1 AND project_id = $2").bind(id).bind(project_id);
        found.optional(&mut self.reader().await?).await?.as_ref().map(instance).transpose()
    }

    /// Returns all instances of a project, by name.
    pub async fn instances(&self, project_id: &str) -> Result<Vec<Instance>, StoreError> {
        Ok(self.instances_within(project_id, 100, |_| true).await?.unwrap_or_default())
    }

    /// Returns all instances of a project, by name; reads `part` of them at a time, each part within the time that a verb has. One that is
    /// renamed meanwhile may be left out or come twice. `None` as soon as `admit` refuses one.
    pub async fn instances_within(
        &self,
        project_id: &str,
        part: u32,
        mut admit: impl FnMut(&Instance) -> bool,
    ) -> Result<Option<Vec<Instance>>, StoreError> {
        let mut instances: Vec<Instance> = Vec::new();
        loop {
            let after = instances.last().map_or("", |last| last.name.as_str());
            let found = self.instances_after(project_id, after, part).await?;
            let is_last = found.len() < part as usize;
            for instance in found {
                if !admit(&instance) {
                    return Ok(None);
                }
                instances.push(instance);
            }
            if is_last {
                return Ok(Some(instances));
            }
        }
    }

    /// Returns up to `limit` instances of a project, by name: those after the name `after`.
    pub async fn instances_after(
        &self,
        project_id: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Instance>, StoreError> {
        // No name is empty.
        sql("SELECT * FROM instance WHERE project_id = $1 AND name > $2 ORDER BY name LIMIT $3")
            .bind(project_id)
            .bind(after)
            .bind(limit)
            .list(&mut self.reader().await?, instance)
            .await
    }

    /// Applies the change from `before` to `after` to a registered instance, but never to its id, project, stats and time of
    /// registration. Changes that others made meanwhile stay; stats and estimates are removed when the URL changes, and the end of a
    /// pause is recorded with its time. Returns the changed instance. `Missing` when it does not exist, `Taken` when another
    /// instance of the project has its name, `Held` when its URL or address map would change while a worker may connect to its
    /// servers: it would send the new password to the old ones.
    pub async fn update_instance(&self, before: &Instance, after: &Instance) -> Result<Instance, StoreError> {
        let mut tx = self.begin_request().await?;
        let now = self.now(&mut tx).await?;
        let instance = change_instance(&mut tx, now, before, after).await?;
        self.commit(tx).await?;
        Ok(instance)
    }

    /// Removes an instance with its tasks. Returns false, and does nothing, while a task of it is active. `Missing` when the
    /// instance does not exist, `Held` while its servers may have other settings than their own: no worker would restore them.
    pub async fn remove_instance(&self, project_id: &str, id: &str) -> Result<bool, StoreError> {
        let mut tx = self.begin_request().await?;
        let is_removed = delete_instance(&mut tx, project_id, id).await?;
        if is_removed {
            self.commit(tx).await?;
        }
        Ok(is_removed)
    }

    /// Claims up to `limit` instances not polled for `interval`, stalest first, those of the projects `last` after all others. No
    /// other replica claims them for that time.
    pub async fn claim_polls(
        &self,
        interval: Duration,
        limit: u32,
        last: &[String],
    ) -> Result<Vec<Instance>, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let due = now.checked_sub(interval).unwrap_or(Timestamp::MIN);
        let claim = |limit: u32, left_out: &[String]| {
            // Those that another replica claims at this moment are left to it.
            sql("UPDATE instance SET looked_at = $1 WHERE id IN (
                     SELECT id FROM instance
                     WHERE (looked_at IS NULL OR looked_at <= $2)
                         AND project_id NOT IN (SELECT key FROM json_each($4/*!::json*/))
                     ORDER BY looked_at NULLS FIRST LIMIT $3 /*! FOR UPDATE SKIP LOCKED */
                 ) RETURNING *")
            .bind(now)
            .bind(due)
            .bind(limit)
            .bind(keys(left_out))
        };
        let claimed = claim_in_turn(&mut tx, limit, last, claim).await?;
        self.commit(tx).await?;
        Ok(claimed)
    }

    /// Saves what a poll returned, and that the server was reachable. `Missing` when the instance does not exist or has
    /// another URL by now.
    pub async fn record_stats(&self, instance: &Instance, stats: &InstanceStats) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sql("UPDATE instance SET facts = $1, facts_at = $2, unreachable = NULL, unreachable_code = NULL
             WHERE id = $3 AND url = $4")
        .bind(stats_to_json(stats)?)
        .bind(stats.seen_at)
        .bind(&instance.id)
        .bind(instance.url.text())
        .change("instance", &mut tx)
        .await?;
        self.commit(tx).await
    }

    /// Saves why a poll failed; the stats of an earlier poll stay. `Missing` when the instance does not exist or has another
    /// URL by now.
    pub async fn record_unreachable(&self, instance: &Instance, failure: &PollFailure) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sql("UPDATE instance SET unreachable = $1, unreachable_code = $4 WHERE id = $2 AND url = $3")
            .bind(&failure.cause)
            .bind(&instance.id)
            .bind(instance.url.text())
            .bind(failure.code.as_str())
            .change("instance", &mut tx)
            .await?;
        self.commit(tx).await
    }
}

/// Claims up to `limit` instances, those of the projects `last` after all others. `claim`: claims up to a number of them, those of
/// some projects left out.
pub(super) async fn claim_in_turn(
    tx: &mut DbSession,
    limit: u32,
    last: &[String],
    claim: impl Fn(u32, &[String]) -> Statement,
) -> Result<Vec<Instance>, StoreError> {
    let mut claimed = Vec::new();
    // Without such projects one claim is enough.
    for left_out in [last, &[]].into_iter().skip(usize::from(last.is_empty())) {
        let left = limit.saturating_sub(claimed.len() as u32);
        if left > 0 {
            claimed.extend(claim(left, left_out).list(tx, instance).await?);
        }
    }
    Ok(claimed)
}

/// Inserts an instance within a transaction, as [`Store::add_instance`] says.
pub(super) async fn insert_instance(tx: &mut DbSession, instance: &Instance) -> Result<(), StoreError> {
    let insert = sql("INSERT INTO instance (
             name, url, username, password, sentinel_username, sentinel_password, ca_pem, cert_pem, client_key,
             server_name, address_map, pace, off_peak_window, window_binds_manual, manage_lazyfree, paused,
             labels, sampling, id, project_id, facts, facts_at, unreachable, unreachable_code, created_at,
             estimate_at
         ) VALUES (
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
             $24, $25, $26
         )");
    bind_settings(insert, instance)
        .bind(&instance.id)
        .bind(&instance.project_id)
        .bind(instance.stats.as_ref().map(stats_to_json).transpose()?)
        .bind(instance.stats.as_ref().map(|stats| stats.seen_at))
        .bind(instance.unreachable.as_ref().map(|failure| failure.cause.as_str()))
        .bind(instance.unreachable.as_ref().map(|failure| failure.code.as_str()))
        .bind(instance.created_at)
        .bind(first_estimate(instance))
        .refers_to("project")
        .execute(tx)
        .await?;
    Ok(())
}

/// Returns when the first background estimate of a new instance is due: one to five minutes after its registration, so that
/// those of instances that are registered together are spread.
fn first_estimate(instance: &Instance) -> Timestamp {
    // FNV-1a: an operator may have chosen ids that differ in one digit.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = instance.id.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    after(instance.created_at, FIRST_AFTER + Duration::from_secs((hash >> 32) % FIRST_SPREAD))
}

/// Changes an instance within a transaction, as [`Store::update_instance`] says.
pub(super) async fn change_instance(
    tx: &mut DbSession,
    now: Timestamp,
    before: &Instance,
    after: &Instance,
) -> Result<Instance, StoreError> {
    let current = sql("SELECT * FROM instance WHERE id = $1 AND project_id = $2 /*! FOR NO KEY UPDATE */")
        .bind(&after.id)
        .bind(&after.project_id)
        .optional(tx)
        .await?;
    let current = instance(&current.ok_or(StoreError::Missing("instance"))?)?;
    let (url, address_map) = (current.url.clone(), current.address_map.clone());
    let instance = three_way_merge(current, before, after);
    if instance.url != url || instance.address_map != address_map {
        if let Some(name) = held_instance(tx, now, &instance.id).await? {
            return Err(StoreError::Held(name));
        }
        forget_servers(tx, &instance.id).await?;
    }
    // The next run may be another one.
    sql("UPDATE auto_scan SET look_at = NULL WHERE instance_id = $1").bind(&instance.id).execute(tx).await?;
    // The window may have changed: the claim of a task that waits for it reads it again.
    sql("UPDATE task SET not_before = NULL
         WHERE instance_id = $1 AND status IN ('waiting', 'running') AND not_before IS NOT NULL")
    .bind(&instance.id)
    .execute(tx)
    .await?;
    if instance.url != url {
        hosts_after_move(tx, &instance).await?;
        forget_estimates(tx, &instance.id).await?;
    }
    let update = sql("UPDATE instance SET
             name = $1, url = $2, username = $3, password = $4, sentinel_username = $5, sentinel_password = $6,
             ca_pem = $7, cert_pem = $8, client_key = $9, server_name = $10, address_map = $11, pace = $12,
             off_peak_window = $13, window_binds_manual = $14, manage_lazyfree = $15, paused = $16, labels = $17,
             sampling = $18,
             resumed_at = CASE WHEN $16 THEN NULL WHEN paused THEN $21 ELSE resumed_at END,
             facts = CASE WHEN url = $2 THEN facts END, facts_at = CASE WHEN url = $2 THEN facts_at END,
             unreachable = CASE WHEN url = $2 THEN unreachable END,
             unreachable_code = CASE WHEN url = $2 THEN unreachable_code END, looked_at = CASE WHEN url = $2 THEN looked_at END,
             estimate_at = CASE WHEN url = $2 AND sampling = $18 THEN estimate_at END
         WHERE id = $19 AND project_id = $20");
    bind_settings(update, &instance)
        .bind(&instance.id)
        .bind(&instance.project_id)
        .bind(now)
        .change("instance", tx)
        .await?;
    Ok(instance)
}

/// Removes the estimates of an instance that has another URL by now: they are about another server.
async fn forget_estimates(tx: &mut DbSession, instance_id: &str) -> Result<(), StoreError> {
    sql("DELETE FROM estimate WHERE instance_id = $1").bind(instance_id).execute(tx).await?;
    sql("DELETE FROM estimate_point WHERE instance_id = $1").bind(instance_id).execute(tx).await?;
    sql("DELETE FROM mark WHERE instance_id = $1").bind(instance_id).execute(tx).await?;
    Ok(())
}

/// Removes an instance within a transaction, as [`Store::remove_instance`] says.
pub(super) async fn delete_instance(tx: &mut DbSession, project_id: &str, id: &str) -> Result<bool, StoreError> {
    // Locked first: the creation of a task waits for this verb, and then finds no instance.
    lock("SELECT 1 FROM instance WHERE id = $1 FOR UPDATE").bind(id).execute(tx).await?;
    let active = sql("SELECT 1 FROM task WHERE instance_id = $1 AND status IN ('waiting', 'running')").bind(id);
    if active.optional(tx).await?.is_some() {
        return Ok(false);
    }
    if let Some(name) = changed_instance(tx, id).await? {
        return Err(StoreError::Held(name));
    }
    sql("DELETE FROM instance WHERE id = $1 AND project_id = $2")
        .bind(id)
        .bind(project_id)
        .change("instance", tx)
        .await?;
    Ok(true)
}

/// Binds `$1` to `$18`, what an operator sets, in the order of both statements.
fn bind_settings(statement: Statement, instance: &Instance) -> Statement {
    statement
        .bind(&instance.name)
        .bind(instance.url.text())
        .bind(instance.username.as_deref())
        .bind(instance.password.as_ref())
        .bind(instance.sentinel_username.as_deref())
        .bind(instance.sentinel_password.as_ref())
        .bind(instance.ca_pem.as_deref())
        .bind(instance.cert_pem.as_deref())
        .bind(instance.client_key.as_ref())
        .bind(instance.server_name.as_deref())
        .bind(instance.address_map.as_ref().map(Stored::text))
        .bind(instance.pace.text())
        .bind(instance.window.as_ref().map(Stored::text))
        .bind(instance.window_binds_manual)
        .bind(instance.manage_lazyfree)
        .bind(instance.paused)
        .bind(instance.labels.text())
        .bind(instance.sampling)
}

/// Reads an instance. The one place where its columns become fields.
pub(super) fn instance(row: &Row) -> Result<Instance, StoreError> {
    // Like any other field that cannot be read, unreadable stats must not end the list that the instance is in.
    let (stats, stats_error) = match self::stats(row) {
        Ok(stats) => (stats, None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(Instance {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        url: row.get("url")?,
        username: row.get("username")?,
        password: row.get("password")?,
        sentinel_username: row.get("sentinel_username")?,
        sentinel_password: row.get("sentinel_password")?,
        ca_pem: row.get("ca_pem")?,
        cert_pem: row.get("cert_pem")?,
        client_key: row.get("client_key")?,
        server_name: row.get("server_name")?,
        address_map: row.get("address_map")?,
        pace: row.get("pace")?,
        window: row.get("off_peak_window")?,
        window_binds_manual: row.get("window_binds_manual")?,
        manage_lazyfree: row.get("manage_lazyfree")?,
        labels: row.get("labels")?,
        sampling: row.get("sampling")?,
        paused: row.get("paused")?,
        stats,
        stats_error,
        unreachable: poll_failure(row)?,
        created_at: row.get("created_at")?,
    })
}

/// Reads why the last poll failed. A code that is absent or of a later version is the most general one.
fn poll_failure(row: &Row) -> Result<Option<PollFailure>, StoreError> {
    let (cause, code) = (row.get::<Option<String>>("unreachable")?, row.get::<Option<String>>("unreachable_code")?);
    let code = code.and_then(|code| code.parse().ok()).unwrap_or_default();
    Ok(cause.map(|cause| PollFailure { code, cause }))
}

/// Returns when the window of the row's instance opens, if it is closed for such a task.
pub(super) fn window_opens_at(row: &Row, scan_type: ScanType, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let window: Option<Stored<Window>> = row.get("off_peak_window")?;
    Ok(closed_until(window.as_ref(), row.get("window_binds_manual")?, scan_type, now))
}

/// The form of the stats that this version writes.
const STATS_VERSION: u32 = 1;

fn stats_to_json(stats: &InstanceStats) -> Result<String, StoreError> {
    json::write_versioned("stats", STATS_VERSION, stats)
}

/// Reads the stats of the row's instance.
pub(super) fn stats(row: &Row) -> Result<Option<InstanceStats>, StoreError> {
    let stored = row.get::<Option<String>>("facts")?;
    stored.map(|stored| json::read_versioned("stats", STATS_VERSION, &stored)).transpose()
}

//! Holding stale shares: policies, the leases of the workers that hold, and the servers' own settings.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use keysweep_engine::{Address, BaselineRecord, HoldLevel, HoldPolicy, HoldState, stale::Share};
use serde::de::DeserializeOwned;

use super::{
    Store, StoreError,
    clock::after,
    db::{DbSession, Row, sql},
    held::is_watched,
    held_servers::free_servers,
    instances::instance,
    json,
};
use crate::model::{HeldInstance, HeldServer, HoldLease, HoldReport, Instance};

/// The store's answer to the renewal of a lease.
#[derive(Debug, Clone, PartialEq)]
pub enum HoldRenewal {
    /// The worker has the lease. Holds the instance and the policy as they are now.
    Held(Box<Instance>, HoldPolicy),
    /// Another worker has it.
    Lost,
    /// The instance was removed.
    Gone,
}

impl Store {
    /// Returns how an instance is held, if that was ever set.
    pub async fn hold(&self, instance_id: &str) -> Result<Option<HeldInstance>, StoreError> {
        let found = sql("SELECT * FROM hold WHERE instance_id = $1").bind(instance_id);
        found.optional(&mut self.reader().await?).await?.as_ref().map(hold).transpose()
    }

    /// Returns how the instances are held that a worker holds or restores, or should, for metrics. The level is the one in effect: while
    /// an instance is paused, its servers are restored.
    pub async fn holds(&self) -> Result<Vec<HeldInstance>, StoreError> {
        let in_effect = |row: &Row| {
            let mut held = hold(row)?;
            if row.get("paused")? {
                held.policy.level = HoldLevel::Observe;
            }
            Ok(held)
        };
        sql(format!(
            "SELECT hold.*, instance.paused FROM hold JOIN instance ON instance.id = hold.instance_id
             WHERE {} ORDER BY hold.instance_id",
            is_watched("hold")
        ))
        .list(&mut self.reader().await?, in_effect)
        .await
    }

    /// Sets how an instance is held. `Missing` when it does not exist.
    pub async fn set_hold(&self, instance_id: &str, policy: &HoldPolicy) -> Result<HeldInstance, StoreError> {
        let mut tx = self.begin_request().await?;
        let now = self.now(&mut tx).await?;
        let set = sql("INSERT INTO hold (instance_id, level, policy, updated_at, changed, epoch)
             VALUES ($1, $2, $3, $4, $5, 0)
             ON CONFLICT (instance_id) DO UPDATE SET
                 level = excluded.level, policy = excluded.policy, updated_at = excluded.updated_at
             RETURNING *")
        .bind(instance_id)
        .bind(policy.level.as_str())
        .bind(json::write("policies", policy)?)
        .bind(now)
        .bind(false)
        .refers_to("instance")
        .one(&mut tx)
        .await?;
        self.commit(tx).await?;
        hold(&set)
    }

    /// Claims up to `limit` instances that are to be held, or whose servers are to get their own settings back, and that no worker
    /// holds. Projects take turns, and the owner holds at most `of_a_project` of one.
    pub async fn claim_holds(
        &self,
        owner: &str,
        lease: Duration,
        limit: u32,
        of_a_project: u32,
    ) -> Result<Vec<HoldLease>, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let claimed = sql(format!(
            "UPDATE hold SET owner = $1, epoch = epoch + 1, expires_at = $2
             WHERE instance_id IN (
                 SELECT instance_id FROM hold
                 WHERE (owner IS NULL OR expires_at <= $3) AND instance_id IN (
                     SELECT instance_id FROM (
                         SELECT due.instance_id, COALESCE(held.places, 0)
                             + ROW_NUMBER() OVER (PARTITION BY instance.project_id ORDER BY due.instance_id) AS place
                         FROM hold AS due JOIN instance ON instance.id = due.instance_id
                         LEFT JOIN (
                             SELECT project_id, COUNT(*) AS places FROM hold JOIN instance ON id = instance_id
                             WHERE owner = $1 AND expires_at > $3 GROUP BY project_id
                         ) AS held ON held.project_id = instance.project_id
                         WHERE {}
                             AND (due.owner IS NULL OR due.expires_at <= $3)
                     ) AS in_turn
                     WHERE place <= $5 ORDER BY place, instance_id LIMIT $4
                 ) /*!FOR UPDATE SKIP LOCKED*/
             )
             RETURNING instance_id, epoch",
            is_watched("due")
        ))
        .bind(owner)
        .bind(after(now, lease))
        .bind(now)
        .bind(limit)
        .bind(of_a_project)
        .list(&mut tx, |row| {
            Ok(HoldLease { instance_id: row.get("instance_id")?, owner: owner.to_owned(), epoch: row.get("epoch")? })
        })
        .await?;
        self.commit(tx).await?;
        Ok(claimed)
    }

    /// Claims one instance to restore its servers, whatever its level; `None`: a worker holds it, or how it is held was never set.
    /// `is_takeover`: also from a worker that has the lease, which then records and restores nothing more.
    pub async fn claim_hold(
        &self,
        instance_id: &str,
        owner: &str,
        lease: Duration,
        is_takeover: bool,
    ) -> Result<Option<HoldLease>, StoreError> {
        let mut tx = self.begin_request().await?;
        let now = self.now(&mut tx).await?;
        let claimed = sql("UPDATE hold SET owner = $1, epoch = epoch + 1, expires_at = $2
             WHERE instance_id = $3 AND (owner IS NULL OR expires_at <= $4 OR $5)
             RETURNING epoch")
        .bind(owner)
        .bind(after(now, lease))
        .bind(instance_id)
        .bind(now)
        .bind(is_takeover)
        .optional(&mut tx)
        .await?;
        self.commit(tx).await?;
        let lease = |row: &Row| {
            Ok(HoldLease { instance_id: instance_id.to_owned(), owner: owner.to_owned(), epoch: row.get("epoch")? })
        };
        claimed.as_ref().map(lease).transpose()
    }

    /// Renews a lease and saves what a round has found; `None`: there was none. An expired lease is renewed as long as no other
    /// worker has taken it over.
    pub async fn renew_hold(
        &self,
        lease: &HoldLease,
        renew: Duration,
        report: Option<&HoldReport>,
    ) -> Result<HoldRenewal, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let servers = report.and_then(|report| report.servers.as_deref());
        let renewed = sql("UPDATE hold SET expires_at = $1, status = COALESCE($2, status),
                 failure = CASE WHEN $7 THEN $8 ELSE failure END,
                 reported_at = CASE WHEN $7 THEN $3 ELSE reported_at END
             WHERE instance_id = $4 AND owner = $5 AND epoch = $6
             RETURNING policy")
        .bind(after(now, renew))
        .bind(servers.map(|servers| json::write("reports of servers", servers)).transpose()?)
        .bind(now)
        .bind(&lease.instance_id)
        .bind(&lease.owner)
        .bind(lease.epoch)
        .bind(report.is_some())
        .bind(report.and_then(|report| report.failure.as_deref()))
        .optional(&mut tx)
        .await?;
        let found = sql("SELECT * FROM instance WHERE id = $1").bind(&lease.instance_id).optional(&mut tx).await?;
        self.commit(tx).await?;
        Ok(match (renewed, found) {
            (_, None) => HoldRenewal::Gone,
            (None, Some(_)) => HoldRenewal::Lost,
            (Some(renewed), Some(found)) => {
                HoldRenewal::Held(Box::new(instance(&found)?), from_json(&renewed, "policy")?)
            }
        })
    }

    /// Releases a lease. `changed`: whether a server may have other settings than its own; `None`: as before, since the worker has
    /// not come to know.
    pub async fn release_hold(&self, lease: &HoldLease, changed: Option<bool>) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let released = sql("UPDATE hold SET owner = NULL, expires_at = NULL, changed = COALESCE($1, changed),
                 failure = CASE WHEN COALESCE($1, changed) THEN failure END
             WHERE instance_id = $2 AND owner = $3 AND epoch = $4
             RETURNING changed")
        .bind(changed)
        .bind(&lease.instance_id)
        .bind(&lease.owner)
        .bind(lease.epoch)
        .optional(&mut tx)
        .await?;
        let is_changed = released.map_or(Ok(true), |row| row.get("changed"))?;
        if !is_changed {
            free_servers(&mut tx, &lease.instance_id).await?;
        }
        self.commit(tx).await
    }

    /// Records a server's own settings and what is about to be written over them; `false`: the lease is lost, and nothing may
    /// be written.
    pub async fn save_baseline(&self, lease: &HoldLease, record: &BaselineRecord) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !mark_changed(&mut tx, lease).await? {
            tx.roll_back().await;
            return Ok(false);
        }
        sql("INSERT INTO hold_baseline (instance_id, address, record) VALUES ($1, $2, $3)
             ON CONFLICT (instance_id, address) DO UPDATE SET record = excluded.record")
        .bind(&lease.instance_id)
        .bind(record.address.to_string())
        .bind(json::write("settings of servers", record)?)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await?;
        Ok(true)
    }

    /// Removes the recorded settings of a server; `false`: there are none, or the lease is lost.
    pub async fn forget_baseline(&self, lease: &HoldLease, address: &Address) -> Result<bool, StoreError> {
        let mut tx = self.begin_request().await?;
        let removed = sql("DELETE FROM hold_baseline WHERE instance_id = $1 AND address = $2 AND EXISTS (
                 SELECT 1 FROM hold WHERE instance_id = $1 AND owner = $3 AND epoch = $4
             )")
        .bind(&lease.instance_id)
        .bind(address.to_string())
        .bind(&lease.owner)
        .bind(lease.epoch)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await?;
        Ok(removed > 0)
    }

    /// Returns the recorded settings of a server of an instance.
    pub async fn baseline(&self, instance_id: &str, address: &Address) -> Result<Option<BaselineRecord>, StoreError> {
        let found = sql("SELECT record FROM hold_baseline WHERE instance_id = $1 AND address = $2")
            .bind(instance_id)
            .bind(address.to_string())
            .optional(&mut self.reader().await?)
            .await?;
        found.as_ref().map(|row| from_json(row, "record")).transpose()
    }

    /// Returns the recorded settings of all servers of an instance.
    pub async fn baselines(&self, instance_id: &str) -> Result<Vec<BaselineRecord>, StoreError> {
        sql("SELECT record FROM hold_baseline WHERE instance_id = $1 ORDER BY address")
            .bind(instance_id)
            .list(&mut self.reader().await?, |row| from_json(row, "record"))
            .await
    }
}

/// Returns the last samples of the servers of an instance that is held, by their addresses, as far as they were taken and reported
/// within a time.
pub(super) async fn held_shares(
    tx: &mut DbSession,
    instance_id: &str,
    within: Duration,
    now: Timestamp,
) -> Result<HashMap<String, Share>, StoreError> {
    let found = sql("SELECT status FROM hold WHERE instance_id = $1 AND status IS NOT NULL AND reported_at > $2")
        .bind(instance_id)
        .bind(now - within)
        .optional(tx)
        .await?;
    // A report that cannot be read, as of another version, is replaced by the next round.
    let servers = found.and_then(|row| from_json::<Vec<HeldServer>>(&row, "status").ok()).unwrap_or_default();
    let sampled = |server: HeldServer| match server.status.state {
        HoldState::Off => None,
        _ if server.status.share_seconds.is_none_or(|age| age > within.as_secs_f64()) => None,
        _ => Some((server.address.to_string(), server.status.share?)),
    };
    Ok(servers.into_iter().filter_map(sampled).collect())
}

async fn mark_changed(tx: &mut DbSession, lease: &HoldLease) -> Result<bool, StoreError> {
    let marked = sql("UPDATE hold SET changed = $1 WHERE instance_id = $2 AND owner = $3 AND epoch = $4")
        .bind(true)
        .bind(&lease.instance_id)
        .bind(&lease.owner)
        .bind(lease.epoch)
        .execute(tx)
        .await?;
    Ok(marked > 0)
}

fn hold(row: &Row) -> Result<HeldInstance, StoreError> {
    let servers: Option<String> = row.get("status")?;
    Ok(HeldInstance {
        instance_id: row.get("instance_id")?,
        policy: from_json(row, "policy")?,
        updated_at: row.get("updated_at")?,
        changed: row.get("changed")?,
        servers: servers.map_or_else(|| Ok(Vec::new()), |_| from_json(row, "status"))?,
        failure: row.get("failure")?,
        reported_at: row.get("reported_at")?,
    })
}

fn from_json<T: DeserializeOwned>(row: &Row, column: &str) -> Result<T, StoreError> {
    json::read(column, &row.get::<String>(column)?)
}

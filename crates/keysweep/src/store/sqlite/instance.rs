//! Instances and what was last seen of their servers.

use sqlx::SqliteConnection;

use super::{
    fault::{Fault, missing},
    row::{self, micros},
};
use crate::{
    model::{Facts, Instance, Sealed},
    store::StoreError,
};

pub(super) async fn add(db: &mut SqliteConnection, instance: &Instance) -> Result<(), Fault> {
    let sealed = |secret: &Option<Sealed>| secret.as_ref().map(|secret| secret.0.clone());
    sqlx::query(
        "INSERT INTO instance (
             id, project_id, name, url, username, password, sentinel_username, sentinel_password, ca_pem, cert_pem,
             client_key, server_name, address_map, pace, off_peak_window, window_binds_manual, manage_lazyfree, paused,
             facts, facts_at, created_at
         ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&instance.id)
    .bind(&instance.project_id)
    .bind(&instance.name)
    .bind(&instance.url)
    .bind(&instance.username)
    .bind(sealed(&instance.password))
    .bind(&instance.sentinel_username)
    .bind(sealed(&instance.sentinel_password))
    .bind(&instance.ca_pem)
    .bind(&instance.cert_pem)
    .bind(sealed(&instance.client_key))
    .bind(&instance.server_name)
    .bind(&instance.address_map)
    .bind(&instance.pace)
    .bind(&instance.window)
    .bind(instance.window_binds_manual)
    .bind(instance.manage_lazyfree)
    .bind(instance.paused)
    .bind(instance.facts.as_ref().map(row::facts_to_json).transpose()?)
    .bind(instance.facts.as_ref().map(|facts| micros(facts.seen_at)))
    .bind(micros(instance.created_at))
    .execute(db)
    .await
    .map_err(missing("project"))?;
    Ok(())
}

pub(super) async fn get(db: &mut SqliteConnection, project_id: &str, id: &str) -> Result<Option<Instance>, Fault> {
    let found = sqlx::query("SELECT * FROM instance WHERE id = ? AND project_id = ?")
        .bind(id)
        .bind(project_id)
        .fetch_optional(db)
        .await?;
    found.as_ref().map(row::instance).transpose()
}

pub(super) async fn list(db: &mut SqliteConnection, project_id: &str) -> Result<Vec<Instance>, Fault> {
    let rows =
        sqlx::query("SELECT * FROM instance WHERE project_id = ? ORDER BY name").bind(project_id).fetch_all(db).await?;
    rows.iter().map(row::instance).collect()
}

pub(super) async fn record_facts(db: &mut SqliteConnection, id: &str, facts: &Facts) -> Result<(), Fault> {
    let updated = sqlx::query("UPDATE instance SET facts = ?, facts_at = ? WHERE id = ?")
        .bind(row::facts_to_json(facts)?)
        .bind(micros(facts.seen_at))
        .bind(id)
        .execute(db)
        .await?;
    match updated.rows_affected() {
        0 => Err(StoreError::Missing("instance").into()),
        _ => Ok(()),
    }
}

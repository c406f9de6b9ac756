//! Instances and what was last seen of their servers.

use std::time::Duration;

use sqlx::{
    PgConnection, Postgres,
    postgres::{PgArguments, PgQueryResult},
    query::Query,
};

use super::{
    fault::{Fault, found, missing},
    row::{self, Reader, micros, span},
};
use crate::{
    model::{Facts, Instance, Sealed},
    store::{
        StoreError,
        merge::{merged, moved},
    },
};

pub(super) async fn add(db: &mut PgConnection, instance: &Instance) -> Result<(), Fault> {
    let query = sqlx::query(
        "INSERT INTO instance (
             id, project_id, name, url, username, password, sentinel_username, sentinel_password, ca_pem, cert_pem,
             client_key, server_name, address_map, pace, off_peak_window, window_binds_manual, manage_lazyfree, paused,
             facts, facts_at, unreachable, created_at
         ) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    )
    .bind(&instance.id)
    .bind(&instance.project_id);
    settings(query, instance)
        .bind(instance.facts.as_ref().map(row::facts_to_json).transpose()?)
        .bind(instance.facts.as_ref().map(|facts| micros(facts.seen_at)))
        .bind(&instance.unreachable)
        .bind(micros(instance.created_at))
        .execute(db)
        .await
        .map_err(missing("project"))?;
    Ok(())
}

/// Binds what an operator sets, in the order in which both statements name it.
fn settings<'q>(query: Query<'q, Postgres, PgArguments>, instance: &'q Instance) -> Query<'q, Postgres, PgArguments> {
    let sealed = |secret: &Option<Sealed>| secret.as_ref().map(|secret| secret.0.clone());
    query
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
}

pub(super) async fn update(
    db: &mut PgConnection,
    now: i64,
    before: &Instance,
    after: &Instance,
) -> Result<Instance, Fault> {
    let current = sqlx::query("SELECT * FROM instance WHERE id = $1 AND project_id = $2 FOR NO KEY UPDATE")
        .bind(&after.id)
        .bind(&after.project_id)
        .fetch_optional(&mut *db)
        .await?;
    let current = row::instance(&current.ok_or(StoreError::Missing("instance"))?)?;
    let url = current.url.clone();
    let instance = merged(current, before, after);
    look_again(db, &instance.id).await?;
    // The window may be another one: whoever claims a task that waits for it looks anew.
    sqlx::query(
        "UPDATE task SET not_before = NULL
         WHERE instance_id = $1 AND status IN ('waiting', 'running') AND not_before IS NOT NULL",
    )
    .bind(&instance.id)
    .execute(&mut *db)
    .await?;
    if instance.url != url {
        move_task(db, &instance).await?;
    }
    let query = sqlx::query(
        "UPDATE instance SET
             name = $1, url = $2, username = $3, password = $4, sentinel_username = $5, sentinel_password = $6, ca_pem = $7,
             cert_pem = $8, client_key = $9, server_name = $10, address_map = $11, pace = $12, off_peak_window = $13,
             window_binds_manual = $14, manage_lazyfree = $15, paused = $16,
             resumed_at = CASE WHEN $16 THEN NULL WHEN paused THEN $19 ELSE resumed_at END,
             facts = CASE WHEN url = $2 THEN facts END, facts_at = CASE WHEN url = $2 THEN facts_at END,
             unreachable = CASE WHEN url = $2 THEN unreachable END, looked_at = CASE WHEN url = $2 THEN looked_at END
         WHERE id = $17 AND project_id = $18",
    );
    let done = settings(query, &instance).bind(&instance.id).bind(&instance.project_id).bind(now).execute(db).await?;
    found(done.rows_affected(), "instance")?;
    Ok(instance)
}

/// The active task of an instance that has another URL by now burdens other hosts.
async fn move_task(db: &mut PgConnection, instance: &Instance) -> Result<(), Fault> {
    let active = sqlx::query(
        "SELECT id, host, status = 'running' AS has_begun FROM task
         WHERE instance_id = $1 AND status IN ('waiting', 'running') FOR NO KEY UPDATE",
    )
    .bind(&instance.id)
    .fetch_optional(&mut *db)
    .await?;
    let Some(active) = active else { return Ok(()) };
    let task = Reader(&active);
    let (id, so_far): (String, Option<String>) = (task.get("id")?, task.get("host")?);
    let host = moved(so_far.as_deref(), task.get("has_begun")?, instance);
    sqlx::query("UPDATE task SET host = $1 WHERE id = $2").bind(host).bind(id).execute(db).await?;
    Ok(())
}

/// The next run may be another one.
async fn look_again(db: &mut PgConnection, instance_id: &str) -> Result<(), Fault> {
    sqlx::query("UPDATE auto_scan SET look_at = NULL WHERE instance_id = $1").bind(instance_id).execute(db).await?;
    Ok(())
}

pub(super) async fn remove(db: &mut PgConnection, project_id: &str, id: &str) -> Result<bool, Fault> {
    // Locked first: a task that is created in this moment waits, and finds no instance.
    sqlx::query("SELECT 1 FROM instance WHERE id = $1 FOR UPDATE").bind(id).execute(&mut *db).await?;
    let active = sqlx::query("SELECT 1 FROM task WHERE instance_id = $1 AND status IN ('waiting', 'running')")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
    if active.is_some() {
        return Ok(false);
    }
    let done = sqlx::query("DELETE FROM instance WHERE id = $1 AND project_id = $2")
        .bind(id)
        .bind(project_id)
        .execute(db)
        .await?;
    found(done.rows_affected(), "instance")?;
    Ok(true)
}

pub(super) async fn get(db: &mut PgConnection, project_id: &str, id: &str) -> Result<Option<Instance>, Fault> {
    let found = sqlx::query("SELECT * FROM instance WHERE id = $1 AND project_id = $2")
        .bind(id)
        .bind(project_id)
        .fetch_optional(db)
        .await?;
    Ok(found.as_ref().map(row::instance).transpose()?)
}

pub(super) async fn list(db: &mut PgConnection, project_id: &str) -> Result<Vec<Instance>, Fault> {
    let rows = sqlx::query("SELECT * FROM instance WHERE project_id = $1 ORDER BY name")
        .bind(project_id)
        .fetch_all(db)
        .await?;
    Ok(rows.iter().map(row::instance).collect::<Result<_, _>>()?)
}

pub(super) async fn record_facts(db: &mut PgConnection, instance: &Instance, facts: &Facts) -> Result<(), Fault> {
    let updated =
        sqlx::query("UPDATE instance SET facts = $1, facts_at = $2, unreachable = NULL WHERE id = $3 AND url = $4")
            .bind(row::facts_to_json(facts)?)
            .bind(micros(facts.seen_at))
            .bind(&instance.id)
            .bind(&instance.url)
            .execute(db)
            .await?;
    there(&updated)
}

pub(super) async fn record_unreachable(db: &mut PgConnection, instance: &Instance, cause: &str) -> Result<(), Fault> {
    let updated = sqlx::query("UPDATE instance SET unreachable = $1 WHERE id = $2 AND url = $3")
        .bind(cause)
        .bind(&instance.id)
        .bind(&instance.url)
        .execute(db)
        .await?;
    there(&updated)
}

fn there(updated: &PgQueryResult) -> Result<(), Fault> {
    match updated.rows_affected() {
        0 => Err(StoreError::Missing("instance").into()),
        _ => Ok(()),
    }
}

pub(super) async fn take_looks(
    db: &mut PgConnection,
    now: i64,
    every: Duration,
    limit: u32,
) -> Result<Vec<Instance>, Fault> {
    // Those that nobody has looked at yet come first, and those that another replica takes now are left to it.
    let taken = sqlx::query(
        "UPDATE instance SET looked_at = $1 WHERE id IN (
             SELECT id FROM instance WHERE looked_at IS NULL OR looked_at <= $2 ORDER BY looked_at NULLS FIRST LIMIT $3
             FOR UPDATE SKIP LOCKED
         ) RETURNING *",
    )
    .bind(now)
    .bind(now.saturating_sub(span(every)))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    Ok(taken.iter().map(row::instance).collect::<Result<_, _>>()?)
}

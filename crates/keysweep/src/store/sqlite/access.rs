//! Access keys, tokens and remembered signatures, and the audit trail of what was done with them.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    fault::{Fault, found, missing},
    row::{self, Reader, count, micros},
};
use crate::{
    model::{AccessKey, AuditEntry, Token, TokenHolder},
    store::AuditPage,
};

pub(super) async fn keys(db: &mut SqliteConnection) -> Result<Vec<AccessKey>, Fault> {
    let rows = sqlx::query("SELECT * FROM access_key ORDER BY account_id, created_at, access").fetch_all(db).await?;
    Ok(rows.iter().map(row::access_key).collect::<Result<_, _>>()?)
}

pub(super) async fn disable_key(db: &mut SqliteConnection, access: &str, disabled: bool) -> Result<(), Fault> {
    let done = sqlx::query("UPDATE access_key SET disabled = ? WHERE access = ?")
        .bind(disabled)
        .bind(access)
        .execute(db)
        .await?;
    found(done.rows_affected(), "access key")
}

pub(super) async fn remove_key(db: &mut SqliteConnection, access: &str) -> Result<(), Fault> {
    let done = sqlx::query("DELETE FROM access_key WHERE access = ?").bind(access).execute(db).await?;
    found(done.rows_affected(), "access key")
}

pub(super) async fn add_token(
    db: &mut SqliteConnection,
    token: &Token,
    password_hash: &str,
    forget_before: Timestamp,
) -> Result<bool, Fault> {
    sqlx::query("DELETE FROM token WHERE expires_at < ?").bind(micros(forget_before)).execute(&mut *db).await?;
    let done = sqlx::query(
        "INSERT INTO token (hash, account_id, project_id, issued_at, expires_at)
         SELECT ?, id, ?, ?, ? FROM account WHERE id = ? AND password_hash = ? AND NOT disabled",
    )
    .bind(&token.hash)
    .bind(&token.project_id)
    .bind(micros(token.issued_at))
    .bind(micros(token.expires_at))
    .bind(&token.user_id)
    .bind(password_hash)
    .execute(db)
    .await
    .map_err(missing("project"))?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn token_holder(db: &mut SqliteConnection, hash: &[u8]) -> Result<Option<TokenHolder>, Fault> {
    let found = sqlx::query("SELECT * FROM token WHERE hash = ?").bind(hash).fetch_optional(&mut *db).await?;
    let Some(found) = found else { return Ok(None) };
    let token = row::token(&found)?;
    let user = sqlx::query("SELECT * FROM account WHERE id = ?").bind(&token.user_id).fetch_one(&mut *db).await?;
    let grant = sqlx::query("SELECT role FROM role_grant WHERE account_id = ? AND project_id = ?")
        .bind(&token.user_id)
        .bind(&token.project_id)
        .fetch_optional(db)
        .await?;
    let role = grant.as_ref().map(|grant| Reader(grant).name("role")).transpose()?;
    Ok(Some(TokenHolder { token, user: row::user(&user)?, role }))
}

pub(super) async fn revoke_token(db: &mut SqliteConnection, hash: &[u8]) -> Result<bool, Fault> {
    let done = sqlx::query("DELETE FROM token WHERE hash = ?").bind(hash).execute(db).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn remember_signature(
    db: &mut SqliteConnection,
    now: Timestamp,
    signature: &[u8],
    until: Timestamp,
) -> Result<bool, Fault> {
    sqlx::query("DELETE FROM seen_signature WHERE expires_at < ?").bind(micros(now)).execute(&mut *db).await?;
    let done = sqlx::query(
        "INSERT INTO seen_signature (signature, expires_at) VALUES (?, ?) ON CONFLICT (signature) DO NOTHING",
    )
    .bind(signature)
    .bind(micros(until))
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn add_audit(db: &mut SqliteConnection, entry: &AuditEntry) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO audit (happened_at, project_id, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(micros(entry.happened_at))
    .bind(&entry.project_id)
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.subject)
    .bind(&entry.detail)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn audit(
    db: &mut SqliteConnection,
    project_id: &str,
    page: AuditPage,
) -> Result<Vec<AuditEntry>, Fault> {
    let rows = sqlx::query(
        "SELECT * FROM audit WHERE project_id = ?1 AND (?2 IS NULL OR seq < ?2) ORDER BY seq DESC LIMIT ?3",
    )
    .bind(project_id)
    .bind(page.before)
    .bind(count(page.limit))
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(row::audit_entry).collect::<Result<_, _>>()?)
}

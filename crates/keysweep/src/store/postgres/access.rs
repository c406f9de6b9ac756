//! Access keys, tokens and remembered signatures, and the audit trail of what was done with them.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{
    fault::{Fault, found, missing},
    row::{self, Reader, count, micros},
};
use crate::{
    model::{AccessKey, AuditEntry, Token, TokenHolder},
    store::AuditPage,
};

pub(super) async fn keys(db: &mut PgConnection) -> Result<Vec<AccessKey>, Fault> {
    let rows = sqlx::query("SELECT * FROM access_key ORDER BY account_id, created_at, access").fetch_all(db).await?;
    Ok(rows.iter().map(row::access_key).collect::<Result<_, _>>()?)
}

pub(super) async fn disable_key(db: &mut PgConnection, access: &str, disabled: bool) -> Result<(), Fault> {
    let done = sqlx::query("UPDATE access_key SET disabled = $1 WHERE access = $2")
        .bind(disabled)
        .bind(access)
        .execute(db)
        .await?;
    found(done.rows_affected(), "access key")
}

pub(super) async fn remove_key(db: &mut PgConnection, access: &str) -> Result<(), Fault> {
    let done = sqlx::query("DELETE FROM access_key WHERE access = $1").bind(access).execute(db).await?;
    found(done.rows_affected(), "access key")
}

pub(super) async fn add_token(
    db: &mut PgConnection,
    token: &Token,
    password_hash: &str,
    forget_before: Timestamp,
) -> Result<bool, Fault> {
    // Whoever changes the user in this moment is waited for, or waits and then ends this token with the others. Before
    // anything else is locked: the change goes from the user to the tokens, too.
    let done = sqlx::query(
        "INSERT INTO token (hash, account_id, project_id, issued_at, expires_at)
         SELECT $1, id, $2, $3, $4 FROM account WHERE id = $5 AND password_hash = $6 AND NOT disabled FOR SHARE",
    )
    .bind(&token.hash)
    .bind(&token.project_id)
    .bind(micros(token.issued_at))
    .bind(micros(token.expires_at))
    .bind(&token.user_id)
    .bind(password_hash)
    .execute(&mut *db)
    .await
    .map_err(missing("project"))?;
    // Those that somebody else forgets in this moment are left to him.
    sqlx::query(
        "DELETE FROM token WHERE hash IN (SELECT hash FROM token WHERE expires_at < $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(micros(forget_before))
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn token_holder(db: &mut PgConnection, hash: &[u8]) -> Result<Option<TokenHolder>, Fault> {
    let found = sqlx::query("SELECT * FROM token WHERE hash = $1").bind(hash).fetch_optional(&mut *db).await?;
    let Some(found) = found else { return Ok(None) };
    let token = row::token(&found)?;
    let user = sqlx::query("SELECT * FROM account WHERE id = $1").bind(&token.user_id).fetch_one(&mut *db).await?;
    let grant = sqlx::query("SELECT role FROM role_grant WHERE account_id = $1 AND project_id = $2")
        .bind(&token.user_id)
        .bind(&token.project_id)
        .fetch_optional(db)
        .await?;
    let role = grant.as_ref().map(|grant| Reader(grant).name("role")).transpose()?;
    Ok(Some(TokenHolder { token, user: row::user(&user)?, role }))
}

pub(super) async fn revoke_token(db: &mut PgConnection, hash: &[u8]) -> Result<bool, Fault> {
    let done = sqlx::query("DELETE FROM token WHERE hash = $1").bind(hash).execute(db).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn remember_signature(
    db: &mut PgConnection,
    now: Timestamp,
    signature: &[u8],
    until: Timestamp,
) -> Result<bool, Fault> {
    sqlx::query(
        "DELETE FROM seen_signature WHERE signature IN (
             SELECT signature FROM seen_signature WHERE expires_at < $1 FOR UPDATE SKIP LOCKED
         )",
    )
    .bind(micros(now))
    .execute(&mut *db)
    .await?;
    let done = sqlx::query(
        "INSERT INTO seen_signature (signature, expires_at) VALUES ($1, $2) ON CONFLICT (signature) DO NOTHING",
    )
    .bind(signature)
    .bind(micros(until))
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn add_audit(db: &mut PgConnection, entry: &AuditEntry) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO audit (happened_at, project_id, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
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

pub(super) async fn audit(db: &mut PgConnection, project_id: &str, page: AuditPage) -> Result<Vec<AuditEntry>, Fault> {
    let rows = sqlx::query(
        "SELECT * FROM audit WHERE project_id = $1 AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3",
    )
    .bind(project_id)
    .bind(page.before)
    .bind(count(page.limit))
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(row::audit_entry).collect::<Result<_, _>>()?)
}

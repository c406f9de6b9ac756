//! Projects, users, their roles and keys, and the master key's check value.

use sqlx::SqliteConnection;

use super::{
    fault::{Fault, found, missing},
    row::{self, micros},
};
use crate::model::{AccessKey, Grant, KeyHolder, Project, Role, User, UserRoles};

pub(super) async fn add_project(db: &mut SqliteConnection, project: &Project) -> Result<(), Fault> {
    sqlx::query("INSERT INTO project (id, name, created_at) VALUES (?, ?, ?)")
        .bind(&project.id)
        .bind(&project.name)
        .bind(micros(project.created_at))
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn projects(db: &mut SqliteConnection) -> Result<Vec<Project>, Fault> {
    let rows = sqlx::query("SELECT * FROM project ORDER BY name").fetch_all(db).await?;
    Ok(rows.iter().map(row::project).collect::<Result<_, _>>()?)
}

pub(super) async fn add_user(db: &mut SqliteConnection, user: &User, grants: &[Grant]) -> Result<(), Fault> {
    sqlx::query("INSERT INTO account (id, name, password_hash, disabled, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(&user.id)
        .bind(&user.name)
        .bind(&user.password_hash)
        .bind(user.disabled)
        .bind(micros(user.created_at))
        .execute(&mut *db)
        .await?;
    for grant in grants {
        sqlx::query("INSERT INTO role_grant (account_id, project_id, role) VALUES (?, ?, ?)")
            .bind(&user.id)
            .bind(&grant.project_id)
            .bind(grant.role.as_str())
            .execute(&mut *db)
            .await
            .map_err(missing("project"))?;
    }
    Ok(())
}

pub(super) async fn user(db: &mut SqliteConnection, name: &str) -> Result<Option<User>, Fault> {
    let found = sqlx::query("SELECT * FROM account WHERE name = ?").bind(name).fetch_optional(db).await?;
    Ok(found.as_ref().map(row::user).transpose()?)
}

pub(super) async fn roles(db: &mut SqliteConnection, user_id: &str) -> Result<Vec<(Project, Role)>, Fault> {
    let rows = sqlx::query(
        "SELECT project.*, role_grant.role FROM role_grant JOIN project ON project.id = role_grant.project_id
         WHERE role_grant.account_id = ? ORDER BY project.name",
    )
    .bind(user_id)
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(row::role).collect::<Result<_, _>>()?)
}

pub(super) async fn users(db: &mut SqliteConnection) -> Result<Vec<UserRoles>, Fault> {
    let users = sqlx::query("SELECT * FROM account ORDER BY name").fetch_all(&mut *db).await?;
    let grants = sqlx::query("SELECT * FROM role_grant ORDER BY account_id, project_id").fetch_all(db).await?;
    Ok(row::users_with_roles(&users, &grants)?)
}

pub(super) async fn set_password(
    db: &mut SqliteConnection,
    user_id: &str,
    password_hash: Option<&str>,
) -> Result<(), Fault> {
    let done = sqlx::query("UPDATE account SET password_hash = ? WHERE id = ?")
        .bind(password_hash)
        .bind(user_id)
        .execute(&mut *db)
        .await?;
    found(done.rows_affected(), "user")?;
    end_tokens(db, user_id).await
}

pub(super) async fn disable_user(db: &mut SqliteConnection, user_id: &str, disabled: bool) -> Result<(), Fault> {
    let done = sqlx::query("UPDATE account SET disabled = ? WHERE id = ?")
        .bind(disabled)
        .bind(user_id)
        .execute(&mut *db)
        .await?;
    found(done.rows_affected(), "user")?;
    end_tokens(db, user_id).await
}

async fn end_tokens(db: &mut SqliteConnection, user_id: &str) -> Result<(), Fault> {
    sqlx::query("DELETE FROM token WHERE account_id = ?").bind(user_id).execute(db).await?;
    Ok(())
}

pub(super) async fn remove_user(db: &mut SqliteConnection, user_id: &str) -> Result<(), Fault> {
    let done = sqlx::query("DELETE FROM account WHERE id = ?").bind(user_id).execute(db).await?;
    found(done.rows_affected(), "user")
}

pub(super) async fn grant(db: &mut SqliteConnection, user_id: &str, grant: &Grant) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO role_grant (account_id, project_id, role) VALUES (?, ?, ?)
         ON CONFLICT (account_id, project_id) DO UPDATE SET role = excluded.role",
    )
    .bind(user_id)
    .bind(&grant.project_id)
    .bind(grant.role.as_str())
    .execute(db)
    .await
    .map_err(missing("user or project"))?;
    Ok(())
}

pub(super) async fn revoke(db: &mut SqliteConnection, user_id: &str, project_id: &str) -> Result<(), Fault> {
    let done = sqlx::query("DELETE FROM role_grant WHERE account_id = ? AND project_id = ?")
        .bind(user_id)
        .bind(project_id)
        .execute(&mut *db)
        .await?;
    found(done.rows_affected(), "role")?;
    sqlx::query("DELETE FROM token WHERE account_id = ? AND project_id = ?")
        .bind(user_id)
        .bind(project_id)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn remove_project(db: &mut SqliteConnection, project_id: &str) -> Result<bool, Fault> {
    let instance =
        sqlx::query("SELECT 1 FROM instance WHERE project_id = ?").bind(project_id).fetch_optional(&mut *db).await?;
    if instance.is_some() {
        return Ok(false);
    }
    let done = sqlx::query("DELETE FROM project WHERE id = ?").bind(project_id).execute(db).await?;
    found(done.rows_affected(), "project")?;
    Ok(true)
}

pub(super) async fn add_access_key(db: &mut SqliteConnection, key: &AccessKey) -> Result<(), Fault> {
    sqlx::query("INSERT INTO access_key (access, account_id, secret, disabled, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(&key.access)
        .bind(&key.user_id)
        .bind(&key.secret.0)
        .bind(key.disabled)
        .bind(micros(key.created_at))
        .execute(db)
        .await
        .map_err(missing("user"))?;
    Ok(())
}

pub(super) async fn key_holder(db: &mut SqliteConnection, access: &str) -> Result<Option<KeyHolder>, Fault> {
    let found = sqlx::query("SELECT * FROM access_key WHERE access = ?").bind(access).fetch_optional(&mut *db).await?;
    let Some(found) = found else { return Ok(None) };
    let key = row::access_key(&found)?;
    let user = sqlx::query("SELECT * FROM account WHERE id = ?").bind(&key.user_id).fetch_one(&mut *db).await?;
    let grants = sqlx::query("SELECT * FROM role_grant WHERE account_id = ? ORDER BY project_id")
        .bind(&key.user_id)
        .fetch_all(&mut *db)
        .await?;
    let grants = grants.iter().map(row::grant).collect::<Result<_, _>>()?;
    Ok(Some(KeyHolder { key, user: row::user(&user)?, grants }))
}

pub(super) async fn key_check(db: &mut SqliteConnection, key_id: &str, sealed: &[u8]) -> Result<Vec<u8>, Fault> {
    sqlx::query(
        "INSERT INTO master_key_check (key_id, sealed)
         SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM master_key_check)",
    )
    .bind(key_id)
    .bind(sealed)
    .execute(&mut *db)
    .await?;
    let kept = sqlx::query_scalar("SELECT sealed FROM master_key_check ORDER BY key_id = ? DESC, seq LIMIT 1")
        .bind(key_id)
        .fetch_one(db)
        .await?;
    Ok(kept)
}

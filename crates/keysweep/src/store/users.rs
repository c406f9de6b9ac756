//! Users and their roles.

use std::collections::HashMap;

use super::{
    Store, StoreError,
    db::{DbSession, Row, sql},
    projects::project,
};
use crate::model::{Grant, Project, Role, User, UserRoles};

impl Store {
    /// Adds a user with roles. `Taken` when the name is in use, `Missing` when a project does not exist.
    pub async fn add_user(&self, user: &User, grants: &[Grant]) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("INSERT INTO account (id, name, password_hash, disabled, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(&user.id)
            .bind(&user.name)
            .bind(user.password_hash.as_deref())
            .bind(user.disabled)
            .bind(user.created_at)
            .execute(&mut tx)
            .await?;
        for grant in grants {
            sql("INSERT INTO role_grant (account_id, project_id, role) VALUES ($1, $2, $3)")
                .bind(&user.id)
                .bind(&grant.project_id)
                .bind(grant.role)
                .refers_to("project")
                .execute(&mut tx)
                .await?;
        }
        self.commit(tx).await
    }

    /// Returns the user with this name.
    pub async fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        let found = sql("SELECT * FROM account WHERE name = $1").bind(name).optional(&mut self.reader().await?).await?;
        found.as_ref().map(user).transpose()
    }

    /// Returns the user with this id.
    pub async fn user_of_id(&self, id: &str) -> Result<Option<User>, StoreError> {
        let found = sql("SELECT * FROM account WHERE id = $1").bind(id).optional(&mut self.reader().await?).await?;
        found.as_ref().map(user).transpose()
    }

    /// Returns the projects on which a user has a role, with the role, by name; none when the user does not exist.
    pub async fn roles(&self, user_id: &str) -> Result<Vec<(Project, Role)>, StoreError> {
        sql("SELECT project.*, role_grant.role FROM role_grant JOIN project ON project.id = role_grant.project_id
             WHERE role_grant.account_id = $1 ORDER BY project.name")
        .bind(user_id)
        .list(&mut self.reader().await?, |row| Ok((project(row)?, row.get("role")?)))
        .await
    }

    /// Returns all users with their roles, by name.
    pub async fn users(&self) -> Result<Vec<UserRoles>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let users = sql("SELECT * FROM account ORDER BY name").list(&mut snapshot, user).await?;
        let grants = sql("SELECT * FROM role_grant ORDER BY account_id, project_id").all(&mut snapshot).await?;
        snapshot.commit().await?;
        let mut grants_of: HashMap<String, Vec<Grant>> = HashMap::new();
        for row in &grants {
            grants_of.entry(row.get("account_id")?).or_default().push(grant(row)?);
        }
        let with_roles = |user: User| UserRoles { grants: grants_of.remove(&user.id).unwrap_or_default(), user };
        Ok(users.into_iter().map(with_roles).collect())
    }

    /// Sets or, with `None`, removes a user's password, and revokes the user's tokens. `Missing` when the user does not exist.
    pub async fn set_password(&self, user_id: &str, password_hash: Option<&str>) -> Result<(), StoreError> {
        let change = sql("UPDATE account SET password_hash = $1 WHERE id = $2").bind(password_hash).bind(user_id);
        let mut tx = self.begin_request().await?;
        change.change("user", &mut tx).await?;
        revoke_tokens(&mut tx, user_id).await?;
        self.commit(tx).await
    }

    /// Disables or enables a user, and revokes the user's tokens. `Missing` when the user does not exist.
    pub async fn disable_user(&self, user_id: &str, disabled: bool) -> Result<(), StoreError> {
        let change = sql("UPDATE account SET disabled = $1 WHERE id = $2").bind(disabled).bind(user_id);
        let mut tx = self.begin_request().await?;
        change.change("user", &mut tx).await?;
        revoke_tokens(&mut tx, user_id).await?;
        self.commit(tx).await
    }

    /// Removes a user with roles, access keys and tokens. `Missing` when the user does not exist.
    pub async fn remove_user(&self, user_id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("DELETE FROM account WHERE id = $1").bind(user_id).change("user", &mut tx).await?;
        self.commit(tx).await
    }

    /// Gives a user a role on a project, in place of the user's present one. `Missing` when user or project does not exist.
    pub async fn grant(&self, user_id: &str, grant: &Grant) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("INSERT INTO role_grant (account_id, project_id, role) VALUES ($1, $2, $3)
             ON CONFLICT (account_id, project_id) DO UPDATE SET role = excluded.role")
        .bind(user_id)
        .bind(&grant.project_id)
        .bind(grant.role)
        .refers_to("user or project")
        .execute(&mut tx)
        .await?;
        self.commit(tx).await
    }

    /// Removes a user's role on a project, and the user's tokens for it. `Missing` when the user has no role on it.
    pub async fn revoke(&self, user_id: &str, project_id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin_request().await?;
        sql("DELETE FROM role_grant WHERE account_id = $1 AND project_id = $2")
            .bind(user_id)
            .bind(project_id)
            .change("role", &mut tx)
            .await?;
        sql("DELETE FROM token WHERE account_id = $1 AND project_id = $2")
            .bind(user_id)
            .bind(project_id)
            .execute(&mut tx)
            .await?;
        self.commit(tx).await
    }
}

async fn revoke_tokens(tx: &mut DbSession, user_id: &str) -> Result<(), StoreError> {
    sql("DELETE FROM token WHERE account_id = $1").bind(user_id).execute(tx).await?;
    Ok(())
}

pub(super) fn user(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: row.get("id")?,
        name: row.get("name")?,
        password_hash: row.get("password_hash")?,
        disabled: row.get("disabled")?,
        created_at: row.get("created_at")?,
    })
}

pub(super) fn grant(row: &Row) -> Result<Grant, StoreError> {
    Ok(Grant { project_id: row.get("project_id")?, role: row.get("role")? })
}

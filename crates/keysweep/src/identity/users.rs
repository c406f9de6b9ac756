//! Users: their passwords and roles. Users are administered on the command line.

use serde_json::{Value, json};

use super::{Identity, IdentityError, error::taken};
use crate::{
    model::{AuditEvent, COMMAND_LINE, Grant, Project, Role, User, UserRoles, check_name, now},
    random::new_id,
    secrets::Secret,
    store::{Store, StoreError},
};

impl Identity {
    /// Adds a user with a role on a project, given by id or name. Without a password the user has access keys only.
    pub async fn add_user(
        &self,
        name: &str,
        project: &str,
        role: Role,
        password: Option<Secret>,
    ) -> Result<User, IdentityError> {
        check_name("user name", name)?;
        let grants = [Grant { project_id: self.project(project).await?.id, role }];
        let password_hash = self.hash(password).await?;
        let user = User { id: new_id(), name: name.to_owned(), password_hash, disabled: false, created_at: now() };
        let store = self.audited_for_user(&user, &grants, "user.add", &json!({ "role": role.as_str() }));
        store.add_user(&user, &grants).await.map_err(taken(|_| name))?;
        Ok(user)
    }

    /// Returns all users with their roles, by name.
    pub async fn users(&self) -> Result<Vec<UserRoles>, IdentityError> {
        Ok(self.store.users().await?)
    }

    /// Returns the user of this id.
    pub async fn user_of_id(&self, id: &str) -> Result<Option<User>, IdentityError> {
        Ok(self.store.user_of_id(id).await?)
    }

    /// Returns the user of this name, with roles.
    pub(super) async fn user(&self, name: &str) -> Result<UserRoles, IdentityError> {
        let found = self.users().await?.into_iter().find(|found| found.user.name == name);
        found.ok_or_else(|| IdentityError::Unknown {
            what: "user",
            value: name.to_owned(),
            remedy: "`keysweep admin user list` lists the known ones, `keysweep admin user add` adds one",
        })
    }

    /// Sets or removes a user's password, and revokes the user's tokens.
    pub async fn set_password(&self, name: &str, password: Option<Secret>) -> Result<(), IdentityError> {
        let found = self.user(name).await?;
        let password_hash = self.hash(password).await?;
        let store = self.audited_for_user(&found.user, &found.grants, "user.passwd", &Value::Null);
        Ok(store.set_password(&found.user.id, password_hash.as_deref()).await?)
    }

    /// Disables or enables a user, and revokes the user's tokens.
    pub async fn disable_user(&self, name: &str, disabled: bool) -> Result<(), IdentityError> {
        let found = self.user(name).await?;
        let action = if disabled { "user.disable" } else { "user.enable" };
        let store = self.audited_for_user(&found.user, &found.grants, action, &Value::Null);
        Ok(store.disable_user(&found.user.id, disabled).await?)
    }

    /// Removes a user, with roles, keys and tokens.
    pub async fn remove_user(&self, name: &str) -> Result<(), IdentityError> {
        let found = self.user(name).await?;
        let store = self.audited_for_user(&found.user, &found.grants, "user.remove", &Value::Null);
        Ok(store.remove_user(&found.user.id).await?)
    }

    /// Grants a user a role on a project, given by id or name, in place of the user's role there.
    pub async fn grant(&self, name: &str, project: &str, role: Role) -> Result<(), IdentityError> {
        let (user, project) = (self.user(name).await?.user, self.project(project).await?);
        let grants = [Grant { project_id: project.id, role }];
        let store = self.audited_for_user(&user, &grants, "user.grant", &json!({ "role": role.as_str() }));
        Ok(store.grant(&user.id, &grants[0]).await?)
    }

    /// Revokes a user's role on a project, and the tokens for it.
    pub async fn revoke(&self, name: &str, project: &str) -> Result<(), IdentityError> {
        let (found, project) = (self.user(name).await?, self.project(project).await?);
        let grants: Vec<Grant> = found.grants.into_iter().filter(|grant| grant.project_id == project.id).collect();
        let store = self.audited_for_user(&found.user, &grants, "user.revoke", &Value::Null);
        store.revoke(&found.user.id, &project.id).await.map_err(|error| match error {
            StoreError::Missing(_) => IdentityError::Unknown {
                what: "role of this user on the project",
                value: project.name.clone(),
                remedy: "`keysweep admin user list` lists the users' roles",
            },
            other => other.into(),
        })
    }

    /// Returns the projects that a user has a role on, by name.
    pub async fn roles_of(&self, user: &User) -> Result<Vec<(Project, Role)>, IdentityError> {
        Ok(self.store.roles(&user.id).await?)
    }

    /// Returns the store for one change of a user, which is recorded in the audit trail of every project that it concerns.
    pub(super) fn audited_for_user(
        &self,
        user: &User,
        grants: &[Grant],
        action: &'static str,
        detail: &Value,
    ) -> Store {
        let mut detail = detail.clone();
        match detail.as_object_mut() {
            Some(fields) => drop(fields.insert("user".into(), user.name.clone().into())),
            None => detail = json!({ "user": user.name }),
        }
        let entry = |grant: &Grant| {
            let project_id = Some(grant.project_id.as_str());
            AuditEvent { project_id, actor: COMMAND_LINE, action, subject: &user.id }.entry(&detail)
        };
        self.store.with_audit(grants.iter().map(entry).collect())
    }
}

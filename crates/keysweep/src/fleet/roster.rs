//! What changes about people once they are there: passwords, roles, keys; who is shut out, and who goes.
//!
//! Each change is in the audit trail of every project that it concerns.

use serde_json::{Value, json};

use super::{Deed, Fleet, FleetError, Secret};
use crate::{
    model::{AccessKey, Grant, Role, User, UserRoles},
    store::{Store, StoreError},
};

impl Fleet {
    /// All users with their roles, by name.
    pub async fn users(&self) -> Result<Vec<UserRoles>, FleetError> {
        Ok(self.store.users().await?)
    }

    /// The user of this name, with roles.
    async fn user(&self, name: &str) -> Result<UserRoles, FleetError> {
        let found = self.users().await?.into_iter().find(|found| found.user.name == name);
        found.ok_or_else(|| FleetError::Unknown {
            what: "user",
            value: name.to_owned(),
            remedy: "`keysweep admin user list` shows those there are",
        })
    }

    /// Sets a user's password, or takes it away; ends the user's tokens either way.
    pub async fn set_password(&self, name: &str, password: Option<Secret>) -> Result<(), FleetError> {
        let found = self.user(name).await?;
        let password_hash = match password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let store = self.telling_of_user(&found.user, &found.grants, "user.passwd", &Value::Null);
        Ok(store.set_password(&found.user.id, password_hash.as_deref()).await?)
    }

    /// Shuts a user out, or lets the user in again; ends the user's tokens either way.
    pub async fn disable_user(&self, name: &str, disabled: bool) -> Result<(), FleetError> {
        let found = self.user(name).await?;
        let action = if disabled { "user.disable" } else { "user.enable" };
        let store = self.telling_of_user(&found.user, &found.grants, action, &Value::Null);
        Ok(store.disable_user(&found.user.id, disabled).await?)
    }

    /// Forgets a user, with roles, keys and tokens.
    pub async fn remove_user(&self, name: &str) -> Result<(), FleetError> {
        let found = self.user(name).await?;
        let store = self.telling_of_user(&found.user, &found.grants, "user.remove", &Value::Null);
        Ok(store.remove_user(&found.user.id).await?)
    }

    /// Gives a user a role on a project, given by id or name, in place of the one held there.
    pub async fn grant(&self, name: &str, project: &str, role: Role) -> Result<(), FleetError> {
        let (user, project) = (self.user(name).await?.user, self.project(project).await?);
        let grants = [Grant { project_id: project.id, role }];
        let store = self.telling_of_user(&user, &grants, "user.grant", &json!({ "role": role.as_str() }));
        Ok(store.grant(&user.id, &grants[0]).await?)
    }

    /// Takes a user's role on a project away, and with it the tokens for it.
    pub async fn revoke(&self, name: &str, project: &str) -> Result<(), FleetError> {
        let (found, project) = (self.user(name).await?, self.project(project).await?);
        let grants: Vec<Grant> = found.grants.into_iter().filter(|grant| grant.project_id == project.id).collect();
        let store = self.telling_of_user(&found.user, &grants, "user.revoke", &Value::Null);
        store.revoke(&found.user.id, &project.id).await.map_err(|error| match error {
            StoreError::Missing(_) => FleetError::Unknown {
                what: "role of this user on the project",
                value: project.name.clone(),
                remedy: "`keysweep admin user list` shows who has which",
            },
            other => other.into(),
        })
    }

    /// Forgets a project that has no instances; its users keep their roles on others.
    pub async fn remove_project(&self, project: &str) -> Result<(), FleetError> {
        let project = self.project(project).await?;
        let deed =
            Deed { project_id: Some(&project.id), actor: COMMAND_LINE, action: "project.remove", subject: &project.id };
        let store = self.telling(deed, &json!({ "name": project.name }));
        if !store.remove_project(&project.id).await? {
            return Err(FleetError::InUse {
                what: "project",
                value: project.name,
                remedy: "it has instances; remove them first (`keysweep admin instance list --project …`)",
            });
        }
        Ok(())
    }

    /// All access keys, each with its user's name, by user.
    pub async fn access_keys(&self) -> Result<Vec<(AccessKey, String)>, FleetError> {
        let users = self.users().await?;
        let keys = self.store.access_keys().await?;
        let name = |key: &AccessKey| users.iter().find(|found| found.user.id == key.user_id);
        let mut named: Vec<(AccessKey, String)> = keys
            .into_iter()
            .map(|key| {
                let name = name(&key).map_or_else(String::new, |found| found.user.name.clone());
                (key, name)
            })
            .collect();
        named.sort_by(|one, other| one.1.cmp(&other.1));
        Ok(named)
    }

    /// Refuses or accepts a key's signatures from now on.
    pub async fn disable_access_key(&self, access: &str, disabled: bool) -> Result<(), FleetError> {
        let user = self.user_of_key(access).await?;
        let action = if disabled { "access_key.disable" } else { "access_key.enable" };
        let store = self.telling_of_user(&user.user, &user.grants, action, &json!({ "access": access }));
        Ok(store.disable_access_key(access, disabled).await?)
    }

    /// Forgets a key.
    pub async fn remove_access_key(&self, access: &str) -> Result<(), FleetError> {
        let user = self.user_of_key(access).await?;
        let store = self.telling_of_user(&user.user, &user.grants, "access_key.remove", &json!({ "access": access }));
        Ok(store.remove_access_key(access).await?)
    }

    async fn user_of_key(&self, access: &str) -> Result<UserRoles, FleetError> {
        let holder = self.key_holder(access).await?.ok_or_else(|| FleetError::Unknown {
            what: "access key",
            value: access.to_owned(),
            remedy: "`keysweep admin access-key list` shows those there are",
        })?;
        Ok(UserRoles { user: holder.user, grants: holder.grants })
    }

    /// The store for one change of a user, which the trail of every project that it concerns tells of. People are
    /// administered on the command line.
    pub(super) fn telling_of_user(&self, user: &User, grants: &[Grant], action: &'static str, detail: &Value) -> Store {
        let mut detail = detail.clone();
        match detail.as_object_mut() {
            Some(fields) => drop(fields.insert("user".into(), user.name.clone().into())),
            None => detail = json!({ "user": user.name }),
        }
        let entry = |grant: &Grant| {
            let project_id = Some(grant.project_id.as_str());
            Deed { project_id, actor: COMMAND_LINE, action, subject: &user.id }.entry(&detail)
        };
        self.store.telling(grants.iter().map(entry).collect())
    }
}

/// The actor of what is done on the command line, where whoever has the database may do everything.
pub const COMMAND_LINE: Option<&str> = Some("(command line)");

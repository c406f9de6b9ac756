//! Projects, the users who may do something in them, and the keys that users sign with.

use rand::{RngExt, distr::Alphanumeric, rand_core::UnwrapErr, rngs::SysRng};

use serde_json::json;

use super::{COMMAND_LINE, Deed, Fleet, FleetError, Secret, check_name, id, new_id, now, taken};
use crate::model::{AccessKey, Grant, KeyHolder, Project, Role, User};

const ACCESS_LENGTH: usize = 20;
const ACCESS_ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const SECRET_LENGTH: usize = 40;
/// The field of an access key that is sealed.
pub(super) const SECRET: &str = "secret";

impl Fleet {
    /// Adds a project, with an id of its own or the one that is given.
    pub async fn add_project(&self, name: &str, id: Option<&str>) -> Result<Project, FleetError> {
        check_name("project name", name)?;
        let id = id::given_or_new("project id", id)?;
        let project = Project { id, name: name.to_owned(), created_at: now() };
        let value_of = |field: &str| if field == "id" { project.id.as_str() } else { name };
        let deed =
            Deed { project_id: Some(&project.id), actor: COMMAND_LINE, action: "project.add", subject: &project.id };
        self.telling(deed, &json!({ "name": name })).add_project(&project).await.map_err(taken(value_of))?;
        Ok(project)
    }

    /// All projects, by name.
    pub async fn projects(&self) -> Result<Vec<Project>, FleetError> {
        Ok(self.store.projects().await?)
    }

    /// The project of this id or, where there is none, of this name.
    pub async fn project(&self, id_or_name: &str) -> Result<Project, FleetError> {
        let mut projects = self.projects().await?;
        let position = projects
            .iter()
            .position(|project| project.id == id_or_name)
            .or_else(|| projects.iter().position(|project| project.name == id_or_name));
        match position {
            Some(position) => Ok(projects.swap_remove(position)),
            None => Err(FleetError::Unknown {
                what: "project",
                value: id_or_name.to_owned(),
                remedy: "`keysweep admin project list` shows those there are",
            }),
        }
    }

    /// Adds a user with a role on a project, given by id or name. Without a password the user has access keys only.
    pub async fn add_user(
        &self,
        name: &str,
        project: &str,
        role: Role,
        password: Option<Secret>,
    ) -> Result<User, FleetError> {
        check_name("user name", name)?;
        let grant = Grant { project_id: self.project(project).await?.id, role };
        let password_hash = match password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let user = User { id: new_id(), name: name.to_owned(), password_hash, disabled: false, created_at: now() };
        let grants = [grant];
        let store = self.telling_of_user(&user, &grants, "user.add", &json!({ "role": role.as_str() }));
        store.add_user(&user, &grants).await.map_err(taken(|_| name))?;
        Ok(user)
    }

    /// Adds an access key for the user of this name. Returns both halves; the secret one cannot be read out again.
    pub async fn add_access_key(&self, user: &str) -> Result<(String, Secret), FleetError> {
        let found = self.store.user(user).await?.ok_or_else(|| FleetError::Unknown {
            what: "user",
            value: user.to_owned(),
            remedy: "`keysweep admin user add` adds one",
        })?;
        let mut random = UnwrapErr(SysRng);
        let access: String = (0..ACCESS_LENGTH)
            .map(|_| char::from(ACCESS_ALPHABET[random.random_range(0..ACCESS_ALPHABET.len())]))
            .collect();
        let secret: String = random.sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
        let key = AccessKey {
            access: access.clone(),
            user_id: found.id.clone(),
            secret: self.vault.seal(&access, SECRET, &secret),
            disabled: false,
            created_at: now(),
        };
        let grants = self.users().await?.into_iter().find(|other| other.user.id == found.id);
        let grants = grants.map(|found| found.grants).unwrap_or_default();
        let store = self.telling_of_user(&found, &grants, "access_key.add", &json!({ "access": access }));
        store.add_access_key(&key).await?;
        Ok((access, secret.into()))
    }

    /// The access key of this name, with its user and roles.
    pub async fn key_holder(&self, access: &str) -> Result<Option<KeyHolder>, FleetError> {
        Ok(self.store.key_holder(access).await?)
    }

    /// The secret half of a key, for verifying what was signed with it.
    pub fn open_secret_key(&self, key: &AccessKey) -> Result<Secret, FleetError> {
        Ok(self.vault.open_sealed(&key.access, SECRET, &key.secret)?)
    }
}

//! Instances: registering them, finding them, and the way in, with their secrets opened.

use keysweep_engine::{Credentials, Preset};

use super::{Fleet, FleetError, Secret, address::Address, check_name, id, now, taken};
use crate::model::{Instance, Sealed};

/// The field of an instance that is sealed.
const PASSWORD: &str = "password";

/// A server to be registered.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewInstance<'a> {
    /// Its name, unique in its project.
    pub name: &'a str,
    /// Where it is, with user and password.
    pub url: &'a str,
    /// The password, instead of one in the URL.
    pub password: Option<&'a str>,
    /// Its id, where it must be a certain one.
    pub id: Option<&'a str>,
    /// The pace of its manual scans.
    pub pace: Preset,
    /// Whether sweeps turn `lazyfree-lazy-expire` on while they run.
    pub manage_lazyfree: bool,
}

impl Fleet {
    /// Registers a server in a project, given by id or name. User and password are taken out of the URL, the password
    /// is sealed. Nothing is dialled.
    pub async fn add_instance(&self, project: &str, new: NewInstance<'_>) -> Result<Instance, FleetError> {
        let NewInstance { name, url, password: given, id, pace, manage_lazyfree } = new;
        check_name("instance name", name)?;
        let id = id::given_or_new("instance id", id)?;
        let Address { url, username, password } = Address::parse(url)?;
        let password = given.or(password.as_ref().map(Secret::expose));
        let password = password.map(|password| self.vault.seal(&id, PASSWORD, password));
        let instance = Instance {
            id,
            project_id: self.project(project).await?.id,
            name: name.to_owned(),
            url,
            username,
            password,
            sentinel_username: None,
            sentinel_password: None,
            ca_pem: None,
            cert_pem: None,
            client_key: None,
            server_name: None,
            address_map: None,
            pace: pace.to_string(),
            window: None,
            window_binds_manual: false,
            manage_lazyfree,
            paused: false,
            facts: None,
            unreachable: None,
            created_at: now(),
        };
        let value_of = |field: &str| if field == "id" { instance.id.as_str() } else { name };
        self.store.add_instance(&instance).await.map_err(taken(value_of))?;
        Ok(instance)
    }

    /// All instances of a project, given by id or name, by name.
    pub async fn instances(&self, project: &str) -> Result<Vec<Instance>, FleetError> {
        let project = self.project(project).await?;
        Ok(self.store.instances(&project.id).await?)
    }

    /// All instances of the project of this id, by name.
    pub async fn instances_of(&self, project_id: &str) -> Result<Vec<Instance>, FleetError> {
        Ok(self.store.instances(project_id).await?)
    }

    /// The instance of this id, if it belongs to the project of that id.
    pub async fn instance(&self, project_id: &str, id: &str) -> Result<Option<Instance>, FleetError> {
        Ok(self.store.instance(project_id, id).await?)
    }

    /// Who we are to an instance's data nodes.
    pub fn credentials(&self, instance: &Instance) -> Result<Credentials, FleetError> {
        let open = |sealed: &Sealed| self.vault.open_sealed(&instance.id, PASSWORD, sealed);
        Ok(Credentials {
            username: instance.username.clone(),
            password: instance.password.as_ref().map(open).transpose()?.map(Into::into),
        })
    }
}

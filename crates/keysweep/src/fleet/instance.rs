//! Instances: registering them, finding them, and the way in, with their secrets opened.

use keysweep_engine::{Credentials, Preset, Target};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{Deed, Fleet, FleetError, Reach, check_name, gone, id, now, taken};
use crate::model::{Instance, Sealed, Window};

/// The field of an instance that is sealed.
pub(super) const PASSWORD: &str = "password";

/// A server to be registered.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewInstance<'a> {
    /// Its name, unique in its project.
    pub name: &'a str,
    /// Where it is, with user and password.
    pub url: &'a str,
    /// The password, instead of one in the URL.
    pub password: Option<&'a str>,
    /// How its nodes are reached beside that.
    pub reach: Option<&'a Reach>,
    /// Its id, where it must be a certain one.
    pub id: Option<&'a str>,
    /// The pace of its manual scans.
    pub pace: Preset,
    /// Whether sweeps turn `lazyfree-lazy-expire` on while they run.
    pub manage_lazyfree: bool,
    /// Its off-peak window, as `02:00-05:00 Europe/Paris`.
    pub window: Option<&'a str>,
    /// Whether the window binds manual scans, too.
    pub window_binds_manual: bool,
    /// Name of the user who registers it; for the audit trail.
    pub by: Option<&'a str>,
}

/// What is to change about a registered server; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct InstanceChange {
    /// Its name, unique in its project.
    pub name: Option<String>,
    /// Where it is. User and password are replaced by those in the URL, and forgotten where it has none: a stored
    /// password is never sent to another place than it was given for. The same goes for how its nodes are reached.
    pub url: Option<String>,
    /// How its nodes are reached beside that; only together with the URL, for the same reason.
    pub reach: Option<Reach>,
    /// The pace of its manual scans.
    pub pace: Option<Preset>,
    /// Whether sweeps turn `lazyfree-lazy-expire` on while they run.
    pub manage_lazyfree: Option<bool>,
    /// Its off-peak window, as `02:00-05:00 Europe/Paris`; empty: any time.
    pub window: Option<String>,
    /// Whether the window binds manual scans, too.
    pub window_binds_manual: Option<bool>,
    /// Whether it accepts no new tasks.
    pub paused: Option<bool>,
}

fn deed<'a>(instance: &'a Instance, actor: Option<&'a str>, action: &'static str) -> Deed<'a> {
    Deed { project_id: Some(&instance.project_id), actor, action, subject: &instance.id }
}

/// Parses an instance's URL. Returns the credentials in it, and the URL without them.
fn parse_url(url: &str, password_apart: bool) -> Result<(Credentials, String), FleetError> {
    let (target, url) = Target::parse(url, password_apart).map_err(|error| FleetError::Url(error.to_string()))?;
    Ok((target.credentials, url))
}

impl Fleet {
    /// Registers a server in a project, given by id or name. User and password are taken out of the URL, the password
    /// is sealed. Nothing is dialled.
    pub async fn add_instance(&self, project: &str, new: NewInstance<'_>) -> Result<Instance, FleetError> {
        let NewInstance {
            name,
            url,
            password: given,
            reach,
            id,
            pace,
            manage_lazyfree,
            window,
            window_binds_manual,
            by,
        } = new;
        check_name("instance name", name)?;
        let id = id::given_or_new("instance id", id)?;
        let window: Option<Window> = window.map(str::parse).transpose()?;
        let (Credentials { username, password }, url) = parse_url(url, given.is_some())?;
        self.check_target(&url)?;
        let password = given.or(password.as_ref().map(ExposeSecret::expose_secret));
        let password = password.map(|password| self.vault.seal(&id, PASSWORD, password));
        let mut instance = Instance {
            username,
            password,
            pace: pace.to_string(),
            window: window.as_ref().map(Window::to_string),
            window_binds_manual,
            manage_lazyfree,
            ..Instance::new(id, self.project(project).await?.id, name.to_owned(), url, now())
        };
        reach.unwrap_or(&Reach::default()).keep(&mut instance, &self.vault)?;
        let value_of = |field: &str| if field == "id" { instance.id.as_str() } else { name };
        let detail = json!({ "name": instance.name, "url": instance.url });
        let store = self.telling(deed(&instance, by, "instance.add"), &detail);
        store.add_instance(&instance).await.map_err(taken(value_of))?;
        Ok(instance)
    }

    /// Changes a registered server. Nothing is dialled.
    pub async fn change_instance(
        &self,
        instance: &Instance,
        change: InstanceChange,
        by: Option<&str>,
    ) -> Result<Instance, FleetError> {
        if change.reach.is_some() && change.url.is_none() {
            let remedy = "reach can only be changed together with the url: give it again with user and password, which would otherwise go to another place than they were given for";
            return Err(FleetError::Reach(remedy.to_owned()));
        }
        let mut changed = instance.clone();
        let mut detail = serde_json::Map::new();
        if let Some(name) = change.name {
            check_name("instance name", &name)?;
            detail.insert("name".into(), name.clone().into());
            changed.name = name;
        }
        if let Some(url) = change.url {
            let (Credentials { username, password }, url) = parse_url(&url, false)?;
            self.check_target(&url)?;
            detail.insert("url".into(), url.clone().into());
            changed.password =
                password.map(|password| self.vault.seal(&instance.id, PASSWORD, password.expose_secret()));
            (changed.url, changed.username) = (url, username);
            Reach::default().keep(&mut changed, &self.vault)?;
        }
        if let Some(reach) = change.reach {
            detail.insert("connection".into(), "changed".into());
            reach.keep(&mut changed, &self.vault)?;
        }
        if let Some(pace) = change.pace {
            detail.insert("pace".into(), pace.to_string().into());
            changed.pace = pace.to_string();
        }
        if let Some(manage_lazyfree) = change.manage_lazyfree {
            detail.insert("manage_lazyfree".into(), manage_lazyfree.into());
            changed.manage_lazyfree = manage_lazyfree;
        }
        if let Some(window) = change.window {
            let window: Option<Window> =
                Some(window).filter(|window| !window.is_empty()).map(|window| window.parse()).transpose()?;
            changed.window = window.as_ref().map(Window::to_string);
            detail.insert("window".into(), changed.window.clone().into());
        }
        if let Some(binds) = change.window_binds_manual {
            detail.insert("window_binds_manual".into(), binds.into());
            changed.window_binds_manual = binds;
        }
        if let Some(paused) = change.paused {
            detail.insert("paused".into(), paused.into());
            changed.paused = paused;
        }
        let action = match change.paused {
            Some(true) => "instance.pause",
            Some(false) => "instance.resume",
            None => "instance.change",
        };
        let store = self.telling(deed(&changed, by, action), &detail.into());
        store.update_instance(instance, &changed).await.map_err(taken(|_| changed.name.as_str()))
    }

    /// Forgets an instance with its tasks, unless one of them is active.
    pub async fn remove_instance(&self, instance: &Instance, by: Option<&str>) -> Result<(), FleetError> {
        let store = self.telling(deed(instance, by, "instance.remove"), &json!({ "name": instance.name }));
        if !store.remove_instance(&instance.project_id, &instance.id).await.map_err(gone)? {
            return Err(FleetError::InUse {
                what: "instance",
                value: instance.name.clone(),
                remedy: "a task of it is active; cancel it, or wait until it has ended",
            });
        }
        Ok(())
    }

    /// The instance of this id or, where there is none, of this name, in a project given by id or name.
    pub async fn find_instance(&self, project: &str, id_or_name: &str) -> Result<Instance, FleetError> {
        let mut instances = self.instances(project).await?;
        let position = instances
            .iter()
            .position(|instance| instance.id == id_or_name)
            .or_else(|| instances.iter().position(|instance| instance.name == id_or_name));
        match position {
            Some(position) => Ok(instances.swap_remove(position)),
            None => Err(FleetError::Unknown {
                what: "instance",
                value: id_or_name.to_owned(),
                remedy: "`keysweep admin instance list` shows those there are",
            }),
        }
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

//! Registering, changing, removing and finding instances.

use keysweep_engine::{Preset, Target};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{
    Connection, InstanceError, Instances,
    connection::{check_length, check_plain, longest},
    error::{gone, taken},
};
use crate::{
    model::{Instance, Labels, Sampling, Stored, Window, check_id, check_name, now, other_form},
    random::new_id,
    secrets::field,
};

/// An instance to be registered.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewInstance<'a> {
    /// Name, unique in the project.
    pub name: &'a str,
    /// URL, with user and password.
    pub url: &'a str,
    /// Password, instead of one in the URL.
    pub password: Option<&'a str>,
    /// Connection settings besides the URL.
    pub connection: Option<&'a Connection>,
    /// Id; `None`: a new one.
    pub id: Option<&'a str>,
    /// Pace of its scans.
    pub pace: Preset,
    /// Whether scans turn `lazyfree-lazy-expire` on while they run.
    pub manage_lazyfree: bool,
    /// Maintenance window, as `02:00-05:00 Europe/Paris`.
    pub window: Option<&'a str>,
    /// Whether the window binds manual scans, too.
    pub window_binds_manual: bool,
    /// Labels by which operators select instances.
    pub labels: Option<&'a Labels>,
    /// How its stale keys are estimated in the background.
    pub sampling: Sampling,
    /// Name of the user who registers it, for the audit trail.
    pub by: Option<&'a str>,
}

/// A change of an instance's settings; `None` leaves a setting as it is.
#[derive(Debug, Clone, Default)]
pub struct InstanceChange {
    /// Name, unique in the project.
    pub name: Option<String>,
    /// URL. Its user and password replace the stored ones, which are deleted where the URL has none: a stored password is
    /// never sent to another address than it was given for. The same holds for the connection settings.
    pub url: Option<String>,
    /// Connection settings besides the URL; only together with the URL, for the same reason.
    pub connection: Option<Connection>,
    /// Pace of its scans.
    pub pace: Option<Preset>,
    /// Whether scans turn `lazyfree-lazy-expire` on while they run.
    pub manage_lazyfree: Option<bool>,
    /// Maintenance window, as `02:00-05:00 Europe/Paris`; empty: any time.
    pub window: Option<String>,
    /// Whether the window binds manual scans, too.
    pub window_binds_manual: Option<bool>,
    /// All its labels.
    pub labels: Option<Labels>,
    /// How its stale keys are estimated in the background.
    pub sampling: Option<Sampling>,
    /// Whether it accepts no new tasks.
    pub paused: Option<bool>,
}

impl Instances {
    /// Registers an instance in the project of this id. User and password are taken out of the URL, and the password is
    /// encrypted. Connects to no server.
    pub async fn add(&self, project_id: &str, new: NewInstance<'_>) -> Result<Instance, InstanceError> {
        check_name("instance name", new.name)?;
        if let Some(id) = new.id {
            check_id("instance id", id)?;
            // With and without dashes it is the same id to people, and to some clients.
            let other = other_form(id);
            if self.get(project_id, &other).await?.is_some() {
                return Err(InstanceError::Taken { what: "instance", field: "id", value: other });
            }
        }
        let id = new.id.map_or_else(new_id, str::to_owned);
        let window: Option<Window> = new.window.map(str::parse).transpose()?;
        let mut instance = Instance {
            pace: new.pace.into(),
            window: window.map(Into::into),
            window_binds_manual: new.window_binds_manual,
            manage_lazyfree: new.manage_lazyfree,
            labels: new.labels.cloned().unwrap_or_default().into(),
            sampling: new.sampling,
            ..Instance::new(id, project_id.to_owned(), new.name.to_owned(), String::new(), now())
        };
        self.set_url(&mut instance, new.url, new.password)?;
        new.connection.unwrap_or(&Connection::default()).store_in(&mut instance, &self.vault)?;
        let value_of = |field: &str| if field == "id" { instance.id.as_str() } else { new.name };
        let detail = json!({ "name": instance.name, "url": instance.url.text() });
        let store = self.audited(&instance, new.by, "instance.add", &detail);
        store.add_instance(&instance).await.map_err(taken(value_of))?;
        Ok(instance)
    }

    /// Returns an instance with this URL and these connection settings, which is not registered.
    pub fn unregistered(&self, url: &str, connection: &Connection) -> Result<Instance, InstanceError> {
        let mut instance = Instance::new(new_id(), String::new(), String::new(), String::new(), now());
        self.set_url(&mut instance, url, None)?;
        connection.store_in(&mut instance, &self.vault)?;
        Ok(instance)
    }

    /// Returns every fault of settings that were typed: of the name, of the URL with its connection settings (`None`: they stay
    /// as they are), and of the maintenance window. Whether the name is taken shows when it is stored.
    pub fn faults(&self, name: &str, connection: Option<(&str, &Connection)>, window: &str) -> Vec<InstanceError> {
        let named = check_name("instance name", name).err().map(InstanceError::from);
        let connected = connection.and_then(|(url, connection)| self.unregistered(url, connection).err());
        let bounded =
            Some(window).filter(|window| !window.is_empty()).and_then(|window| window.parse::<Window>().err());
        [named, connected, bounded.map(InstanceError::from)].into_iter().flatten().collect()
    }

    /// Sets an instance's URL, user and password. `password`: given beside the URL.
    pub(super) fn set_url(
        &self,
        instance: &mut Instance,
        url: &str,
        password: Option<&str>,
    ) -> Result<(), InstanceError> {
        // With user and password, each percent-encoded. A longer text is not even parsed.
        let written = longest::URL + 3 * (longest::NAME + longest::PASSWORD);
        check_length("URL with user and password", Some(url), written).map_err(InstanceError::Url)?;
        let parsed = Target::parse(url, password.is_some());
        let (target, url) = parsed.map_err(|error| InstanceError::Url(error.to_string()))?;
        self.check_target(&target)?;
        let credentials = target.credentials;
        let host_or_path = Some(url.as_str());
        let user = credentials.username.as_deref();
        let secret = password.or(credentials.password.as_ref().map(|password| password.expose_secret()));
        for (field, text, longest) in [
            ("URL", host_or_path, longest::URL),
            ("user", user, longest::NAME),
            ("password", secret, longest::PASSWORD),
        ] {
            check_plain(field, text, longest).map_err(InstanceError::Url)?;
        }
        let in_url = credentials.password.as_ref().map(|password| password.expose_secret());
        let password = password.or(in_url).filter(|password| !password.is_empty());
        instance.password = password.map(|password| self.vault.seal(&instance.id, field::PASSWORD, password));
        (instance.url, instance.username) = (Stored::read(url), credentials.username);
        Ok(())
    }

    /// Changes an instance's settings, and returns it as it is stored then. Connects to no server. `Held`: the URL or the address
    /// map of an instance that is held cannot be changed.
    pub async fn change(
        &self,
        instance: &Instance,
        change: InstanceChange,
        by: Option<&str>,
    ) -> Result<Instance, InstanceError> {
        if change.connection.is_some() && change.url.is_none() {
            let remedy = "connection can only be changed together with the url: give the url again with user and password; stored secrets are never sent to a different address";
            return Err(InstanceError::Connection(remedy.to_owned()));
        }
        let mut changed = instance.clone();
        let mut detail: Map<String, Value> = Map::new();
        if let Some(name) = change.name {
            check_name("instance name", &name)?;
            detail.insert("name".into(), name.clone().into());
            changed.name = name;
        }
        if let Some(url) = change.url {
            self.set_url(&mut changed, &url, None)?;
            detail.insert("url".into(), changed.url.text().into());
            Connection::default().store_in(&mut changed, &self.vault)?;
        }
        if let Some(connection) = change.connection {
            detail.insert("connection".into(), "changed".into());
            connection.store_in(&mut changed, &self.vault)?;
        }
        if let Some(pace) = change.pace {
            detail.insert("pace".into(), pace.to_string().into());
            changed.pace = pace.into();
        }
        if let Some(manage_lazyfree) = change.manage_lazyfree {
            detail.insert("manage_lazyfree".into(), manage_lazyfree.into());
            changed.manage_lazyfree = manage_lazyfree;
        }
        if let Some(window) = change.window {
            let window: Option<Window> =
                Some(window).filter(|window| !window.is_empty()).map(|window| window.parse()).transpose()?;
            changed.window = window.map(Into::into);
            detail.insert("window".into(), changed.window.as_ref().map(Stored::text).into());
        }
        if let Some(binds) = change.window_binds_manual {
            detail.insert("window_binds_manual".into(), binds.into());
            changed.window_binds_manual = binds;
        }
        if let Some(labels) = change.labels {
            detail.insert("labels".into(), json!(labels.as_map()));
            changed.labels = labels.into();
        }
        if let Some(sampling) = change.sampling {
            detail.insert("sampling".into(), sampling.as_str().into());
            changed.sampling = sampling;
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
        let store = self.audited(&changed, by, action, &detail.into());
        store.update_instance(instance, &changed).await.map_err(taken(|_| changed.name.as_str()))
    }

    /// Removes an instance with its tasks, unless one of them is active, or its servers have to be restored.
    pub async fn remove(&self, instance: &Instance, by: Option<&str>) -> Result<(), InstanceError> {
        let store = self.audited(instance, by, "instance.remove", &json!({ "name": instance.name }));
        match store.remove_instance(&instance.project_id, &instance.id).await.map_err(gone)? {
            true => Ok(()),
            false => Err(InstanceError::InUse(instance.name.clone())),
        }
    }

    /// Returns the instance of this id, if it belongs to the project.
    pub async fn get(&self, project_id: &str, id: &str) -> Result<Option<Instance>, InstanceError> {
        Ok(self.store.instance(project_id, id).await?)
    }
}

//! Making a project's instances those of an inventory: what is to be added, changed and removed, and doing all of it at once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    Connection, InstanceError, Instances,
    connection::{check_plain, longest},
    error::gone,
};
use crate::{
    budget::BudgetShare,
    model::{AuditEvent, Instance, Labels, Sealed, check_name, now},
    random::new_id,
    secrets::{Secret, field},
    store::{InstanceChanges, StoreError},
};

/// Most instances of an inventory that is applied.
pub const MAX_LISTED: usize = 1_000;

/// Invalid entries that an error names.
const SHOWN_ERRORS: usize = 20;

/// An instance as an inventory lists it. Settings that it does not have, such as the pace, are left alone.
#[derive(Debug, Clone, Default)]
pub struct ListedInstance {
    /// Name, by which it is found in the project.
    pub name: String,
    /// URL of the server.
    pub url: String,
    /// User on the data nodes; `None`: the one in the URL.
    pub username: Option<String>,
    /// Password on the data nodes; `None`: the one in the URL.
    pub password: Option<Secret>,
    /// Connection settings besides the URL.
    pub connection: Connection,
    /// All its labels.
    pub labels: Labels,
}

/// What applying an inventory does to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is registered.
    Add,
    /// Some of its fields are changed.
    Change,
    /// It is removed with its tasks.
    Remove,
    /// It is as the inventory lists it.
    Keep,
    /// The inventory does not list it, and nothing is removed.
    Unlisted,
}

impl Action {
    /// Returns the name of the action.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Keep => "keep",
            Self::Unlisted => "unlisted",
        }
    }

    /// Returns whether the action changes anything.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Add | Self::Change | Self::Remove)
    }
}

/// One instance of a plan.
#[derive(Debug, Clone)]
pub struct PlannedInstance {
    /// Name of the instance.
    pub name: String,
    /// Id of a registered instance.
    pub instance_id: Option<String>,
    /// What happens to it.
    pub action: Action,
    /// The fields that change.
    pub fields: Vec<&'static str>,
    /// The instance as it is stored; `None`: it is added.
    before: Option<Instance>,
    /// The instance as it will be; `None`: it is not listed.
    after: Option<Instance>,
}

/// What applying an inventory does, by name.
#[derive(Debug, Clone)]
pub struct InventoryPlan {
    /// Every listed and every registered instance.
    pub steps: Vec<PlannedInstance>,
    /// Memory that is counted for the registered instances.
    _share: Option<Arc<BudgetShare>>,
}

/// Why an inventory was not applied. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum InventoryPlanError {
    /// Entries are invalid: a sentence each, with name and field.
    #[error("{}", first_of(.0))]
    Entries(Vec<String>),
    /// There are too many entries.
    #[error("invalid instances: {0} are listed; at most {MAX_LISTED} can be applied at once, use several projects")]
    TooMany(usize),
    /// The plan is not the one that was confirmed.
    #[error("the instances were changed after the plan was made; make a new plan, and look at it")]
    Outdated,
    /// The store or the master key failed, or an instance that is to be removed has an active task.
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

/// Joins the first sentences, and says how many more there are.
fn first_of(sentences: &[String]) -> String {
    let more = sentences.len().saturating_sub(SHOWN_ERRORS);
    let shown = sentences.iter().take(SHOWN_ERRORS).map(String::as_str).collect::<Vec<_>>().join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

impl InventoryPlan {
    /// Returns a digest that is the same as long as the plan is.
    pub fn digest(&self) -> String {
        let steps =
            self.steps.iter().map(|step| json!([step.name, step.instance_id, step.action.as_str(), step.fields]));
        hex::encode(Sha256::digest(Value::Array(steps.collect()).to_string()))
    }

    /// Returns whether applying the plan changes something.
    pub fn has_changes(&self) -> bool {
        self.steps.iter().any(|step| step.action.is_change())
    }
}

impl Instances {
    /// Returns what applying an inventory to a project does. `prune`: instances that it does not list are removed. Changes
    /// nothing and connects to no server; every entry is checked as registering it would.
    pub async fn plan_inventory(
        &self,
        project_id: &str,
        listed: &[ListedInstance],
        prune: bool,
    ) -> Result<InventoryPlan, InventoryPlanError> {
        if listed.len() > MAX_LISTED {
            return Err(InventoryPlanError::TooMany(listed.len()));
        }
        let (registered, share) = self.list(project_id).await?.into_parts();
        let mut registered: HashMap<String, Instance> =
            registered.into_iter().map(|instance| (instance.name.clone(), instance)).collect();
        let (mut steps, mut errors, mut names) = (Vec::new(), Vec::new(), HashSet::new());
        for entry in listed {
            if !names.insert(entry.name.as_str()) {
                errors.push(format!("instance {:?}: name: it is listed twice; remove one entry", entry.name));
                continue;
            }
            match self.step(project_id, entry, registered.remove(&entry.name)) {
                Ok(step) => steps.push(step),
                Err(error @ (InstanceError::Vault(_) | InstanceError::Store(_))) => return Err(error.into()),
                Err(error) => errors.push(format!("instance {:?}: {error}", entry.name)),
            }
        }
        if !errors.is_empty() {
            return Err(InventoryPlanError::Entries(errors));
        }
        steps.extend(registered.into_values().map(|instance| PlannedInstance {
            name: instance.name.clone(),
            instance_id: Some(instance.id.clone()),
            action: if prune { Action::Remove } else { Action::Unlisted },
            fields: Vec::new(),
            before: Some(instance),
            after: None,
        }));
        steps.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(InventoryPlan { steps, _share: share.map(Arc::new) })
    }

    /// Does what a plan says: all of it, or nothing. `InUse`: an instance that is to be removed has an active task; `Held`:
    /// one that is to be removed or moved is held.
    pub async fn apply_inventory(&self, plan: &InventoryPlan, by: Option<&str>) -> Result<(), InventoryPlanError> {
        let mut changes = InstanceChanges::default();
        let mut audit = Vec::new();
        for step in &plan.steps {
            let (action, detail) = match (step.action, &step.before, &step.after) {
                (Action::Add, _, Some(after)) => {
                    changes.added.push(after.clone());
                    ("instance.add", json!({ "name": after.name, "url": after.url.text() }))
                }
                (Action::Change, Some(before), Some(after)) => {
                    changes.changed.push((before.clone(), after.clone()));
                    ("instance.change", change_detail(after, &step.fields))
                }
                (Action::Remove, Some(before), _) => {
                    changes.removed.push(before.clone());
                    ("instance.remove", json!({ "name": before.name }))
                }
                _ => continue,
            };
            let Some(instance) = step.after.as_ref().or(step.before.as_ref()) else { continue };
            let event = AuditEvent { project_id: Some(&instance.project_id), actor: by, action, subject: &instance.id };
            audit.push(event.entry(&detail));
        }
        match self.store.with_audit(audit).change_instances(&changes).await {
            Ok(None) => Ok(()),
            Ok(Some(name)) => Err(InstanceError::InUse(name).into()),
            // An instance was registered, renamed or removed after the plan was made.
            Err(StoreError::Taken { .. } | StoreError::Missing(_)) => Err(InventoryPlanError::Outdated),
            Err(error) => Err(gone(error).into()),
        }
    }

    /// Returns what happens to a listed instance.
    fn step(
        &self,
        project_id: &str,
        entry: &ListedInstance,
        registered: Option<Instance>,
    ) -> Result<PlannedInstance, InstanceError> {
        check_name("name", &entry.name)?;
        let mut after = registered.clone().unwrap_or_else(|| {
            Instance::new(new_id(), project_id.to_owned(), entry.name.clone(), String::new(), now())
        });
        self.set_url(&mut after, &entry.url, entry.password.as_ref().map(Secret::expose))?;
        if let Some(username) = &entry.username {
            check_plain("user", Some(username.as_str()), longest::NAME).map_err(InstanceError::Url)?;
            after.username = Some(username.clone());
        }
        if after.username.is_some() && after.password.is_none() {
            return Err(InstanceError::Connection("username: needs a password".into()));
        }
        entry.connection.store_in(&mut after, &self.vault)?;
        after.labels = entry.labels.clone().into();
        let Some(before) = registered else {
            return Ok(PlannedInstance {
                name: entry.name.clone(),
                instance_id: None,
                action: Action::Add,
                fields: Vec::new(),
                before: None,
                after: Some(after),
            });
        };
        let fields = self.changed_fields(&before, &mut after);
        Ok(PlannedInstance {
            name: entry.name.clone(),
            instance_id: Some(before.id.clone()),
            action: if fields.is_empty() { Action::Keep } else { Action::Change },
            fields,
            before: Some(before),
            after: Some(after),
        })
    }

    /// Returns the fields that differ. Secrets are compared as they are decrypted; one that stays keeps its stored form.
    fn changed_fields(&self, before: &Instance, after: &mut Instance) -> Vec<&'static str> {
        let is_same_secret = |name: &'static str, one: &Option<Sealed>, other: &Option<Sealed>| match (one, other) {
            (None, None) => true,
            // A secret that the master key does not decrypt is replaced by the one of the inventory.
            (Some(one), Some(other)) => {
                let open = |sealed| self.vault.open_sealed(&before.id, name, sealed).ok();
                match (open(one), open(other)) {
                    (Some(one), Some(other)) => one.expose() == other.expose(),
                    _ => false,
                }
            }
            _ => false,
        };
        let mut fields = Vec::new();
        let mut note = |name, is_same: bool| {
            if !is_same {
                fields.push(name);
            }
            is_same
        };
        note("url", before.url == after.url);
        note("username", before.username == after.username);
        if note("password", is_same_secret(field::PASSWORD, &before.password, &after.password)) {
            after.password = before.password.clone();
        }
        note("sentinel_username", before.sentinel_username == after.sentinel_username);
        let is_same = is_same_secret(field::SENTINEL_PASSWORD, &before.sentinel_password, &after.sentinel_password);
        if note("sentinel_password", is_same) {
            after.sentinel_password = before.sentinel_password.clone();
        }
        note("ca", before.ca_pem == after.ca_pem);
        note("certificate", before.cert_pem == after.cert_pem);
        if note("key", is_same_secret(field::CLIENT_KEY, &before.client_key, &after.client_key)) {
            after.client_key = before.client_key.clone();
        }
        note("server_name", before.server_name == after.server_name);
        note("address_map", before.address_map == after.address_map);
        note("labels", before.labels == after.labels);
        fields
    }
}

/// Returns what the audit trail says of a change: new values of fields that are no secret.
fn change_detail(after: &Instance, fields: &[&'static str]) -> Value {
    let value = |field: &str| match field {
        "url" => json!(after.url.text()),
        "labels" => after.labels.value().map_or(Value::Null, |labels| json!(labels.as_map())),
        _ => json!("changed"),
    };
    Value::Object(fields.iter().map(|field| ((*field).to_owned(), value(field))).collect::<Map<_, _>>())
}

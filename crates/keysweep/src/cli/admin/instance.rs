//! `keysweep admin instance`: the instances of a project.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Subcommand;
use indicatif::HumanCount;
use keysweep_engine::{Preset, Restored};
use serde_json::{Value, json};

use super::{Output, settings::SettingsArgs};
use crate::{
    cli::{
        client::fields::{count, engine, text},
        connection::ConnectionArgs,
        exit::InvalidInput,
        listing::{Column, List, ListingArgs},
        login::Password,
        term,
    },
    hold::{
        RestoreFile,
        recovery::{Forget, Recovery},
    },
    identity::Identity,
    instances::{InstanceChange, Instances, NewInstance},
    model::{COMMAND_LINE, Label, Labels, Sampling, Stored},
    store::Store,
};

#[derive(Debug, Subcommand)]
pub enum Instance {
    /// Register an instance
    Add {
        /// Name of the instance
        name: String,
        /// URL of the server: redis://host:port or redis://user@host:port; avoid a password in it, every user of this
        /// machine can read a command line
        url: String,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        connection: Box<ConnectionArgs>,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
        /// Use this ID instead of generating one: 32 hex digits or a UUID
        #[arg(long)]
        id: Option<String>,
        /// Throttle profile of its scans: gentle, normal, fast or max
        #[arg(long, value_name = "PACE", default_value = "normal")]
        pace: Preset,
        /// Enable lazyfree-lazy-expire during scans, so that large values are freed in the background
        #[arg(long)]
        manage_lazyfree: bool,
        /// Maintenance window of scheduled scans, for example "02:00-05:00 Europe/Paris"
        #[arg(long, value_name = "WINDOW")]
        window: Option<String>,
        /// Apply the maintenance window to manual scans too
        #[arg(long, requires = "window")]
        window_binds_manual: bool,
        /// Label by which the instance can be selected; repeatable
        #[arg(long = "label", value_name = "NAME=VALUE")]
        labels: Vec<Label>,
        /// How the service estimates its stale keys in the background: off, replica (reclaims nothing) or primary (samples
        /// reclaim their stale keys)
        #[arg(long, value_name = "HOW", default_value = "replica")]
        sampling: Sampling,
    },
    /// Change the settings of an instance; settings that are left out keep their values
    #[command(override_usage = "keysweep admin instance set [OPTIONS] --project <PROJECT> <INSTANCE>")]
    Set {
        /// Name or ID of the instance
        instance: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
        #[command(flatten)]
        settings: Box<SettingsArgs>,
    },
    /// Reject new tasks for an instance; an active task continues
    Pause {
        /// Name or ID of the instance
        instance: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
    },
    /// Accept tasks for a paused instance again
    Resume {
        /// Name or ID of the instance
        instance: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
    },
    /// Restore the own settings of an instance's servers, and set its level to observe; also without a running service
    Restore {
        /// Name or ID of the instance
        instance: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
        /// Remove the records of restored servers, so that values found later count as their own
        #[arg(long)]
        forget: bool,
        /// Also remove the records of servers that cannot be reached, which are gone for good
        #[arg(long, conflicts_with = "forget")]
        forget_all: bool,
    },
    /// Remove an instance and its tasks; rejected while a task is active, and while servers have to be restored
    Remove {
        /// Name or ID of the instance
        instance: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
    },
    /// List the instances of a project
    List {
        /// Name or ID of the project
        #[arg(long)]
        project: String,
        /// List only instances with this label; repeatable
        #[arg(short = 'l', long = "label", value_name = "NAME=VALUE")]
        labels: Vec<Label>,
        #[command(flatten)]
        listing: ListingArgs,
    },
}

/// The list of instances.
const LIST: List<'static> = List {
    fields: &[
        "/id",
        "/name",
        "/url",
        "/username",
        "/labels",
        "/pace",
        "/paused",
        "/window",
        "/sampling",
        "/unreachable",
        "/stats/engine",
        "/stats/engine_version",
        "/stats/keys",
        "/stats/used_memory",
        "/created_at",
    ],
    columns: &[
        Column::whole("id", |instance| text(&instance["id"])),
        Column::elastic("name", |instance| text(&instance["name"])),
        Column::elastic("url", |instance| text(&instance["url"])),
        Column::elastic("server", server),
    ],
};

/// Describes the server of an instance as its last poll found it.
fn server(instance: &Value) -> String {
    let stats = &instance["stats"];
    let polled = match stats.is_object() {
        true => {
            format!("{} {}, {} keys", text(&stats["engine"]), text(&stats["engine_version"]), count(&stats["keys"]))
        }
        false => "no data yet".to_owned(),
    };
    let failed = instance["unreachable"].as_str().map(|cause| format!("last check failed: {cause}"));
    let problems = instance["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    [polled].into_iter().chain(failed).chain(problems).collect::<Vec<_>>().join("; ")
}

impl Instance {
    /// Runs the command.
    ///
    /// # Errors
    /// A value is invalid, the project or instance is unknown, or the store failed.
    pub async fn run(
        self,
        store: &Store,
        identity: &Identity,
        instances: &Instances,
        file: &RestoreFile,
    ) -> anyhow::Result<Output> {
        match self {
            Self::Add {
                name,
                url,
                password,
                connection,
                project,
                id,
                pace,
                manage_lazyfree,
                window,
                window_binds_manual,
                labels,
                sampling,
            } => {
                let labels = Labels::try_from(labels)?;
                let invalid = |error: String| InvalidInput::mark(anyhow::Error::msg(error));
                let connection = connection.read().map_err(invalid)?;
                let password = password.read().map_err(invalid)?;
                let new = NewInstance {
                    name: &name,
                    url: &url,
                    password: password.as_deref(),
                    connection: Some(&connection),
                    id: id.as_deref(),
                    pace,
                    manage_lazyfree,
                    window: window.as_deref(),
                    window_binds_manual,
                    labels: Some(&labels),
                    sampling,
                    by: COMMAND_LINE,
                };
                let project = identity.project(&project).await?;
                let instance = instances.add(&project.id, new).await?;
                confirm(instances, &instance).await;
                Ok(Output::one(&[("id", &instance.id)]))
            }
            Self::Set { instance, project, settings } => {
                let instance = instances.find(&identity.project(&project).await?.id, &instance).await?;
                settings.apply(&instance, store, instances).await
            }
            Self::Pause { instance, project } => set_paused(identity, instances, &project, &instance, true).await,
            Self::Resume { instance, project } => set_paused(identity, instances, &project, &instance, false).await,
            Self::Restore { instance, project, forget, forget_all } => {
                let instance = &instances.find(&identity.project(&project).await?.id, &instance).await?;
                let forget = Forget::of(forget, forget_all);
                let recovery = Recovery { store, instances, file, instance, by: COMMAND_LINE };
                restored(&recovery.run(forget).await?, forget)
            }
            Self::Remove { instance, project } => {
                let project = identity.project(&project).await?;
                let instance = instances.find(&project.id, &instance).await?;
                instances.remove(&instance, COMMAND_LINE).await?;
                Ok(Output::Done)
            }
            Self::List { project, labels, listing } => {
                let instances = instances.select(&identity.project(&project).await?.id, &labels).await?;
                let row = |instance: &crate::model::Instance| {
                    let labels = instance.labels.value().map(Labels::as_map).unwrap_or(&BTreeMap::new()).clone();
                    json!({
                        "id": instance.id, "name": instance.name, "url": instance.url.text(), "username": instance.username,
                        "pace": instance.pace.text(), "paused": instance.paused, "manage_lazyfree": instance.manage_lazyfree,
                        "window": instance.window.as_ref().map(Stored::text),
                        "window_binds_manual": instance.window_binds_manual, "labels": labels,
                        "sampling": instance.sampling.as_str(), "stats": instance.stats, "unreachable": instance.unreachable.as_ref().map(|failure| &failure.cause),
                        "problems": instance.problems(), "created_at": instance.created_at,
                    })
                };
                Ok(Output::List { listing, rows: instances.iter().map(row).collect(), list: LIST })
            }
        }
    }
}

/// Prints what became of each server of an instance.
fn restored(servers: &[Restored], forget: Forget) -> anyhow::Result<Output> {
    for server in servers {
        term::note(&server.to_string());
    }
    let left = servers.iter().filter(|server| forget.leaves(server)).count();
    if left > 0 {
        bail!(
            "{left} of {} servers may have other settings than their own: run this again when they can be restored, or with \
             --forget-all if they are gone for good",
            servers.len()
        );
    }
    let (restored, gone): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.is_done());
    let (restored, gone) = (restored.len().to_string(), gone.len().to_string());
    Ok(Output::one(&[("restored", &restored), ("forgotten_unreachable", &gone)]))
}

/// Polls a new instance, and prints what its server is, or why it cannot be reached: registration does not require that.
pub(in crate::cli) async fn confirm(instances: &Instances, instance: &crate::model::Instance) {
    let name = &instance.name;
    term::note(&match instances.poll(instance).await {
        Ok(stats) => {
            let (engine, version) = (engine(&stats.engine), &stats.engine_version);
            format!("{name} added: {engine} {version}, {} keys", HumanCount(stats.keys))
        }
        Err(cause) => format!(
            "{name} added, but its server is unreachable: {cause}. Edit the instance in the console, or remove and add it"
        ),
    });
}

async fn set_paused(
    identity: &Identity,
    instances: &Instances,
    project: &str,
    instance: &str,
    paused: bool,
) -> anyhow::Result<Output> {
    let instance = instances.find(&identity.project(project).await?.id, instance).await?;
    let change = InstanceChange { paused: Some(paused), ..InstanceChange::default() };
    instances.change(&instance, change, COMMAND_LINE).await?;
    Ok(Output::Done)
}

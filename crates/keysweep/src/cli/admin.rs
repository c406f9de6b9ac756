//! `keysweep admin`: projects, users, access keys and instances, written to the store directly.

mod access;
mod data;

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Subcommand};
use indicatif::HumanCount;
use keysweep_engine::{HoldLevel, HoldPolicy, Preset};
use serde_json::{Value, json};

pub(super) use self::access::ask_new_password;
use self::access::{AccessKey, Project, User};
use super::{connection::ConnectionArgs, login::Password, scan::percent, term};
use crate::{
    app::{self, Opened},
    config::{FileConfig, StoreArgs},
    hold,
    identity::Identity,
    instances::{InstanceChange, Instances, NewInstance},
    model::{COMMAND_LINE, Label, Labels, Sampling, Stored},
    store::Store,
};

/// Arguments of `keysweep admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Print one JSON object, or an array for lists
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Store(StoreCommand),
    /// Back up the SQLite database to a new file, also while the service runs
    Backup {
        /// Path of the backup; must not exist
        file: PathBuf,
    },
    /// Copy the SQLite database into an empty PostgreSQL one
    Copy {
        /// Target: postgres://USER:PASSWORD@HOST:PORT/NAME
        #[arg(long, value_name = "URL", env = "KEYSWEEP_COPY_TO", hide_env_values = true)]
        to: String,
    },
    /// Manage the master key that encrypts secrets in the database
    #[command(subcommand)]
    Key(Key),
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Rotate the master key: re-encrypt all stored secrets; stop all keysweep processes of the database first
    Rotate {
        /// File of the new key, created if absent; without this option the new key replaces --key-file
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Manage projects: tenants, each with its own instances
    #[command(subcommand)]
    Project(Project),
    /// Manage users: people and programs that call the API
    #[command(subcommand)]
    User(User),
    /// Manage access keys, which sign requests
    #[command(subcommand)]
    AccessKey(AccessKey),
    /// Manage instances: the servers to scan
    #[command(subcommand)]
    Instance(Instance),
}

#[derive(Debug, Subcommand)]
enum Instance {
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
    /// Set whether and how the stale share of an instance is held; options that are left out keep their values
    Set {
        /// Name or ID of the instance
        instance: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
        /// observe, advise, or hold, which lets keysweep change settings of the instance's servers
        #[arg(long, value_name = "LEVEL", required = true)]
        hold_level: HoldLevel,
        /// Share of all keys below which the stale keys are held, in percent, from 2 to 30
        #[arg(long, value_name = "PERCENT", value_parser = percent)]
        hold_below: Option<f64>,
        /// Highest active-expire-effort to write
        #[arg(long, value_name = "N")]
        hold_max_effort: Option<u8>,
        /// Highest hz to write, at most 100; without it hz is not written
        #[arg(long, value_name = "N")]
        hold_max_hz: Option<u32>,
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
    /// Remove an instance and its tasks; rejected while a task is active
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
    },
}

/// Runs the command.
///
/// # Errors
/// A setting is invalid, the database cannot be opened, or the command failed.
#[tokio::main]
pub async fn run(args: AdminArgs) -> anyhow::Result<()> {
    let settings = args.store.resolve(&FileConfig::read(args.store.config.as_deref())?)?;
    let output = match args.command {
        Command::Backup { file } => data::backup(&settings.database, &file).await?,
        Command::Copy { to } => data::copy(&settings.database, &to.parse()?).await?,
        Command::Key(Key::Rotate { to }) => data::rotate_key(&settings, to.as_deref()).await?,
        Command::Store(command) => {
            let Opened { store, identity, instances } = app::open(&settings).await?;
            let output = match command {
                StoreCommand::Project(project) => project.run(&identity).await,
                StoreCommand::User(user) => user.run(&identity).await,
                StoreCommand::AccessKey(key) => key.run(&identity).await,
                StoreCommand::Instance(instance) => instance.run(&store, &identity, &instances).await,
            };
            app::close(&store).await;
            output?
        }
    };
    output.print(args.json);
    Ok(())
}

/// Result of a command, printed as a table or as JSON.
struct Output {
    json: Value,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Output {
    /// Returns a single object: one field per line.
    fn one(fields: &[(&'static str, &str)]) -> Self {
        let object = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let rows = fields.iter().map(|(name, value)| vec![(*name).to_owned(), (*value).to_owned()]).collect();
        Self { json: Value::Object(object), header: Vec::new(), rows }
    }

    /// Returns an empty result.
    fn done() -> Self {
        Self { json: json!({}), header: Vec::new(), rows: Vec::new() }
    }

    fn print(self, as_json: bool) {
        match as_json {
            true => term::json(&self.json),
            false if self.rows.is_empty() && self.header.is_empty() => {}
            false => term::table(&self.header, self.rows),
        }
    }
}

impl Instance {
    async fn run(self, store: &Store, identity: &Identity, instances: &Instances) -> anyhow::Result<Output> {
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
                let connection = connection.read().map_err(anyhow::Error::msg)?;
                let password = password.read().map_err(anyhow::Error::msg)?;
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
            Self::Set { instance, project, hold_level, hold_below, hold_max_effort, hold_max_hz } => {
                let instance = instances.find(&identity.project(&project).await?.id, &instance).await?;
                let before = hold::get(store, &instance).await?.policy;
                let policy = HoldPolicy {
                    level: hold_level,
                    below: hold_below.unwrap_or(before.below),
                    max_effort: hold_max_effort.unwrap_or(before.max_effort),
                    max_hz: hold_max_hz.or(before.max_hz),
                    ..before
                };
                let set = hold::set(store, &instance, policy, COMMAND_LINE).await?.policy;
                let below = format!("{:.1} %", set.below * 100.0);
                Ok(Output::one(&[("hold", set.level.as_str()), ("below", &below)]))
            }
            Self::Pause { instance, project } => set_paused(identity, instances, &project, &instance, true).await,
            Self::Resume { instance, project } => set_paused(identity, instances, &project, &instance, false).await,
            Self::Remove { instance, project } => {
                let project = identity.project(&project).await?;
                let instance = instances.find(&project.id, &instance).await?;
                instances.remove(&instance, COMMAND_LINE).await?;
                Ok(Output::done())
            }
            Self::List { project, labels } => {
                let instances = instances.select(&identity.project(&project).await?.id, &labels).await?;
                let rows = instances.iter().map(|instance| {
                    let stats = instance.stats.as_ref().map_or_else(
                        || "no data yet".to_owned(),
                        |stats| format!("{} {}, {} keys", stats.engine, stats.engine_version, stats.keys),
                    );
                    let mut server = match &instance.unreachable {
                        Some(cause) => format!("{stats}; last check failed: {cause}"),
                        None => stats,
                    };
                    for problem in instance.problems() {
                        server.push_str("; ");
                        server.push_str(&problem);
                    }
                    vec![instance.id.clone(), instance.name.clone(), instance.url.to_string(), server]
                });
                let rows = rows.collect();
                let json = instances.iter().map(|instance| {
                    json!({
                        "id": instance.id, "name": instance.name, "url": instance.url.text(), "username": instance.username,
                        "pace": instance.pace.text(), "paused": instance.paused, "manage_lazyfree": instance.manage_lazyfree,
                        "window": instance.window.as_ref().map(Stored::text), "window_binds_manual": instance.window_binds_manual,
                        "labels": instance.labels.value().map(Labels::as_map).unwrap_or(&BTreeMap::new()), "sampling": instance.sampling.as_str(), "stats": instance.stats, "unreachable": instance.unreachable,
                        "problems": instance.problems(),
                        "created_at": instance.created_at,
                    })
                });
                Ok(Output { json: json.collect(), header: vec!["id", "name", "url", "server"], rows })
            }
        }
    }
}

/// Polls a new instance, and prints what its server is, or why it cannot be reached: registration does not require that.
pub(super) async fn confirm(instances: &Instances, instance: &crate::model::Instance) {
    let name = &instance.name;
    term::note(&match instances.poll(instance).await {
        Ok(stats) => {
            let engine = match stats.engine.as_str() {
                "redis" => "Redis",
                "valkey" => "Valkey",
                other => other,
            };
            format!("{name} added: {engine} {}, {} keys", stats.engine_version, HumanCount(stats.keys))
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
    Ok(Output::done())
}

//! `keysweep admin`: projects, users, access keys and instances, written to the store directly.

mod data;
mod people;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use keysweep_engine::Preset;
use serde_json::{Value, json};

use self::people::{AccessKey, Project, User};
use super::{login::Password, reach::ReachArgs, term};
use crate::{
    app,
    config::{FileConfig, StoreArgs},
    fleet::{COMMAND_LINE, Fleet, InstanceChange, NewInstance},
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
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    #[command(flatten)]
    Registered(Registered),
    /// Write a copy of the SQLite database to a new file, also while the service runs
    Backup {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// Copy the SQLite database into an empty PostgreSQL one
    Copy {
        /// Where to: postgres://USER:PASSWORD@HOST:PORT/NAME
        #[arg(long, value_name = "URL", env = "KEYSWEEP_COPY_TO", hide_env_values = true)]
        to: String,
    },
    /// The master key that secrets in the database are encrypted with
    #[command(subcommand)]
    Key(Key),
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Encrypt every stored secret with a new master key; stop every keysweep that uses the database first
    Rotate {
        /// File of the new key, which stays there and is made when it is absent; without it the new key takes the place of
        /// --key-file
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum Registered {
    /// Tenants, each with instances of its own
    #[command(subcommand)]
    Project(Project),
    /// People and programs that call the API
    #[command(subcommand)]
    User(User),
    /// Keys that requests are signed with
    #[command(subcommand)]
    AccessKey(AccessKey),
    /// Servers to sweep
    #[command(subcommand)]
    Instance(Instance),
}

#[derive(Debug, Subcommand)]
enum Instance {
    /// Register a server
    Add {
        /// Its name
        name: String,
        /// Where it is: redis://host:port or redis://user@host:port; a password may stand in it, but everybody on this
        /// machine can read it then
        url: String,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        reach: Box<ReachArgs>,
        /// Name or id of the project
        #[arg(long)]
        project: String,
        /// Its id, where it must be a certain one: 32 hexadecimal digits or a UUID
        #[arg(long)]
        id: Option<String>,
        /// How much of the server's time its scans may use: gentle, normal, fast or max
        #[arg(long, value_name = "PACE", default_value = "normal")]
        pace: Preset,
        /// Turn lazyfree-lazy-expire on while a scan runs, so that large values are freed in the background
        #[arg(long)]
        manage_lazyfree: bool,
        /// Time of day in which scheduled scans may run, as "02:00-05:00 Europe/Paris"
        #[arg(long, value_name = "WINDOW")]
        window: Option<String>,
        /// Keep manual scans to the window as well
        #[arg(long, requires = "window")]
        window_binds_manual: bool,
    },
    /// Accept no new tasks for an instance; an active one goes on
    Pause {
        /// Its name or id
        instance: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
    },
    /// Accept tasks for a paused instance again
    Resume {
        /// Its name or id
        instance: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
    },
    /// Remove an instance and its tasks; refused while one of them is active
    Remove {
        /// Its name or id
        instance: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
    },
    /// List a project's instances
    List {
        /// Name or id of the project
        #[arg(long)]
        project: String,
    },
}

/// Does what was typed.
#[tokio::main]
pub async fn run(args: AdminArgs) -> anyhow::Result<()> {
    let settings = args.store.resolve(&FileConfig::read(args.store.config.as_deref())?)?;
    let answer = match args.noun {
        Noun::Backup { file } => data::backup(&settings.database, &file).await?,
        Noun::Copy { to } => data::copy(&settings.database, &to.parse()?).await?,
        Noun::Key(Key::Rotate { to }) => data::rotate_key(&settings, to.as_deref()).await?,
        Noun::Registered(noun) => {
            let (store, fleet) = app::open(&settings).await?;
            let answer = match noun {
                Registered::Project(project) => project.run(&fleet).await,
                Registered::User(user) => user.run(&fleet).await,
                Registered::AccessKey(key) => key.run(&fleet).await,
                Registered::Instance(instance) => instance.run(&fleet).await,
            };
            app::close(&store).await;
            answer?
        }
    };
    answer.print(args.json);
    Ok(())
}

/// A result, for people and for programs.
struct Answer {
    json: Value,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Answer {
    /// One thing: a line a field.
    fn one(fields: &[(&'static str, &str)]) -> Self {
        let object = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let rows = fields.iter().map(|(name, value)| vec![(*name).to_owned(), (*value).to_owned()]).collect();
        Self { json: Value::Object(object), header: Vec::new(), rows }
    }

    /// Nothing to show but that it is done.
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
    async fn run(self, fleet: &Fleet) -> anyhow::Result<Answer> {
        match self {
            Self::Add {
                name,
                url,
                password,
                reach,
                project,
                id,
                pace,
                manage_lazyfree,
                window,
                window_binds_manual,
            } => {
                let reach = reach.read().map_err(anyhow::Error::msg)?;
                let password = password.read().map_err(anyhow::Error::msg)?;
                let new = NewInstance {
                    name: &name,
                    url: &url,
                    password: password.as_deref(),
                    reach: Some(&reach),
                    id: id.as_deref(),
                    pace,
                    manage_lazyfree,
                    window: window.as_deref(),
                    window_binds_manual,
                    by: COMMAND_LINE,
                };
                let instance = fleet.add_instance(&project, new).await?;
                // Registering does not depend on the server being up; what it says is kept when it is.
                if let Err(cause) = fleet.look(&instance).await {
                    term::note(&format!(
                        "registered, but not seen yet: {cause} (what is wrong is changed in the console, or by removing and adding it)"
                    ));
                }
                Ok(Answer::one(&[("id", &instance.id)]))
            }
            Self::Pause { instance, project } => set_paused(fleet, &project, &instance, true).await,
            Self::Resume { instance, project } => set_paused(fleet, &project, &instance, false).await,
            Self::Remove { instance, project } => {
                let instance = fleet.find_instance(&project, &instance).await?;
                fleet.remove_instance(&instance, COMMAND_LINE).await?;
                Ok(Answer::done())
            }
            Self::List { project } => {
                let instances = fleet.instances(&project).await?;
                let rows = instances.iter().map(|instance| {
                    let seen = instance.facts.as_ref().map_or_else(
                        || "not seen yet".to_owned(),
                        |facts| format!("{} {}, {} keys", facts.engine, facts.engine_version, facts.keys),
                    );
                    let server = match &instance.unreachable {
                        Some(cause) => format!("{seen}; now: {cause}"),
                        None => seen,
                    };
                    vec![instance.id.clone(), instance.name.clone(), instance.url.clone(), server]
                });
                let rows = rows.collect();
                let json = instances.iter().map(|instance| {
                    json!({
                        "id": instance.id, "name": instance.name, "url": instance.url, "username": instance.username,
                        "pace": instance.pace, "paused": instance.paused, "manage_lazyfree": instance.manage_lazyfree,
                        "window": instance.window, "window_binds_manual": instance.window_binds_manual, "stats": instance.facts, "unreachable": instance.unreachable,
                        "created_at": instance.created_at,
                    })
                });
                Ok(Answer { json: json.collect(), header: vec!["id", "name", "url", "server"], rows })
            }
        }
    }
}

async fn set_paused(fleet: &Fleet, project: &str, instance: &str, paused: bool) -> anyhow::Result<Answer> {
    let instance = fleet.find_instance(project, instance).await?;
    let change = InstanceChange { paused: Some(paused), ..InstanceChange::default() };
    fleet.change_instance(&instance, change, COMMAND_LINE).await?;
    Ok(Answer::done())
}

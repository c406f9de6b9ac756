//! `keysweep admin`: projects, users, access keys and instances, written to the store directly.

mod access;
mod data;
mod instance;
mod settings;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub(super) use self::{access::ask_new_password, instance::confirm};
use self::{
    access::{AccessKey, Project, User},
    instance::Instance,
};
use super::term;
use crate::{
    app::{self, Opened},
    config::{FileConfig, StoreArgs},
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

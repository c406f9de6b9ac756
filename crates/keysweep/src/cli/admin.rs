//! `keysweep admin`: projects, users, access keys, instances and the audit trail, in the store directly.

mod access;
mod audit;
mod data;
mod instance;
mod settings;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub(super) use self::{access::ask_new_password, instance::confirm};
use self::{
    access::{AccessKey, Project, User},
    audit::AuditArgs,
    instance::Instance,
};
use super::{
    exit::InvalidInput,
    listing::{List, ListingArgs},
    term,
};
use crate::{
    app::{self, Opened},
    config::{FileConfig, StoreArgs},
    hold::RestoreFile,
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
    /// List the audit trail of a project, newest first
    Audit(AuditArgs),
}

/// Runs the command.
///
/// # Errors
/// A setting is invalid, the database cannot be opened, or the command failed.
#[tokio::main]
pub async fn run(args: AdminArgs) -> anyhow::Result<()> {
    let settings = FileConfig::read(args.store.config.as_deref()).and_then(|file| args.store.resolve(&file));
    let settings = settings.map_err(InvalidInput::mark)?;
    let output = match args.command {
        Command::Backup { file } => data::backup(&settings.database, &file).await?,
        Command::Copy { to } => data::copy(&settings.database, &to.parse().map_err(InvalidInput::mark)?).await?,
        Command::Key(Key::Rotate { to }) => data::rotate_key(&settings, to.as_deref()).await?,
        Command::Store(command) => {
            let file = RestoreFile::in_data(&settings.data_folder());
            let Opened { store, identity, instances } = app::open(&settings).await?;
            let output = match command {
                StoreCommand::Project(project) => project.run(&identity).await,
                StoreCommand::User(user) => user.run(&identity).await,
                StoreCommand::AccessKey(key) => key.run(&identity).await,
                StoreCommand::Instance(instance) => instance.run(&store, &identity, &instances, &file).await,
                StoreCommand::Audit(audit) => audit.run(&identity).await,
            };
            app::close(&store).await;
            output?
        }
    };
    output.print(args.json);
    Ok(())
}

/// Result of a command.
enum Output {
    /// Nothing to print but an empty JSON object.
    Done,
    /// An object: one field per line.
    One { json: Value, rows: Vec<(&'static str, String)> },
    /// A list of objects.
    List { listing: ListingArgs, rows: Vec<Value>, list: List<'static> },
}

impl Output {
    /// Returns an object of texts.
    fn one(fields: &[(&'static str, &str)]) -> Self {
        let json = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let rows = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::One { json: Value::Object(json), rows }
    }

    fn print(self, as_json: bool) {
        match self {
            Self::Done if as_json => term::json(&json!({})),
            Self::One { json, .. } if as_json => term::json(&json),
            Self::Done => {}
            Self::One { rows, .. } => term::pairs(rows),
            Self::List { listing, rows, list } => {
                let whole = Value::Array(rows);
                listing.print(as_json, &whole, whole.as_array().map(Vec::as_slice).unwrap_or_default(), &list);
            }
        }
    }
}

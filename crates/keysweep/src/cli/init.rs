//! `keysweep init`: project, administrator, access key and first instance of an empty database, in one dialogue.

use std::{
    io::{IsTerminal, Write, stdin},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use keysweep_engine::Target;
use serde_json::json;

use super::{
    admin::{ask_new_password, confirm},
    exit::InvalidInput,
    term,
};
use crate::{
    app::{self, Opened},
    config::{DEFAULT_LISTEN, FileConfig, StoreArgs},
    instances::NewInstance,
    model::{COMMAND_LINE, Role, check_name},
    secrets::{Secret, secret_file, secret_from_stdin},
};

/// Arguments of `keysweep init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Name of the project [default: main]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Name of the administrator [default: admin]
    #[arg(long, value_name = "NAME")]
    admin: Option<String>,
    /// Read the administrator's password from standard input instead of prompting for it
    #[arg(long)]
    password_stdin: bool,
    /// Save the administrator's access key to this new file [default: keysweep-key.json]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// URL of the first server: redis://host:port
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Name of the first instance [default: cache]
    #[arg(long, value_name = "NAME", requires = "url")]
    instance: Option<String>,
    /// Read the server's password from this file
    #[arg(long, value_name = "FILE", requires = "url")]
    server_password_file: Option<PathBuf>,
}

/// What is to be created, complete and checked.
struct Plan {
    project: String,
    admin: String,
    password: Secret,
    credentials: PathBuf,
    server: Option<FirstInstance>,
}

struct FirstInstance {
    name: String,
    url: String,
    password: Option<String>,
}

/// Creates what a new installation needs.
///
/// # Errors
/// The database already has projects or users, an answer is invalid, or a file cannot be written. Then nothing was created.
#[tokio::main]
pub async fn run(args: InitArgs) -> anyhow::Result<()> {
    let settings = FileConfig::read(args.store.config.as_deref()).and_then(|file| args.store.resolve(&file));
    let settings = settings.map_err(InvalidInput::mark)?;
    let opened = app::open(&settings).await?;
    let initialized = initialize(args, &opened).await;
    app::close(&opened.store).await;
    let credentials = initialized?;
    term::note(&format!("The master key is in {}; keep a copy of it apart from backups.", settings.key_file.display()));
    term::note(&format!("Next: keysweep serve, then open http://{DEFAULT_LISTEN}/console"));
    term::note(&format!(
        "For keysweep task, instance and autoscan: export KEYSWEEP_ENDPOINT=http://{DEFAULT_LISTEN} KEYSWEEP_CREDENTIALS={}",
        credentials.display()
    ));
    Ok(())
}

/// Creates everything. Returns the file of the access key.
async fn initialize(args: InitArgs, opened: &Opened) -> anyhow::Result<PathBuf> {
    let Opened { identity, instances, .. } = opened;
    if !identity.projects().await?.is_empty() || !identity.users().await?.is_empty() {
        bail!("this database already has projects or users; `keysweep admin` adds more");
    }
    let plan = Plan::of(args).map_err(InvalidInput::mark)?;
    // The file comes first: a secret that was created and could not be saved would be lost.
    let mut file = new_secret_file(&plan.credentials)?;
    let created = async {
        let project = identity.add_project(&plan.project, None).await?;
        identity.add_user(&plan.admin, &project.id, Role::Admin, Some(plan.password)).await?;
        let (access, secret) = identity.add_access_key(&plan.admin).await?;
        writeln!(file, "{}", json!({ "access": access, "secret": secret.expose() }))
            .and_then(|()| file.sync_all())
            .with_context(|| format!("--credentials {}", plan.credentials.display()))?;
        let Some(server) = &plan.server else { return Ok((project, None)) };
        let new = NewInstance {
            name: &server.name,
            url: &server.url,
            password: server.password.as_deref(),
            by: COMMAND_LINE,
            ..NewInstance::default()
        };
        let instance = instances.add(&project.id, new).await?;
        anyhow::Ok((project, Some(instance)))
    };
    let created = created.await;
    let (project, instance) = match created {
        Ok(created) => created,
        Err(error) => {
            // Nothing existed before, so all of it can go; what fails here is less than what failed before.
            let _ = identity.remove_user(&plan.admin).await;
            let _ = identity.remove_project(&plan.project).await;
            let _ = std::fs::remove_file(&plan.credentials);
            return Err(error.context("nothing was created"));
        }
    };
    term::note(&format!("Project {} created, ID {}.", project.name, project.id));
    term::note(&format!("Administrator {} created; the access key is in {}.", plan.admin, plan.credentials.display()));
    if let Some(instance) = instance {
        confirm(instances, &instance).await;
    }
    Ok(plan.credentials)
}

impl Plan {
    /// Completes the options with the answers to questions, on a terminal, or else with defaults.
    fn of(args: InitArgs) -> anyhow::Result<Self> {
        let asks = stdin().is_terminal() && !args.password_stdin;
        let answer = |option: Option<String>, question: &str, default: &str| match option {
            Some(value) => Ok(value),
            None if asks => term::ask(question, default),
            None => Ok(default.to_owned()),
        };
        let project = answer(args.project, "Name of the project", "main")?;
        check_name("project name", &project)?;
        let admin = answer(args.admin, "Name of the administrator", "admin")?;
        check_name("user name", &admin)?;
        let password = match (args.password_stdin, asks) {
            (true, _) => secret_from_stdin().context("--password-stdin")?.into(),
            (_, true) => ask_new_password()?,
            _ => bail!("standard input is not a terminal; provide the administrator's password with --password-stdin"),
        };
        let credentials = args.credentials.unwrap_or_else(|| "keysweep-key.json".into());
        let url = answer(args.url, "URL of the first server, such as redis://127.0.0.1:6379 (empty: none)", "")?;
        let mut server = None;
        if !url.is_empty() {
            url.parse::<Target>().map_err(|error| anyhow::anyhow!("--url: {error}"))?;
            let name = answer(args.instance, "Name of this instance", "cache")?;
            check_name("instance name", &name)?;
            let password = match args.server_password_file {
                Some(path) => Some(secret_file("--server-password-file", &path).map_err(anyhow::Error::msg)?),
                None if asks => Some(term::ask_secret("Password of the server (empty: none): ")?),
                None => None,
            };
            server = Some(FirstInstance { name, url, password: password.filter(|password| !password.is_empty()) });
        }
        Ok(Self { project, admin, password, credentials, server })
    }
}

/// Creates a file that only its owner can read.
fn new_secret_file(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("--credentials {}: a new file is needed for the access key", path.display()))
}

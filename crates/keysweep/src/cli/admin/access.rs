//! `keysweep admin project|user|access-key`: access to the API.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Output, term};
use crate::{
    cli::{
        client::fields::{text, time},
        exit::InvalidInput,
        listing::{Column, List, ListingArgs},
    },
    identity::Identity,
    model::Role,
    secrets::{Secret, secret_from_stdin},
};

#[derive(Debug, Subcommand)]
pub(super) enum Project {
    /// Add a project
    Add {
        /// Name of the project
        name: String,
        /// Use this ID instead of generating one: 32 hex digits or a UUID
        #[arg(long)]
        id: Option<String>,
    },
    /// List all projects
    List {
        #[command(flatten)]
        listing: ListingArgs,
    },
    /// Remove a project that has no instances
    Remove {
        /// Name or ID of the project
        project: String,
    },
}

/// Sources of a password. No option takes one directly: every user of the machine can read a command line.
#[derive(Debug, Args)]
pub(super) struct PasswordSource {
    /// Read a password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Prompt for a password on the terminal
    #[arg(long, conflicts_with = "password_stdin")]
    password_prompt: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a user. Without a password, the user signs requests with an access key
    Add {
        /// Name of the user
        name: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
        /// Role on the project: reader, operator or admin
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List all users with their roles
    List {
        #[command(flatten)]
        listing: ListingArgs,
    },
    /// Grant a user a role on a project, replacing an earlier role there
    Grant {
        /// Name of the user
        name: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
        /// Role on the project: reader, operator or admin
        #[arg(long)]
        role: Role,
    },
    /// Revoke the role of a user on a project
    Revoke {
        /// Name of the user
        name: String,
        /// Name or ID of the project
        #[arg(long)]
        project: String,
    },
    /// Set the password of a user and revoke the user's tokens; prompts on the terminal by default
    Passwd {
        /// Name of the user
        name: String,
        #[command(flatten)]
        password: PasswordSource,
        /// Remove the password; the user can then use access keys only
        #[arg(long, conflicts_with_all = ["password_stdin", "password_prompt"])]
        none: bool,
    },
    /// Disable a user: reject the user's credentials and revoke the tokens
    Disable {
        /// Name of the user
        name: String,
    },
    /// Enable a disabled user
    Enable {
        /// Name of the user
        name: String,
    },
    /// Remove a user with all roles, access keys and tokens
    Remove {
        /// Name of the user
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AccessKey {
    /// Create an access key; its secret is shown only once
    Add {
        /// Name of the user
        #[arg(long)]
        user: String,
    },
    /// List all access keys, without secrets
    List {
        #[command(flatten)]
        listing: ListingArgs,
    },
    /// Disable an access key: reject its signatures
    Disable {
        /// The access key
        access: String,
    },
    /// Enable a disabled access key
    Enable {
        /// The access key
        access: String,
    },
    /// Remove an access key
    Remove {
        /// The access key
        access: String,
    },
}

impl Project {
    pub(super) async fn run(self, identity: &Identity) -> anyhow::Result<Output> {
        match self {
            Self::Add { name, id } => {
                let project = identity.add_project(&name, id.as_deref()).await?;
                term::note(&format!("project {name} added"));
                Ok(Output::one(&[("id", &project.id)]))
            }
            Self::List { listing } => {
                let rows = identity.projects().await?.iter().map(|project| json!(project)).collect();
                Ok(Output::List { listing, rows, list: PROJECTS })
            }
            Self::Remove { project } => {
                identity.remove_project(&project).await?;
                Ok(Output::Done)
            }
        }
    }
}

impl PasswordSource {
    fn read(self) -> anyhow::Result<Option<Secret>> {
        if self.password_stdin {
            return Ok(Some(secret_from_stdin()?.into()));
        }
        if self.password_prompt { Ok(Some(ask_new_password()?)) } else { Ok(None) }
    }
}

/// Prompts twice, because the input is not echoed.
pub(in crate::cli) fn ask_new_password() -> anyhow::Result<Secret> {
    let (password, repeated) = (term::ask_secret("New password: ")?, term::ask_secret("Repeat the password: ")?);
    match password == repeated {
        true => Ok(password.into()),
        false => Err(InvalidInput::mark(anyhow::anyhow!("the passwords differ; nothing was changed"))),
    }
}

impl User {
    pub(super) async fn run(self, identity: &Identity) -> anyhow::Result<Output> {
        match self {
            Self::Add { name, project, role, password } => {
                let user = identity.add_user(&name, &project, role, password.read()?).await?;
                term::note(&format!("user {name} added: {role} on {project}"));
                return Ok(Output::one(&[("id", &user.id)]));
            }
            Self::List { listing } => return Ok(Output::List { listing, rows: users(identity).await?, list: USERS }),
            Self::Grant { name, project, role } => identity.grant(&name, &project, role).await?,
            Self::Revoke { name, project } => identity.revoke(&name, &project).await?,
            Self::Passwd { name, none: true, .. } => identity.set_password(&name, None).await?,
            Self::Passwd { name, password, .. } => {
                let password = password.read()?.map_or_else(ask_new_password, Ok)?;
                identity.set_password(&name, Some(password)).await?;
            }
            Self::Disable { name } => identity.disable_user(&name, true).await?,
            Self::Enable { name } => identity.disable_user(&name, false).await?,
            Self::Remove { name } => identity.remove_user(&name).await?,
        }
        Ok(Output::Done)
    }
}

/// Returns all users with their roles.
async fn users(identity: &Identity) -> anyhow::Result<Vec<Value>> {
    let (users, projects) = (identity.users().await?, identity.projects().await?);
    let name = |id: &str| projects.iter().find(|project| project.id == id).map(|project| project.name.as_str());
    let rows = users.iter().map(|found| {
        let roles: Vec<_> = found
            .grants
            .iter()
            .map(|grant| {
                json!({ "project": name(&grant.project_id), "project_id": grant.project_id, "role": grant.role.as_str() })
            })
            .collect();
        let user = &found.user;
        json!({ "id": user.id, "name": user.name, "roles": roles, "disabled": user.disabled,
                "has_password": user.password_hash.is_some(), "created_at": user.created_at })
    });
    Ok(rows.collect())
}

/// Formats the roles of a user.
fn roles(user: &Value) -> String {
    let role = |grant: &Value| {
        let project = grant["project"].as_str().or(grant["project_id"].as_str()).unwrap_or_default();
        format!("{} on {project}", text(&grant["role"]))
    };
    user["roles"].as_array().into_iter().flatten().map(role).collect::<Vec<_>>().join(", ")
}

/// Formats whether a user or an access key is disabled.
fn state(row: &Value) -> String {
    if row["disabled"] == true { "disabled".into() } else { "enabled".into() }
}

/// The list of projects.
const PROJECTS: List<'static> = List {
    fields: &["/id", "/name", "/created_at"],
    columns: &[
        Column::whole("id", |project| text(&project["id"])),
        Column::elastic("name", |project| text(&project["name"])),
        Column::whole("created", |project| time(&project["created_at"])),
    ],
};

/// The list of users.
const USERS: List<'static> = List {
    fields: &["/id", "/name", "/roles", "/disabled", "/has_password", "/created_at"],
    columns: &[
        Column::elastic("name", |user| text(&user["name"])),
        Column::elastic("roles", roles),
        Column::whole("signs in with", |user| {
            if user["has_password"] == true { "password".into() } else { "keys only".into() }
        }),
        Column::whole("state", state),
    ],
};

/// The list of access keys.
const ACCESS_KEYS: List<'static> = List {
    fields: &["/access", "/user", "/disabled", "/created_at"],
    columns: &[
        Column::whole("access", |key| text(&key["access"])),
        Column::elastic("user", |key| text(&key["user"])),
        Column::whole("state", state),
        Column::whole("created", |key| time(&key["created_at"])),
    ],
};

impl AccessKey {
    pub(super) async fn run(self, identity: &Identity) -> anyhow::Result<Output> {
        match self {
            Self::Add { user } => {
                let (access, secret) = identity.add_access_key(&user).await?;
                return Ok(Output::one(&[("access", &access), ("secret", secret.expose())]));
            }
            Self::List { listing } => {
                let keys = identity.access_keys().await?;
                let rows = keys.iter().map(|(key, user)| {
                    json!({ "access": key.access, "user": user, "disabled": key.disabled, "created_at": key.created_at })
                });
                return Ok(Output::List { listing, rows: rows.collect(), list: ACCESS_KEYS });
            }
            Self::Disable { access } => identity.disable_access_key(&access, true).await?,
            Self::Enable { access } => identity.disable_access_key(&access, false).await?,
            Self::Remove { access } => identity.remove_access_key(&access).await?,
        }
        Ok(Output::Done)
    }
}

//! `keysweep admin project|user|access-key`: who may use the API, and for what.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Answer, term};
use crate::{
    cli::login::secret_from_stdin,
    fleet::{Fleet, Secret},
    model::Role,
};

#[derive(Debug, Subcommand)]
pub(super) enum Project {
    /// Add a project
    Add {
        /// Its name
        name: String,
        /// Its id, where it must be a certain one: 32 hexadecimal digits or a UUID
        #[arg(long)]
        id: Option<String>,
    },
    /// List all projects
    List,
    /// Remove a project that has no instances
    Remove {
        /// Its name or id
        project: String,
    },
}

/// Where a password comes from. Never an argument: those are seen by everybody on the machine.
#[derive(Debug, Args)]
pub(super) struct PasswordSource {
    /// Read a password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Ask for a password on the terminal
    #[arg(long, conflicts_with = "password_stdin")]
    password_prompt: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a user. Without a password the user signs requests with an access key
    Add {
        /// The user's name
        name: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
        /// What the user may do there: reader, operator or admin
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List all users with their roles
    List,
    /// Give a user a role on another project, or another role on the same
    Grant {
        /// The user's name
        name: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
        /// What the user may do there: reader, operator or admin
        #[arg(long)]
        role: Role,
    },
    /// Take a user's role on a project away
    Revoke {
        /// The user's name
        name: String,
        /// Name or id of the project
        #[arg(long)]
        project: String,
    },
    /// Set a user's password and end the user's tokens; asks on the terminal unless told otherwise
    Passwd {
        /// The user's name
        name: String,
        #[command(flatten)]
        password: PasswordSource,
        /// Take the password away: the user has access keys only from then on
        #[arg(long, conflicts_with_all = ["password_stdin", "password_prompt"])]
        none: bool,
    },
    /// Refuse a user's credentials and end the user's tokens
    Disable {
        /// The user's name
        name: String,
    },
    /// Accept a disabled user's credentials again
    Enable {
        /// The user's name
        name: String,
    },
    /// Remove a user with roles, keys and tokens
    Remove {
        /// The user's name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AccessKey {
    /// Add a key; its secret is shown this once
    Add {
        /// The user's name
        #[arg(long)]
        user: String,
    },
    /// List all keys, without their secrets
    List,
    /// Refuse a key's signatures
    Disable {
        /// The key
        access: String,
    },
    /// Accept a disabled key's signatures again
    Enable {
        /// The key
        access: String,
    },
    /// Remove a key
    Remove {
        /// The key
        access: String,
    },
}

impl Project {
    pub(super) async fn run(self, fleet: &Fleet) -> anyhow::Result<Answer> {
        match self {
            Self::Add { name, id } => {
                let project = fleet.add_project(&name, id.as_deref()).await?;
                Ok(Answer::one(&[("id", &project.id)]))
            }
            Self::List => {
                let projects = fleet.projects().await?;
                let rows = projects.iter().map(|project| vec![project.id.clone(), project.name.clone()]).collect();
                Ok(Answer { json: serde_json::to_value(&projects)?, header: vec!["id", "name"], rows })
            }
            Self::Remove { project } => {
                fleet.remove_project(&project).await?;
                Ok(Answer::done())
            }
        }
    }
}

impl PasswordSource {
    fn read(self) -> anyhow::Result<Option<Secret>> {
        if self.password_stdin {
            return Ok(Some(secret_from_stdin()?.into()));
        }
        if self.password_prompt { Ok(Some(ask()?)) } else { Ok(None) }
    }
}

/// Asks twice: what was typed cannot be seen.
fn ask() -> anyhow::Result<Secret> {
    let (one, other) = (term::ask_secret("New password: ")?, term::ask_secret("Again: ")?);
    match one == other {
        true => Ok(one.into()),
        false => anyhow::bail!("the two passwords differ; nothing is changed"),
    }
}

impl User {
    pub(super) async fn run(self, fleet: &Fleet) -> anyhow::Result<Answer> {
        match self {
            Self::Add { name, project, role, password } => {
                let user = fleet.add_user(&name, &project, role, password.read()?).await?;
                return Ok(Answer::one(&[("id", &user.id)]));
            }
            Self::List => return list(fleet).await,
            Self::Grant { name, project, role } => fleet.grant(&name, &project, role).await?,
            Self::Revoke { name, project } => fleet.revoke(&name, &project).await?,
            Self::Passwd { name, none: true, .. } => fleet.set_password(&name, None).await?,
            Self::Passwd { name, password, .. } => {
                let password = password.read()?.map_or_else(ask, Ok)?;
                fleet.set_password(&name, Some(password)).await?;
            }
            Self::Disable { name } => fleet.disable_user(&name, true).await?,
            Self::Enable { name } => fleet.disable_user(&name, false).await?,
            Self::Remove { name } => fleet.remove_user(&name).await?,
        }
        Ok(Answer::done())
    }
}

async fn list(fleet: &Fleet) -> anyhow::Result<Answer> {
    let (users, projects) = (fleet.users().await?, fleet.projects().await?);
    let project_name = |id: &str| {
        projects.iter().find(|project| project.id == id).map_or_else(|| id.to_owned(), |project| project.name.clone())
    };
    let rows = users.iter().map(|found| {
        let roles: Vec<String> =
            found.grants.iter().map(|grant| format!("{} on {}", grant.role, project_name(&grant.project_id))).collect();
        let user = &found.user;
        let state = if user.disabled { "disabled" } else { "enabled" };
        let password = if user.password_hash.is_some() { "password" } else { "keys only" };
        vec![user.name.clone(), roles.join(", "), password.to_owned(), state.to_owned()]
    });
    let rows = rows.collect();
    let json = users.iter().map(|found| {
        let roles: Vec<_> = found
            .grants
            .iter()
            .map(|grant| json!({ "project_id": grant.project_id, "role": grant.role.as_str() }))
            .collect();
        let user = &found.user;
        json!({ "id": user.id, "name": user.name, "roles": roles, "disabled": user.disabled,
                "has_password": user.password_hash.is_some(), "created_at": user.created_at })
    });
    Ok(Answer { json: json.collect(), header: vec!["name", "roles", "signs in with", "state"], rows })
}

impl AccessKey {
    pub(super) async fn run(self, fleet: &Fleet) -> anyhow::Result<Answer> {
        match self {
            Self::Add { user } => {
                let (access, secret) = fleet.add_access_key(&user).await?;
                return Ok(Answer::one(&[("access", &access), ("secret", secret.expose())]));
            }
            Self::List => {
                let keys = fleet.access_keys().await?;
                let state = |disabled: bool| if disabled { "disabled" } else { "enabled" };
                let rows = keys
                    .iter()
                    .map(|(key, user)| vec![key.access.clone(), user.clone(), state(key.disabled).to_owned()])
                    .collect();
                let json = keys.iter().map(|(key, user)| {
                    json!({ "access": key.access, "user": user, "disabled": key.disabled, "created_at": key.created_at })
                });
                return Ok(Answer { json: json.collect(), header: vec!["access", "user", "state"], rows });
            }
            Self::Disable { access } => fleet.disable_access_key(&access, true).await?,
            Self::Enable { access } => fleet.disable_access_key(&access, false).await?,
            Self::Remove { access } => fleet.remove_access_key(&access).await?,
        }
        Ok(Answer::done())
    }
}

//! Signing in: a user name and a password for a token or a session. Password hashes are slow on purpose, so that sign-ins are
//! queued and failures locked out.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Authenticator, Caller, Permissions};
use crate::{
    identity::{IdentityError, IssuedToken},
    model::{Grant, Project, Role, User, is_name},
    secrets::Secret,
    units::whole_seconds,
};

/// How long a client should wait while too many passwords are being checked; each check takes a fraction of a second.
const QUEUE_DELAY: Duration = Duration::from_secs(1);

/// A request for a token.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The user's name.
    pub name: String,
    /// The user's password.
    pub password: Secret,
    /// Id or name of the token's project; `None`: the only project that the user has a role on.
    pub project: Option<String>,
}

/// An issued token with its user, project and role.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The token in the clear; the store keeps a hash only.
    pub issued: IssuedToken,
    /// The user who signed in.
    pub user: User,
    /// The token's project.
    pub project: Project,
    /// The user's role on the project.
    pub role: Role,
}

/// Why a sign-in failed.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The user is unknown, disabled or has no password, or the password is wrong. The error does not reveal which.
    #[error("The username or password is wrong.")]
    Wrong,
    /// The project is unknown, or the user has no role on it. The error does not reveal which.
    #[error("The user has no role on this project.")]
    OtherProject,
    /// The request names no project, and the user has roles on several projects or none.
    #[error("Name the project in auth.scope.project: the user has no role, or roles on several projects.")]
    NoScope,
    /// Too many attempts failed; holds how long the lock lasts.
    #[error("Too many attempts; try again in {} seconds.", whole_seconds(*.0))]
    TooMany(Duration),
    /// Too many passwords are being checked; holds how long to wait.
    #[error("Too many sign in at this moment; try again.")]
    Queue(Duration),
    /// The store failed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Authenticator {
    /// Issues a token for a user name and a password.
    pub async fn sign_in(&self, wanted: SignIn, peer: IpAddr) -> Result<SignedIn, SignInError> {
        let user = self.check(wanted.name, wanted.password, peer).await?;
        let roles = self.identity.roles_of(&user).await?;
        let scope = wanted.project;
        let mut fitting = roles
            .into_iter()
            .filter(|(project, _)| scope.as_ref().is_none_or(|scope| project.id == *scope || project.name == *scope));
        let (project, role) = match (fitting.next(), fitting.next(), &scope) {
            (Some(found), None, _) => found,
            (_, _, Some(_)) => return Err(SignInError::OtherProject),
            (_, _, None) => return Err(SignInError::NoScope),
        };
        let issued = self.identity.issue_token(&user, &project).await?.ok_or(SignInError::Wrong)?;
        Ok(SignedIn { issued, user, project, role })
    }

    /// Returns the user of this name and password, unless too many attempts failed before.
    async fn check(&self, name: String, password: Secret, peer: IpAddr) -> Result<User, SignInError> {
        let lockouts = &self.lockouts;
        let now = Instant::now();
        let by_user = lockouts.passwords_by_user.locked_for(&name, now);
        let locked = lockouts.passwords_by_peer.locked_for(&peer, now).max(by_user);
        if let Some(rest) = locked {
            return Err(SignInError::TooMany(rest));
        }
        // No user has a name of this form. Counting it by name would let clients choose how much memory a failure takes.
        if !is_name(&name) {
            lockouts.passwords_by_peer.failed(peer, now);
            return Err(SignInError::Wrong);
        }
        let checked = self.identity.check_password(&name, password).await;
        checked
            .map_err(|error| match error {
                IdentityError::Busy => SignInError::Queue(QUEUE_DELAY),
                other => other.into(),
            })?
            .ok_or_else(|| {
                let now = Instant::now();
                lockouts.passwords_by_peer.failed(peer, now);
                lockouts.passwords_by_user.failed(name, now);
                SignInError::Wrong
            })
    }

    /// Starts a console session for a user name and a password. Fails with `NoScope` if the user has no role at all.
    pub async fn begin_session(
        &self,
        name: String,
        password: Secret,
        peer: IpAddr,
    ) -> Result<IssuedToken, SignInError> {
        let user = self.check(name, password, peer).await?;
        let (project, _) = self.identity.roles_of(&user).await?.into_iter().next().ok_or(SignInError::NoScope)?;
        self.identity.begin_session(&user, &project).await?.ok_or(SignInError::Wrong)
    }

    /// Returns the caller that a session belongs to, with all roles of that user; `None` if the session is unknown or has
    /// ended. Without authentication the caller is an admin of every project and needs no session.
    pub async fn session_caller(&self, session: Option<&str>) -> Result<Option<Caller>, IdentityError> {
        if !self.required {
            return Ok(Some(Caller { name: None, permissions: Permissions::All }));
        }
        let Some(session) = session else { return Ok(None) };
        let Some(holder) = self.identity.session_holder(session.as_bytes()).await? else { return Ok(None) };
        if holder.user.disabled || holder.token.expires_at <= Timestamp::now() {
            return Ok(None);
        }
        let roles = self.identity.roles_of(&holder.user).await?.into_iter();
        let grants = roles.map(|(project, role)| Grant { project_id: project.id, role }).collect();
        Ok(Some(Caller { name: Some(holder.user.name), permissions: Permissions::Granted(grants) }))
    }

    /// Returns the projects that a caller has a role on, sorted by name.
    pub async fn projects_of(&self, caller: &Caller) -> Result<Vec<Project>, IdentityError> {
        let mut projects = self.identity.projects().await?;
        if let Permissions::Granted(grants) = &caller.permissions {
            projects.retain(|project| grants.iter().any(|grant| grant.project_id == project.id));
        }
        Ok(projects)
    }
}

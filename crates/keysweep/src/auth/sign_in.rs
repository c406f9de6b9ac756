//! Signing in: a name and a password for a token. Slow by intent, so it happens one at a time and not too often.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Authenticator, Caller, Reach};
use crate::{
    fleet::{FleetError, IssuedToken, Secret, is_name},
    model::{Grant, Project, Role, User},
    units::whole_seconds,
};

/// How long it is good to wait while too many passwords are being checked: each takes a fraction of a second.
const QUEUE: Duration = Duration::from_secs(1);

/// Somebody who wants a token.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The user's name.
    pub name: String,
    /// The password.
    pub password: Secret,
    /// Id or name of the project that the token shall be good for; `None`: the only one that the user has a role on.
    pub project: Option<String>,
}

/// A token, and what it is good for.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The token, readable this once.
    pub issued: IssuedToken,
    /// Whose it is.
    pub user: User,
    /// What it is good for.
    pub project: Project,
    /// What the user may do there.
    pub role: Role,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// No such user, no password, another password, or a disabled user: nobody learns which.
    #[error("The username or password is wrong.")]
    Wrong,
    /// The user has no role on that project, or there is none: nobody learns which.
    #[error("The user has no role on this project.")]
    OtherProject,
    /// The user has roles on several projects, or none.
    #[error("Name the project in auth.scope.project: the user has no role, or roles on several projects.")]
    NoScope,
    /// Too many bad attempts; how long the lock lasts.
    #[error("Too many attempts; try again in {} seconds.", whole_seconds(*.0))]
    TooMany(Duration),
    /// Too many at once; how long it is good to wait.
    #[error("Too many sign in at this moment; try again.")]
    Queue(Duration),
    /// The store failed; no fault of the caller's.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Authenticator {
    /// Gives a token for a name and a password.
    pub async fn sign_in(&self, wanted: SignIn, peer: IpAddr) -> Result<SignedIn, SignInError> {
        let user = self.check(wanted.name, wanted.password, peer).await?;
        let roles = self.fleet.roles_of(&user).await?;
        let scope = wanted.project;
        let mut fitting = roles
            .into_iter()
            .filter(|(project, _)| scope.as_ref().is_none_or(|scope| project.id == *scope || project.name == *scope));
        let (project, role) = match (fitting.next(), fitting.next(), &scope) {
            (Some(found), None, _) => found,
            (_, _, Some(_)) => return Err(SignInError::OtherProject),
            (_, _, None) => return Err(SignInError::NoScope),
        };
        let issued = self.fleet.issue_token(&user, &project).await?.ok_or(SignInError::Wrong)?;
        Ok(SignedIn { issued, user, project, role })
    }

    /// The user of this name and password, unless there were too many attempts.
    async fn check(&self, name: String, password: Secret, peer: IpAddr) -> Result<User, SignInError> {
        let guards = &self.guards;
        let now = Instant::now();
        let locked = guards.passwords_from.locked_for(&peer, now).max(guards.passwords_of.locked_for(&name, now));
        if let Some(rest) = locked {
            return Err(SignInError::TooMany(rest));
        }
        // Nobody can have such a name. It is not remembered: a stranger must not choose how much memory a failure takes.
        if !is_name(&name) {
            guards.passwords_from.failed(peer, now);
            return Err(SignInError::Wrong);
        }
        let checked = self.fleet.check_password(&name, password).await;
        checked
            .map_err(|error| match error {
                FleetError::Busy => SignInError::Queue(QUEUE),
                other => other.into(),
            })?
            .ok_or_else(|| {
                let now = Instant::now();
                guards.passwords_from.failed(peer, now);
                guards.passwords_of.failed(name, now);
                SignInError::Wrong
            })
    }

    /// Begins a session of the console for a name and a password. `NoScope`: the user has no role anywhere.
    pub async fn begin_session(
        &self,
        name: String,
        password: Secret,
        peer: IpAddr,
    ) -> Result<IssuedToken, SignInError> {
        let user = self.check(name, password, peer).await?;
        let (project, _) = self.fleet.roles_of(&user).await?.into_iter().next().ok_or(SignInError::NoScope)?;
        self.fleet.begin_session(&user, &project).await?.ok_or(SignInError::Wrong)
    }

    /// Whose session it is, with all roles of that user; `None`: nobody's, or it has ended. Where authentication is off,
    /// everybody may do everything without one.
    pub async fn session_caller(&self, session: Option<&str>) -> Result<Option<Caller>, FleetError> {
        if !self.required {
            return Ok(Some(Caller { name: None, reach: Reach::Everything }));
        }
        let Some(session) = session else { return Ok(None) };
        let Some(holder) = self.fleet.session_holder(session.as_bytes()).await? else { return Ok(None) };
        if holder.user.disabled || holder.token.expires_at <= Timestamp::now() {
            return Ok(None);
        }
        let roles = self.fleet.roles_of(&holder.user).await?.into_iter();
        let grants = roles.map(|(project, role)| Grant { project_id: project.id, role }).collect();
        Ok(Some(Caller { name: Some(holder.user.name), reach: Reach::Projects(grants) }))
    }

    /// The projects that a caller has something to do with, by name.
    pub async fn projects_of(&self, caller: &Caller) -> Result<Vec<Project>, FleetError> {
        let mut projects = self.fleet.projects().await?;
        if let Reach::Projects(grants) = &caller.reach {
            projects.retain(|project| grants.iter().any(|grant| grant.project_id == project.id));
        }
        Ok(projects)
    }
}

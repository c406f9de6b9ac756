//! Signing in: a user and a password, or another token, for a token or a session. Password hashes are slow on purpose, so that
//! sign-ins are queued and failures locked out.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Authenticator, Caller, Credential, Permissions};
use crate::{
    identity::{IdentityError, IssuedToken, NewToken, is_unscoped},
    model::{Grant, Project, Role, TokenHolder, User, is_id, is_name},
    request::client_network,
    secrets::Secret,
    units::whole_seconds,
};

/// How long a client should wait while too many passwords are being checked; each check takes a fraction of a second.
const QUEUE_DELAY: Duration = Duration::from_secs(1);
/// How long a sign-in waits whose user's password is being guessed: from other addresses, or from this one where the user signed
/// in lately and is therefore not locked out.
const SLOWDOWN: Duration = Duration::from_secs(1);
/// How long such a sign-in waits for its turn, so that steady guesses cannot refuse it: turns go in the order of arrival.
const MAX_QUEUE: Duration = Duration::from_secs(10);

/// Stands before an id that no user has, in place of a name. No name begins with a space.
const UNKNOWN_ID: &str = " id ";

/// How a sign-in names its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// By the unique name.
    Name(String),
    /// By the id.
    Id(String),
}

/// What a token is to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    /// The project of the token that is exchanged; for a password the only project that the user has a role on.
    Default,
    /// The project of this id or name.
    Project(String),
    /// No project: the token lists projects and is exchanged for a token of one of them.
    Unscoped,
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The user.
    pub user: UserRef,
    /// The user's password.
    pub password: Secret,
    /// What the token is to be for.
    pub scope: TokenScope,
}

/// A token with its user, project and role.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The token in the clear; the store keeps a hash only.
    pub issued: IssuedToken,
    /// The user who signed in.
    pub user: User,
    /// The token's project, with the user's role on it; `None`: the token is unscoped.
    pub project: Option<(Project, Role)>,
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
    /// The user has no role at all.
    #[error("The user has no role on any project.")]
    NoRole,
    /// The token to exchange is unknown, revoked or expired, or its user is disabled.
    #[error("The token is unknown, revoked or expired; sign in with a password.")]
    Token,
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
    /// Issues a token for a user and a password.
    pub async fn sign_in(&self, wanted: SignIn, peer: IpAddr) -> Result<SignedIn, SignInError> {
        let name = match wanted.user {
            UserRef::Name(name) => name,
            UserRef::Id(id) => self.name_of(id).await?,
        };
        let user = self.check(name, wanted.password, peer).await?;
        self.issue(user, wanted.scope, None).await
    }

    /// Returns the name of the user with this id. For an unknown id it is a name that no user has: the check of the password
    /// takes as long, and its answer does not reveal which ids exist.
    async fn name_of(&self, id: String) -> Result<String, SignInError> {
        let known = if is_id(&id) { self.identity.user_of_id(&id).await? } else { None };
        Ok(known.map_or_else(|| format!("{UNKNOWN_ID}{id}"), |user| user.name))
    }

    /// Exchanges a token for one of another scope, which expires with it.
    pub async fn rescope(&self, token: &[u8], scope: TokenScope) -> Result<SignedIn, SignInError> {
        let holder = self.valid_token(token).await?.ok_or(SignInError::Token)?;
        let now = Instant::now();
        if let Some(rest) = self.lockouts.exchanges.locked_for(&holder.user.id, now) {
            return Err(SignInError::TooMany(rest));
        }
        self.lockouts.exchanges.failed(holder.user.id.clone(), now);
        let scope = match scope {
            TokenScope::Default if !is_unscoped(token) => TokenScope::Project(holder.token.project_id),
            other => other,
        };
        self.issue(holder.user, scope, Some(holder.token.expires_at)).await
    }

    /// Returns a token with its user, project and role; `None`: it is unknown, revoked or expired.
    pub async fn token(&self, token: &[u8]) -> Result<Option<SignedIn>, IdentityError> {
        let Some(holder) = self.valid_token(token).await? else { return Ok(None) };
        let mut roles = self.identity.roles_of(&holder.user).await?;
        roles.retain(|(project, _)| !is_unscoped(token) && project.id == holder.token.project_id);
        let issued = IssuedToken {
            token: String::from_utf8_lossy(token).into_owned().into(),
            issued_at: holder.token.issued_at,
            expires_at: holder.token.expires_at,
        };
        Ok(Some(SignedIn { issued, user: holder.user, project: roles.pop() }))
    }

    async fn valid_token(&self, token: &[u8]) -> Result<Option<TokenHolder>, IdentityError> {
        let holder = self.identity.token_holder(token).await?;
        Ok(holder.filter(|holder| !holder.user.disabled && holder.token.expires_at > Timestamp::now()))
    }

    /// Issues a token to a user who was identified. `until`: when it expires, if not after [`TOKEN_LIFE`].
    ///
    /// [`TOKEN_LIFE`]: crate::identity::TOKEN_LIFE
    async fn issue(&self, user: User, scope: TokenScope, until: Option<Timestamp>) -> Result<SignedIn, SignInError> {
        let mut roles = self.identity.roles_of(&user).await?.into_iter();
        let unscoped = scope == TokenScope::Unscoped;
        let (project, role) = match scope {
            // An unscoped token is stored with one of the projects, and ends with the role there.
            TokenScope::Unscoped => roles.next().ok_or(SignInError::NoRole)?,
            TokenScope::Project(wanted) => roles
                .find(|(project, _)| project.id == wanted || project.name == wanted)
                .ok_or(SignInError::OtherProject)?,
            TokenScope::Default => match (roles.next(), roles.next()) {
                (Some(only), None) => only,
                _ => return Err(SignInError::NoScope),
            },
        };
        let wanted = NewToken { user: &user, project: &project, unscoped, expires_at: until };
        let issued = self.identity.issue_token(wanted).await?.ok_or(SignInError::Wrong)?;
        Ok(SignedIn { issued, user, project: (!unscoped).then_some((project, role)) })
    }

    /// Returns the user of this name and password, unless too many attempts failed before.
    async fn check(&self, name: String, password: Secret, peer: IpAddr) -> Result<User, SignInError> {
        let lockouts = &self.lockouts;
        // A client chooses the rest of an IPv6 address itself.
        let peer = client_network(peer);
        let pair = (name, peer);
        let now = Instant::now();
        let is_known = lockouts.signed_in.contains(&pair, now);
        let locked = lockouts.passwords.locked_for(&pair, now);
        if let Some(rest) = lockouts.passwords_by_address.locked_for(&peer, now).max(locked).filter(|_| !is_known) {
            return Err(SignInError::TooMany(rest));
        }
        // No user has a name of this form. Counting it by name would let clients choose how much memory a failure takes.
        let is_unknown_id = pair.0.strip_prefix(UNKNOWN_ID).is_some_and(is_id);
        if !is_name(&pair.0) && !is_unknown_id {
            lockouts.passwords_by_address.failed(peer, now);
            return Err(SignInError::Wrong);
        }
        let is_guessed_elsewhere = !is_known && lockouts.passwords_by_user.is_locked(&pair.0, now);
        if is_guessed_elsewhere || (is_known && locked.is_some()) {
            let turn = tokio::time::timeout(MAX_QUEUE, lockouts.slow.acquire()).await;
            let _turn = turn.ok().and_then(Result::ok).ok_or(SignInError::Queue(SLOWDOWN))?;
            tokio::time::sleep(SLOWDOWN).await;
        }
        let checked = self.identity.check_password(&pair.0, password).await;
        let checked = checked.map_err(|error| match error {
            IdentityError::Busy => SignInError::Queue(QUEUE_DELAY),
            other => other.into(),
        })?;
        let now = Instant::now();
        match checked {
            Some(user) => {
                lockouts.signed_in.succeeded(pair, now);
                Ok(user)
            }
            None => {
                lockouts.passwords_by_address.failed(peer, now);
                lockouts.passwords_by_user.failed(pair.0.clone(), now);
                lockouts.passwords.failed(pair, now);
                Err(SignInError::Wrong)
            }
        }
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
            return Ok(Some(Caller { name: None, permissions: Permissions::All, credential: Credential::None }));
        }
        let Some(session) = session else { return Ok(None) };
        let Some(holder) = self.identity.session_holder(session.as_bytes()).await? else { return Ok(None) };
        if holder.user.disabled || holder.token.expires_at <= Timestamp::now() {
            return Ok(None);
        }
        let roles = self.identity.roles_of(&holder.user).await?.into_iter();
        let grants = roles.map(|(project, role)| Grant { project_id: project.id, role }).collect();
        Ok(Some(Caller {
            name: Some(holder.user.name),
            permissions: Permissions::Granted(grants),
            credential: Credential::None,
        }))
    }

    /// Returns the projects that a caller has a role on, sorted by name.
    pub async fn projects_of(&self, caller: &Caller) -> Result<Vec<Project>, IdentityError> {
        let mut projects = self.identity.projects().await?;
        if let Permissions::Granted(grants) | Permissions::Unscoped(grants) = &caller.permissions {
            projects.retain(|project| grants.iter().any(|grant| grant.project_id == project.id));
        }
        Ok(projects)
    }
}

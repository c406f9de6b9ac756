//! Authentication and authorization: from a request's credentials to a caller with roles. Knows HTTP headers, but no status
//! codes.

pub mod signature;

mod authorize;
mod canonical;
mod hosts;
mod local;
mod lockout;
mod sign_in;
mod signature_error;
mod signer;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    extract::Request,
    http::{header::AUTHORIZATION, request::Parts},
};
use jiff::Timestamp;
use tokio::sync::Semaphore;

pub use self::{
    authorize::{Authorized, Denied},
    local::{NOT_LOCAL, is_local},
    sign_in::{SignIn, SignInError, SignedIn, TokenScope, UserRef},
    signer::Signer,
};
use self::{
    hosts::{HostLog, Verdict},
    lockout::{Lockout, Recent},
    signature::{Authorization, SignatureError, SignedRequest},
};
use crate::{
    identity::{Identity, IdentityError, is_unscoped},
    instances::Instances,
    model::{Grant, Role},
    request::{BodyError, ForwardedHost, Peer, client_network, discard_body, read_body},
    secrets::Secret,
};

/// The header that carries a token.
pub const TOKEN_HEADER: &str = "x-auth-token";

/// Bad signatures of one access key from one address that are allowed within [`LOCK`].
const ALLOWED_SIGNATURES: usize = 5;
/// Bad passwords from one address, and of one user, that are allowed within [`LOCK`]. More lock the address, and the user at that
/// address; at other addresses they slow the user's sign-ins down.
const ALLOWED_PASSWORDS: usize = 10;
/// How long a user or a key that was verified at an address is exempt from locks there. Other clients behind the same address
/// could otherwise lock it out.
const TRUST: Duration = Duration::from_secs(24 * 60 * 60);
/// Exchanges of tokens of one user that are allowed within [`LOCK`]: each token is stored for days.
const ALLOWED_EXCHANGES: usize = 600;
/// Most sign-ins that are slowed down at a time.
const MAX_SLOW: usize = 16;
/// How long a failure counts, and how long a lock lasts.
const LOCK: Duration = Duration::from_secs(5 * 60);
/// Secret to verify against if a key is unknown, so that the answer takes as long as for a known key.
const NO_SECRET: &str = "0000000000000000000000000000000000000000";

/// A user, or an anonymous client of a service without authentication, whose credentials were verified.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's name; `None` if authentication is off.
    pub name: Option<String>,
    permissions: Permissions,
    credential: Credential,
}

/// What a caller showed, to be verified again.
#[derive(Debug, Clone)]
enum Credential {
    /// Nothing: authentication is off. Or a session, which every page verifies.
    None,
    Token(Secret),
    /// An access key, by its public half.
    Key(String),
}

/// What a request's head says about its caller.
enum Claimed {
    /// The caller, verified.
    Caller(Caller),
    /// A signature, which the body belongs to.
    Signature(Authorization),
}

#[derive(Debug, Clone)]
enum Permissions {
    /// Admin of every project: authentication is off.
    All,
    Granted(Vec<Grant>),
    /// Of an unscoped token: the roles that it can be exchanged for.
    Unscoped(Vec<Grant>),
}

impl Caller {
    /// Returns whether the credentials are for no project, but can be exchanged for a token of one.
    pub fn is_unscoped(&self) -> bool {
        matches!(self.permissions, Permissions::Unscoped(_))
    }

    /// Returns the caller's role on a project; `None` if the credentials are not for it.
    fn role_on(&self, project_id: &str) -> Option<Role> {
        match &self.permissions {
            Permissions::All => Some(Role::Admin),
            Permissions::Unscoped(_) => None,
            Permissions::Granted(grants) => {
                grants.iter().filter(|grant| grant.project_id == project_id).map(|grant| grant.role).max()
            }
        }
    }
}

/// Why a request has no caller.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The body, which a signature covers, could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The request has no credentials.
    #[error("no credentials")]
    Missing,
    /// The signature or its access key is not valid. The error does not reveal whether the key exists.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Too many bad signatures of this access key came from this address.
    #[error("too many bad signatures; this access key is locked for this address for five minutes")]
    Locked,
    /// The signature was used before, for a call that must not be repeated.
    #[error("this signature has been used before; sign the request anew")]
    Repeated,
    /// The token never existed or was revoked.
    #[error("unknown or revoked token")]
    Token,
    /// The token has expired.
    #[error("expired token")]
    TokenExpired,
    /// The store or the master key failed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Verifies credentials and finds the caller that they belong to.
#[derive(Clone)]
pub struct Authenticator {
    identity: Identity,
    instances: Instances,
    required: bool,
    /// Host of the service's public URL, which signatures may cover whatever host a request names.
    public_host: Option<String>,
    lockouts: Arc<Lockouts>,
}

/// Failed attempts, counted to slow down guessing.
struct Lockouts {
    signatures: Lockout<(String, IpAddr)>,
    /// Keys with the addresses from which they were verified.
    signed: Recent<(String, IpAddr)>,
    passwords: Lockout<(String, IpAddr)>,
    passwords_by_address: Lockout<IpAddr>,
    /// Whose locks slow sign-ins down and refuse none.
    passwords_by_user: Lockout<String>,
    /// Users with the addresses from which they signed in.
    signed_in: Recent<(String, IpAddr)>,
    slow: Semaphore,
    bad_hosts: HostLog,
    /// Exchanges of tokens by user, which count as failures do.
    exchanges: Lockout<String>,
}

impl Authenticator {
    /// Returns an authenticator that verifies every request against the access keys and tokens of its users.
    pub fn required(identity: Identity, instances: Instances) -> Self {
        Self::new(identity, instances, true)
    }

    /// Returns an authenticator that treats every caller as an admin. The listener must be on a loopback address.
    pub fn off(identity: Identity, instances: Instances) -> Self {
        Self::new(identity, instances, false)
    }

    fn new(identity: Identity, instances: Instances, required: bool) -> Self {
        let lockouts = Lockouts {
            signatures: Lockout::new(ALLOWED_SIGNATURES, LOCK),
            signed: Recent::new(TRUST),
            passwords: Lockout::new(ALLOWED_PASSWORDS, LOCK),
            passwords_by_address: Lockout::new(ALLOWED_PASSWORDS, LOCK),
            passwords_by_user: Lockout::new(ALLOWED_PASSWORDS, LOCK),
            signed_in: Recent::new(TRUST),
            slow: Semaphore::new(MAX_SLOW),
            bad_hosts: HostLog::default(),
            exchanges: Lockout::new(ALLOWED_EXCHANGES, LOCK),
        };
        Self { identity, instances, required, public_host: None, lockouts: Arc::new(lockouts) }
    }

    /// Returns the same for a service whose public URL has this host, with its port if it has one.
    pub fn reached_at(self, public_host: Option<String>) -> Self {
        Self { public_host, ..self }
    }

    /// Returns whether requests need credentials.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Reads a request and returns its caller, its head and its body.
    ///
    /// `repeatable`: whether the call has the same effect when it is sent twice. The signature of any other call is
    /// accepted once.
    pub async fn authenticate(&self, request: Request, repeatable: bool) -> Result<(Caller, Parts, Bytes), AuthError> {
        let (parts, body) = request.into_parts();
        let claimed = match self.read_credentials(&parts).await {
            Ok(claimed) => claimed,
            Err(error) => {
                // The body of a client without credentials takes no memory.
                discard_body(body).await;
                return Err(error);
            }
        };
        let body = read_body(body, Peer::of(&parts.extensions)).await?;
        let caller = match claimed {
            Claimed::Caller(caller) => caller,
            Claimed::Signature(authorization) => self.by_signature(authorization, &parts, &body, repeatable).await?,
        };
        Ok((caller, parts, body))
    }

    /// Verifies of a request's credentials what can be verified without its body. The key of a signature is looked up afterwards:
    /// what a client is asked to send must not reveal which keys exist.
    async fn read_credentials(&self, parts: &Parts) -> Result<Claimed, AuthError> {
        if !self.required {
            let caller = Caller { name: None, permissions: Permissions::All, credential: Credential::None };
            return Ok(Claimed::Caller(caller));
        }
        if let Some(token) = parts.headers.get(TOKEN_HEADER).filter(|token| !token.is_empty()) {
            return Ok(Claimed::Caller(self.by_token(token.as_bytes()).await?));
        }
        let header = parts.headers.get(AUTHORIZATION).ok_or(AuthError::Missing)?;
        let authorization = Authorization::parse(header.to_str().map_err(|_| SignatureError::Malformed)?)?;
        authorization.check_date(&parts.headers, Timestamp::now())?;
        self.refuse_locked(&(authorization.access.clone(), client_network(Peer::of(&parts.extensions))))?;
        Ok(Claimed::Signature(authorization))
    }

    /// Refuses a key that too many bad signatures from this address have locked there.
    fn refuse_locked(&self, attempt: &(String, IpAddr)) -> Result<(), AuthError> {
        let now = Instant::now();
        let is_known = self.lockouts.signed.contains(attempt, now);
        match !is_known && self.lockouts.signatures.is_locked(attempt, now) {
            true => Err(AuthError::Locked),
            false => Ok(()),
        }
    }

    /// Returns whether a caller's credentials still are for a role on a project: they are not once the token has ended, the key or
    /// its user is disabled, or the role is revoked.
    pub async fn still_allows(&self, caller: &Caller, project_id: &str, needed: Role) -> Result<bool, IdentityError> {
        let role = match &caller.credential {
            Credential::None => caller.role_on(project_id),
            Credential::Token(token) => match self.by_token(token.expose().as_bytes()).await {
                Ok(current) => current.role_on(project_id),
                Err(AuthError::Identity(error)) => return Err(error),
                Err(_) => None,
            },
            Credential::Key(access) => {
                let holder = self.identity.key_holder(access).await?;
                let usable = holder.filter(|holder| !holder.key.disabled && !holder.user.disabled);
                let grants = usable.map(|holder| holder.grants).unwrap_or_default();
                grants.iter().filter(|grant| grant.project_id == project_id).map(|grant| grant.role).max()
            }
        };
        Ok(role.is_some_and(|role| role >= needed))
    }

    async fn by_token(&self, token: &[u8]) -> Result<Caller, AuthError> {
        let holder = self.identity.token_holder(token).await?.ok_or(AuthError::Token)?;
        if holder.user.disabled {
            return Err(AuthError::Token);
        }
        if holder.token.expires_at <= Timestamp::now() {
            return Err(AuthError::TokenExpired);
        }
        let credential = Credential::Token(String::from_utf8_lossy(token).into_owned().into());
        if is_unscoped(token) {
            let roles = self.identity.roles_of(&holder.user).await?.into_iter();
            let grants = roles.map(|(project, role)| Grant { project_id: project.id, role }).collect();
            return Ok(Caller { name: Some(holder.user.name), permissions: Permissions::Unscoped(grants), credential });
        }
        let grants = holder.role.map(|role| Grant { project_id: holder.token.project_id, role });
        let permissions = Permissions::Granted(grants.into_iter().collect());
        Ok(Caller { name: Some(holder.user.name), permissions, credential })
    }

    /// Refuses all that can be refused without the key before it looks the key up, and treats an unknown key like a known
    /// one with another secret: neither the answer nor its time reveals which keys exist.
    async fn by_signature(
        &self,
        authorization: Authorization,
        parts: &Parts,
        body: &[u8],
        repeatable: bool,
    ) -> Result<Caller, AuthError> {
        let Parts { method, uri, headers, extensions, .. } = parts;
        let signed = SignedRequest { method, path: uri.path(), query: uri.query().unwrap_or(""), headers, body };
        let now = Timestamp::now();
        let prepared = authorization.prepare(signed, now)?;
        let attempt = (authorization.access.clone(), client_network(Peer::of(extensions)));
        // Once more: other attempts may have failed while the body was read.
        self.refuse_locked(&attempt)?;
        let holder = self.identity.key_holder(&authorization.access).await?;
        let secret = holder.as_ref().map(|holder| self.identity.open_secret_key(&holder.key)).transpose()?;
        let secret = secret.as_ref().map_or(NO_SECRET, |secret| secret.expose());
        let forwarded_host = extensions.get::<ForwardedHost>().map(|host| &host.0);
        let verdict = self.verify(&authorization, signed, forwarded_host, secret, now);
        let usable = holder.filter(|holder| !holder.key.disabled && !holder.user.disabled);
        let holder = match (usable, verdict) {
            (Some(holder), Verdict::Good) => holder,
            // The client has the secret, so this is no guess.
            (Some(_), Verdict::OtherHost) => return Err(SignatureError::Mismatch.into()),
            _ => {
                self.lockouts.signatures.failed(attempt, Instant::now());
                return Err(SignatureError::Mismatch.into());
            }
        };
        self.lockouts.signed.succeeded(attempt, Instant::now());
        if !repeatable && !self.identity.is_first_use(&prepared.signature, prepared.remembered_until).await? {
            return Err(AuthError::Repeated);
        }
        let credential = Credential::Key(authorization.access);
        Ok(Caller { name: Some(holder.user.name), permissions: Permissions::Granted(holder.grants), credential })
    }
}

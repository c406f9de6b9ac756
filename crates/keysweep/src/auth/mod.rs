//! Who calls: from the credentials of a request to a caller with roles. Knows HTTP headers, but no status codes.

pub mod signature;

mod attempts;
mod canonical;
mod gate;
mod local;
mod sign_in;
mod signer;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, Method, Uri, header::AUTHORIZATION};
use jiff::Timestamp;

use self::{
    attempts::Attempts,
    signature::{Authorization, SignatureError, SignedRequest},
};
pub use self::{
    gate::Refusal,
    local::{NOT_LOCAL, is_local},
    sign_in::{SignIn, SignInError},
    signer::Signer,
};
use crate::{
    fleet::{Fleet, FleetError},
    model::{Grant, Role},
};

/// Where clients put their token.
pub const TOKEN_HEADER: &str = "x-auth-token";

/// Bad signatures of one access key from one address that are forgiven within [`LOCK`].
const FORGIVEN_SIGNATURES: usize = 5;
/// Bad passwords from one address, and of one user, that are forgiven within [`LOCK`].
const FORGIVEN_PASSWORDS: usize = 10;
/// How long a failure counts, and a lock lasts.
const LOCK: Duration = Duration::from_secs(5 * 60);
/// Verified against where a key is unknown, so that the answer takes as long.
const NO_SECRET: &str = "0000000000000000000000000000000000000000";

/// Somebody whose credentials were good.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's name; `None` where authentication is switched off.
    pub name: Option<String>,
    reach: Reach,
}

#[derive(Debug, Clone)]
enum Reach {
    Everything,
    Projects(Vec<Grant>),
}

impl Caller {
    /// The role on a project; `None`: the project is none of the caller's business.
    pub fn role_on(&self, project_id: &str) -> Option<Role> {
        match &self.reach {
            Reach::Everything => Some(Role::Admin),
            Reach::Projects(grants) => {
                grants.iter().filter(|grant| grant.project_id == project_id).map(|grant| grant.role).max()
            }
        }
    }
}

/// Why a request has no caller.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There are no credentials in it.
    #[error("no credentials")]
    Missing,
    /// The signature, or the key that it was made with, is not good. Nobody learns which keys exist.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Too many bad signatures of this key from this address.
    #[error("too many bad signatures; this access key is locked for this address for five minutes")]
    Locked,
    /// The signature has been used before, for a call that must not be repeated.
    #[error("this signature has been used before; sign the request anew")]
    Repeated,
    /// There is no such token, or not any more.
    #[error("unknown or revoked token")]
    Token,
    /// The token was good once.
    #[error("expired token")]
    TokenExpired,
    /// The store or the master key failed; no fault of the caller's.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

/// What is looked at of a request to find out who calls.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub uri: &'a Uri,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
    /// Where it comes from.
    pub peer: IpAddr,
    /// Whether doing it twice does no more than doing it once. The signature of any other request is good once.
    pub repeatable: bool,
}

/// Decides who calls.
#[derive(Clone)]
pub struct Authenticator {
    fleet: Fleet,
    required: bool,
    guards: Arc<Guards>,
}

/// What keeps guessers out.
struct Guards {
    signatures: Attempts<(String, IpAddr)>,
    passwords_from: Attempts<IpAddr>,
    passwords_of: Attempts<String>,
}

impl Authenticator {
    /// Verifies every request against the access keys and tokens of the fleet.
    pub fn required(fleet: Fleet) -> Self {
        Self::new(fleet, true)
    }

    /// Takes everybody for an admin. For a loopback listener only; whoever listens makes sure of that.
    pub fn off(fleet: Fleet) -> Self {
        Self::new(fleet, false)
    }

    fn new(fleet: Fleet, required: bool) -> Self {
        let guards = Guards {
            signatures: Attempts::new(FORGIVEN_SIGNATURES, LOCK),
            passwords_from: Attempts::new(FORGIVEN_PASSWORDS, LOCK),
            passwords_of: Attempts::new(FORGIVEN_PASSWORDS, LOCK),
        };
        Self { fleet, required, guards: Arc::new(guards) }
    }

    /// Whether requests need credentials.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// The caller of a request.
    pub async fn identify(&self, request: Signed<'_>) -> Result<Caller, AuthError> {
        if !self.required {
            return Ok(Caller { name: None, reach: Reach::Everything });
        }
        if let Some(token) = request.headers.get(TOKEN_HEADER).filter(|token| !token.is_empty()) {
            return self.by_token(token.as_bytes()).await;
        }
        let header = request.headers.get(AUTHORIZATION).ok_or(AuthError::Missing)?;
        let authorization = Authorization::parse(header.to_str().map_err(|_| SignatureError::Malformed)?)?;
        self.by_signature(authorization, request).await
    }

    async fn by_token(&self, token: &[u8]) -> Result<Caller, AuthError> {
        let holder = self.fleet.token_holder(token).await?.ok_or(AuthError::Token)?;
        if holder.user.disabled {
            return Err(AuthError::Token);
        }
        if holder.token.expires_at <= Timestamp::now() {
            return Err(AuthError::TokenExpired);
        }
        let grants = holder.role.map(|role| Grant { project_id: holder.token.project_id, role });
        Ok(Caller { name: Some(holder.user.name), reach: Reach::Projects(grants.into_iter().collect()) })
    }

    /// Everything that can be refused without the key is refused before the key is looked up, and an unknown key is
    /// treated as a known one with another secret: nobody learns which keys exist.
    async fn by_signature(&self, authorization: Authorization, request: Signed<'_>) -> Result<Caller, AuthError> {
        let Signed { method, uri, headers, body, peer, repeatable } = request;
        let signed = SignedRequest { method, path: uri.path(), query: uri.query().unwrap_or(""), headers, body };
        let prepared = authorization.prepare(signed, Timestamp::now())?;
        let attempt = (authorization.access.clone(), peer);
        if self.guards.signatures.is_locked(&attempt, Instant::now()) {
            return Err(AuthError::Locked);
        }
        let holder = self.fleet.key_holder(&authorization.access).await?;
        let secret = holder.as_ref().map(|holder| self.fleet.open_secret_key(&holder.key)).transpose()?;
        let verdict = prepared.verify(secret.as_ref().map_or(NO_SECRET, |secret| secret.expose()));
        let good = holder.filter(|holder| verdict.is_ok() && !holder.key.disabled && !holder.user.disabled);
        let Some(holder) = good else {
            self.guards.signatures.failed(attempt, Instant::now());
            return Err(SignatureError::Mismatch.into());
        };
        if !repeatable && !self.fleet.is_first_use(&prepared.signature, prepared.good_until).await? {
            return Err(AuthError::Repeated);
        }
        Ok(Caller { name: Some(holder.user.name), reach: Reach::Projects(holder.grants) })
    }
}

//! Who calls: from the credentials of a request to a caller with roles. Knows HTTP headers, but no status codes.

pub mod signature;

mod gate;

use axum::http::{HeaderMap, Method, Uri, header::AUTHORIZATION};
use jiff::Timestamp;

pub use self::gate::Refusal;
use self::signature::{Authorization, SignatureError, SignedRequest};
use crate::{
    fleet::{Fleet, FleetError},
    model::{Grant, Role},
};

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
    /// The signature, or the key that it was made with, is not good.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Unknown or disabled key. Told to the client as a signature that does not match: nobody learns which keys exist.
    #[error("unknown or disabled access key")]
    Key,
    /// The store or the master key failed; no fault of the caller's.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

/// Decides who calls.
#[derive(Clone)]
pub struct Authenticator {
    fleet: Fleet,
    required: bool,
}

impl Authenticator {
    /// Verifies every request against the access keys of the fleet.
    pub fn required(fleet: Fleet) -> Self {
        Self { fleet, required: true }
    }

    /// Takes everybody for an admin. For a loopback listener only; whoever listens makes sure of that.
    pub fn off(fleet: Fleet) -> Self {
        Self { fleet, required: false }
    }

    /// The caller of a request.
    pub async fn identify(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Caller, AuthError> {
        if !self.required {
            return Ok(Caller { name: None, reach: Reach::Everything });
        }
        let header = headers.get(AUTHORIZATION).ok_or(AuthError::Missing)?;
        let authorization = Authorization::parse(header.to_str().map_err(|_| SignatureError::Malformed)?)?;
        let holder = self.fleet.key_holder(&authorization.access).await?.ok_or(AuthError::Key)?;
        let secret = self.fleet.open_secret_key(&holder.key)?;
        let request = SignedRequest { method, path: uri.path(), query: uri.query().unwrap_or(""), headers, body };
        authorization.verify(request, secret.expose(), Timestamp::now())?;
        match holder.key.disabled || holder.user.disabled {
            true => Err(AuthError::Key),
            false => Ok(Caller { name: Some(holder.user.name), reach: Reach::Projects(holder.grants) }),
        }
    }
}

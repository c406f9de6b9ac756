//! Tokens and console sessions: what users with a password receive for it.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Identity, IdentityError};
use crate::{
    model::{Project, Token, TokenHolder, User, now},
    random,
    secrets::Secret,
};

/// How long a token is valid.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long an expired token is remembered, so that its bearer is told that it expired rather than that it is unknown.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token that was just issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token; only its hash is stored.
    pub token: Secret,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}

fn token_hash(token: &[u8]) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

/// Returns the hash of a session. Sessions are stored beside tokens, and the hash keeps them apart: a session is valid for
/// all projects of its user, a token for one, and neither is accepted in place of the other.
fn session_hash(session: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(b"console session\0").chain_update(session).finalize().to_vec()
}

impl Identity {
    /// Issues a token on a project for a user whose password was just verified. `None`: the user was removed or disabled
    /// meanwhile, or has another password.
    pub async fn issue_token(&self, user: &User, project: &Project) -> Result<Option<IssuedToken>, IdentityError> {
        self.issue(token_hash, user, project).await
    }

    /// Begins a console session in the same way. It is stored with one of the user's projects, and ends with the role there.
    pub async fn begin_session(&self, user: &User, project: &Project) -> Result<Option<IssuedToken>, IdentityError> {
        self.issue(session_hash, user, project).await
    }

    async fn issue(
        &self,
        hash: fn(&[u8]) -> Vec<u8>,
        user: &User,
        project: &Project,
    ) -> Result<Option<IssuedToken>, IdentityError> {
        let Some(password_hash) = &user.password_hash else { return Ok(None) };
        let token = hex::encode(random::bytes::<32>());
        let issued_at = now();
        let stored = Token {
            hash: hash(token.as_bytes()),
            user_id: user.id.clone(),
            project_id: project.id.clone(),
            issued_at,
            expires_at: issued_at + TOKEN_LIFE,
        };
        let is_stored = self.store.add_token(&stored, password_hash, issued_at - REMEMBERED).await?;
        Ok(is_stored.then(|| IssuedToken { token: token.into(), issued_at, expires_at: stored.expires_at }))
    }

    /// Returns a token with its user, if it is known; it may have expired.
    pub async fn token_holder(&self, token: &[u8]) -> Result<Option<TokenHolder>, IdentityError> {
        Ok(self.store.token_holder(&token_hash(token)).await?)
    }

    /// Revokes a token. False: it was unknown.
    pub async fn revoke_token(&self, token: &[u8]) -> Result<bool, IdentityError> {
        Ok(self.store.revoke_token(&token_hash(token)).await?)
    }

    /// Returns a session with its user, if it is known; it may have expired.
    pub async fn session_holder(&self, session: &[u8]) -> Result<Option<TokenHolder>, IdentityError> {
        Ok(self.store.token_holder(&session_hash(session)).await?)
    }

    /// Ends a session. False: it was unknown.
    pub async fn end_session(&self, session: &[u8]) -> Result<bool, IdentityError> {
        Ok(self.store.revoke_token(&session_hash(session)).await?)
    }
}

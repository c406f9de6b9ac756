//! Tokens for those who sign in with a password, and signatures that must not come twice.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Fleet, FleetError, Secret, id, now};
use crate::model::{Project, Role, Token, TokenHolder, User};

/// How long a token is good.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long an ended token is remembered, so that its bearer hears that it has ended and not that it is none.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token that was just issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token itself; only its hash is kept.
    pub token: Secret,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

fn hash(token: &[u8]) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

/// Kept beside the tokens, and told apart by what is hashed with it: a session is good for all projects of its user, a token
/// for one, and neither opens what the other does.
fn session_hash(session: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(b"console session\0").chain_update(session).finalize().to_vec()
}

impl Fleet {
    /// Issues a token on a project for a user whose password was just checked. `None`: the user has another one by now, or is
    /// disabled or gone.
    pub async fn issue_token(&self, user: &User, project: &Project) -> Result<Option<IssuedToken>, FleetError> {
        self.issue(hash, user, project).await
    }

    /// Begins a session of the console in the same way. It is kept with one of the user's projects, and ends with the role
    /// there.
    pub async fn begin_session(&self, user: &User, project: &Project) -> Result<Option<IssuedToken>, FleetError> {
        self.issue(session_hash, user, project).await
    }

    async fn issue(
        &self,
        hash: fn(&[u8]) -> Vec<u8>,
        user: &User,
        project: &Project,
    ) -> Result<Option<IssuedToken>, FleetError> {
        let Some(password_hash) = &user.password_hash else { return Ok(None) };
        let token = hex::encode(id::random::<32>());
        let issued_at = now();
        let kept = Token {
            hash: hash(token.as_bytes()),
            user_id: user.id.clone(),
            project_id: project.id.clone(),
            issued_at,
            expires_at: issued_at + TOKEN_LIFE,
        };
        let is_kept = self.store.add_token(&kept, password_hash, issued_at - REMEMBERED).await?;
        Ok(is_kept.then(|| IssuedToken { token: token.into(), issued_at, expires_at: kept.expires_at }))
    }

    /// The token, if there is such a one, with its user; it may have ended.
    pub async fn token_holder(&self, token: &[u8]) -> Result<Option<TokenHolder>, FleetError> {
        Ok(self.store.token_holder(&hash(token)).await?)
    }

    /// Ends a token. False: there was none.
    pub async fn revoke_token(&self, token: &[u8]) -> Result<bool, FleetError> {
        Ok(self.store.revoke_token(&hash(token)).await?)
    }

    /// The session, if there is such a one, with its user; it may have ended.
    pub async fn session_holder(&self, session: &[u8]) -> Result<Option<TokenHolder>, FleetError> {
        Ok(self.store.token_holder(&session_hash(session)).await?)
    }

    /// Ends a session. False: there was none.
    pub async fn end_session(&self, session: &[u8]) -> Result<bool, FleetError> {
        Ok(self.store.revoke_token(&session_hash(session)).await?)
    }

    /// Whether a signature is used for the first time; remembers it until it is too old to be taken.
    pub async fn is_first_use(&self, signature: &[u8], good_until: Timestamp) -> Result<bool, FleetError> {
        Ok(self.store.remember_signature(now(), signature, good_until).await?)
    }

    /// The projects that a user has a role on, by name.
    pub async fn roles_of(&self, user: &User) -> Result<Vec<(Project, Role)>, FleetError> {
        Ok(self.store.roles(&user.id).await?)
    }
}

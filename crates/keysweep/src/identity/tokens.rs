//! Tokens and console sessions: what users with a password receive for it.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Identity, IdentityError};
use crate::{
    model::{Project, Token, TokenHolder, User, now},
    random,
    secrets::Secret,
    store::TokenBounds,
};

/// How long a token is valid.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long an expired token is remembered, so that its bearer is told that it expired rather than that it is unknown.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most tokens of a user that are stored; a further one ends an expired one, or the oldest. A program that signs in once a minute has as
/// many after sixteen hours, and nothing else bounds what a user can have stored.
const MAX_TOKENS: u64 = 1_000;
/// Most console sessions of a user, counted by themselves: a program that signs in often ends no session of its user.
const MAX_SESSIONS: u64 = 100;
/// What hashes of sessions end with. Tokens' hashes are shorter, so that the store tells the two apart.
const SESSION: u8 = b's';

/// First character of an unscoped token. Hexadecimal digits follow, of which other tokens consist alone. The hash covers it, so
/// that a token of a project cannot be made unscoped, nor the other way round.
const UNSCOPED: u8 = b'u';

/// Returns whether a token is unscoped: valid for no project, but to be exchanged for a token of one.
pub fn is_unscoped(token: &[u8]) -> bool {
    token.first() == Some(&UNSCOPED)
}

/// A token to be issued to a user who was identified just now.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    /// The user.
    pub user: &'a User,
    /// The token's project; of an unscoped one any project that the user has a role on, with which it ends.
    pub project: &'a Project,
    /// Whether it is unscoped.
    pub unscoped: bool,
    /// When it expires; `None`: after [`TOKEN_LIFE`].
    pub expires_at: Option<Timestamp>,
}

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
    let mut hash = Sha256::new().chain_update(b"console session\0").chain_update(session).finalize().to_vec();
    hash.push(SESSION);
    hash
}

impl Identity {
    /// Issues a token. `None`: the user was removed or disabled meanwhile, or has another password.
    pub async fn issue_token(&self, new: NewToken<'_>) -> Result<Option<IssuedToken>, IdentityError> {
        let mark = if new.unscoped { String::from(UNSCOPED as char) } else { String::new() };
        let token = format!("{mark}{}", hex::encode(random::bytes::<32>()));
        self.issue(token_hash(token.as_bytes()), token, new, MAX_TOKENS).await
    }

    /// Begins a console session in the same way. It is stored with one of the user's projects, and ends with the role there.
    pub async fn begin_session(&self, user: &User, project: &Project) -> Result<Option<IssuedToken>, IdentityError> {
        let new = NewToken { user, project, unscoped: false, expires_at: None };
        let session = hex::encode(random::bytes::<32>());
        self.issue(session_hash(session.as_bytes()), session, new, MAX_SESSIONS).await
    }

    async fn issue(
        &self,
        hash: Vec<u8>,
        token: String,
        new: NewToken<'_>,
        most_of_a_user: u64,
    ) -> Result<Option<IssuedToken>, IdentityError> {
        let Some(password_hash) = &new.user.password_hash else { return Ok(None) };
        let issued_at = now();
        let stored = Token {
            hash,
            user_id: new.user.id.clone(),
            project_id: new.project.id.clone(),
            issued_at,
            expires_at: new.expires_at.unwrap_or(issued_at + TOKEN_LIFE),
        };
        let bounds = TokenBounds { forget_before: issued_at - REMEMBERED, most_of_a_user };
        let is_stored = self.store.add_token(&stored, password_hash, bounds).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_sessions_are_longer_than_those_of_tokens() {
        assert_eq!((token_hash(b"t").len(), session_hash(b"t").len()), (32, 33));
    }
}

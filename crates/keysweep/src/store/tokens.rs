//! Tokens of users who signed in, and signatures of requests that must not be repeated.

use jiff::Timestamp;

use super::{
    Store, StoreError,
    db::{Row, sql},
    users::user,
};
use crate::model::{Token, TokenHolder};

/// Which tokens are removed when another one is added.
#[derive(Debug, Clone, Copy)]
pub struct TokenBounds {
    /// Those that expired before this time.
    pub forget_before: Timestamp,
    /// Those of a user who has more than this number of tokens, or of sessions: expired ones first, then the oldest.
    pub most_of_a_user: u64,
}

impl Store {
    /// Adds a token for a user who is enabled and has the password of this hash, and removes tokens beyond the bounds. Returns false,
    /// and adds none, when the user has changed since or is gone. `Missing` when the token's project does not exist.
    pub async fn add_token(&self, token: &Token, password_hash: &str, bounds: TokenBounds) -> Result<bool, StoreError> {
        let mut tx = self.begin_request().await?;
        // A change of the user at this moment is waited for, or waits and then revokes this token with the others. Locked
        // before anything else: such a change locks the user before the tokens, too.
        let added = sql("INSERT INTO token (hash, account_id, project_id, issued_at, expires_at)
             SELECT $1, id, $2, $3, $4 FROM account WHERE id = $5 AND password_hash = $6 AND NOT disabled /*! FOR SHARE */")
        .bind(&token.hash)
        .bind(&token.project_id)
        .bind(token.issued_at)
        .bind(token.expires_at)
        .bind(&token.user_id)
        .bind(password_hash)
        .refers_to("project")
        .execute(&mut tx)
        .await?;
        // Those that another replica removes at this moment are left to it.
        sql("DELETE FROM token
             WHERE hash IN (SELECT hash FROM token WHERE expires_at < $1 /*! FOR UPDATE SKIP LOCKED */)")
        .bind(bounds.forget_before)
        .execute(&mut tx)
        .await?;
        // Hashes of sessions are longer than those of tokens: each kind has a limit of its own.
        sql("DELETE FROM token WHERE hash IN (
                 SELECT hash FROM token WHERE account_id = $1 AND hash <> $2 AND length(hash) = length($2)
                 ORDER BY CASE WHEN expires_at <= $4 THEN 1 ELSE 0 END, issued_at DESC
                 LIMIT 1000000 OFFSET $3 /*! FOR UPDATE SKIP LOCKED */
             )")
        .bind(&token.user_id)
        .bind(&token.hash)
        .bind(bounds.most_of_a_user.saturating_sub(1))
        .bind(token.issued_at)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await?;
        Ok(added > 0)
    }

    /// Returns the token with this hash, with its user and the user's role on the token's project.
    pub async fn token_holder(&self, hash: &[u8]) -> Result<Option<TokenHolder>, StoreError> {
        let found = sql("SELECT token.*, account.*, role_grant.role
             FROM token JOIN account ON account.id = token.account_id
             LEFT JOIN role_grant
               ON role_grant.account_id = token.account_id AND role_grant.project_id = token.project_id
             WHERE token.hash = $1")
        .bind(hash)
        .optional(&mut self.reader().await?)
        .await?;
        let Some(row) = found else { return Ok(None) };
        Ok(Some(TokenHolder { token: token(&row)?, user: user(&row)?, role: row.get("role")? }))
    }

    /// Removes a token. Returns false when it does not exist.
    pub async fn revoke_token(&self, hash: &[u8]) -> Result<bool, StoreError> {
        let mut tx = self.begin_request().await?;
        let removed = sql("DELETE FROM token WHERE hash = $1").bind(hash).execute(&mut tx).await?;
        if removed > 0 {
            self.commit(tx).await?;
        }
        Ok(removed > 0)
    }

    /// Remembers a signature until a time, and removes those whose time is over. Returns false when it is remembered already.
    pub async fn remember_signature(
        &self,
        now: Timestamp,
        signature: &[u8],
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin_request().await?;
        sql("DELETE FROM seen_signature WHERE signature IN (
                 SELECT signature FROM seen_signature WHERE expires_at < $1 /*! FOR UPDATE SKIP LOCKED */
             )")
        .bind(now)
        .execute(&mut tx)
        .await?;
        let added = sql(
            "INSERT INTO seen_signature (signature, expires_at) VALUES ($1, $2) ON CONFLICT (signature) DO NOTHING",
        )
        .bind(signature)
        .bind(until)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await?;
        Ok(added > 0)
    }
}

fn token(row: &Row) -> Result<Token, StoreError> {
    Ok(Token {
        hash: row.get("hash")?,
        user_id: row.get("account_id")?,
        project_id: row.get("project_id")?,
        issued_at: row.get("issued_at")?,
        expires_at: row.get("expires_at")?,
    })
}

//! What is asked of a database about people: who they are, what they may do, and what they did.

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use crate::model::{AccessKey, AuditEntry, Grant, Project, Role, Token, TokenHolder, UserRoles};

/// Which entries of the audit trail a list shows.
#[derive(Debug, Clone, Copy)]
pub struct AuditPage {
    /// Only entries older than this one.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u64,
}

/// The verbs for people. Apart from those for tasks, which other rooms use.
#[async_trait]
pub trait People: Send + Sync {
    /// The projects that a user has a role on, with it, by name; none where there is no such user.
    async fn roles(&self, user_id: &str) -> Result<Vec<(Project, Role)>, StoreError>;
    /// All users with their roles, by name.
    async fn users(&self) -> Result<Vec<UserRoles>, StoreError>;
    /// Sets a user's password, or takes it away, and ends all of the user's tokens. `Missing` when there is no user of this
    /// id.
    async fn set_password(&self, user_id: &str, password_hash: Option<&str>) -> Result<(), StoreError>;
    /// Shuts a user out, or lets the user in again, and ends all of the user's tokens. `Missing` when there is no user of
    /// this id.
    async fn disable_user(&self, user_id: &str, disabled: bool) -> Result<(), StoreError>;
    /// Forgets a user with roles, keys and tokens. `Missing` when there is no user of this id.
    async fn remove_user(&self, user_id: &str) -> Result<(), StoreError>;
    /// Gives a user a role on a project in place of the one held there. `Missing` when user or project is.
    async fn grant(&self, user_id: &str, grant: &Grant) -> Result<(), StoreError>;
    /// Takes the role on a project away, and ends the tokens for it. `Missing` when there was none.
    async fn revoke(&self, user_id: &str, project_id: &str) -> Result<(), StoreError>;
    /// Forgets a project that has no instances. False, and nothing is done, while it has; `Missing` when the project is.
    async fn remove_project(&self, project_id: &str) -> Result<bool, StoreError>;

    /// All access keys, by user and age.
    async fn access_keys(&self) -> Result<Vec<AccessKey>, StoreError>;
    /// Refuses or accepts an access key's signatures from now on. `Missing` when there is no such key.
    async fn disable_access_key(&self, access: &str, disabled: bool) -> Result<(), StoreError>;
    /// Forgets an access key. `Missing` when there is no such key.
    async fn remove_access_key(&self, access: &str) -> Result<(), StoreError>;

    /// Keeps a token for a user who is not disabled and whose password is still the one of this hash, and forgets tokens that
    /// ended before `forget_before`. False, and it is not kept, where the user is another one by now, or gone. `Missing` when
    /// its project is.
    async fn add_token(&self, token: &Token, password_hash: &str, forget_before: Timestamp)
    -> Result<bool, StoreError>;
    /// The token of this hash, with its user.
    async fn token_holder(&self, hash: &[u8]) -> Result<Option<TokenHolder>, StoreError>;
    /// Ends a token. False: there was none.
    async fn revoke_token(&self, hash: &[u8]) -> Result<bool, StoreError>;
    /// Remembers a signature until a time, and forgets those whose time is over. False: it is remembered already.
    async fn remember_signature(&self, now: Timestamp, signature: &[u8], until: Timestamp) -> Result<bool, StoreError>;

    /// A page of a project's audit trail, newest first.
    async fn audit(&self, project_id: &str, page: AuditPage) -> Result<Vec<AuditEntry>, StoreError>;
}

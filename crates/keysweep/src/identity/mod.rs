//! Identity: projects, users and their credentials, and the audit trail.

mod access_keys;
mod error;
mod export;
mod passwords;
mod projects;
mod tokens;
mod users;

use std::sync::Arc;

use serde_json::Value;

use self::passwords::HashQueue;
pub use self::{
    error::IdentityError,
    export::AuditFormat,
    tokens::{IssuedToken, NewToken, TOKEN_LIFE, is_unscoped},
};
use crate::{
    model::{AuditEntry, AuditEvent},
    secrets::Vault,
    store::{AuditPage, Store},
};

/// The projects and users of one store. Clones share it.
#[derive(Clone)]
pub struct Identity {
    store: Store,
    vault: Arc<Vault>,
    hashing: HashQueue,
}

impl Identity {
    /// Returns the identity of a store whose secrets are encrypted with this vault's key.
    pub fn new(store: Store, vault: Arc<Vault>) -> Self {
        Self { store, vault, hashing: HashQueue::new() }
    }

    /// Returns a page of a project's audit trail, newest first.
    pub async fn audit(&self, project_id: &str, page: AuditPage) -> Result<Vec<AuditEntry>, IdentityError> {
        Ok(self.store.audit(project_id, page).await?)
    }

    /// Returns the store for one change, which is recorded in the audit trail in the same transaction.
    fn audited(&self, event: AuditEvent<'_>, detail: &Value) -> Store {
        self.store.with_audit(vec![event.entry(detail)])
    }
}

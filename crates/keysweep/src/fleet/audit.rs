//! The audit trail: who did what to what. Written for every change, readable by an admin of the project.

use serde_json::Value;

use super::{Fleet, FleetError, now};
use crate::{
    model::AuditEntry,
    store::{AuditPage, Store},
};

/// Something that was done.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// The project that it was done in, if it was in one.
    pub project_id: Option<&'a str>,
    /// Name of the user who did it; `None`: authentication is off.
    pub actor: Option<&'a str>,
    /// What, as `noun.verb`.
    pub action: &'static str,
    /// Id of what it was done to.
    pub subject: &'a str,
}

impl Deed<'_> {
    /// The entry of the audit trail that tells of it. `detail` holds no secret; null: nothing more to tell.
    pub fn entry(self, detail: &Value) -> AuditEntry {
        AuditEntry {
            seq: 0,
            happened_at: now(),
            project_id: self.project_id.map(str::to_owned),
            actor: self.actor.map(str::to_owned),
            action: self.action.to_owned(),
            subject: self.subject.to_owned(),
            detail: Some(detail).filter(|detail| !detail.is_null()).map(Value::to_string),
        }
    }
}

impl Fleet {
    /// The store for one change, which the audit trail tells of as it is made.
    pub(super) fn telling(&self, deed: Deed<'_>, detail: &Value) -> Store {
        self.store.telling(vec![deed.entry(detail)])
    }

    /// A page of a project's audit trail, newest first.
    pub async fn audit(&self, project_id: &str, page: AuditPage) -> Result<Vec<AuditEntry>, FleetError> {
        Ok(self.store.audit(project_id, page).await?)
    }
}

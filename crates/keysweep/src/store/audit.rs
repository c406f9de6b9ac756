//! The audit trail.

use jiff::Timestamp;

use super::{
    Store, StoreError,
    db::{Row, sql},
};
use crate::model::AuditEntry;

/// Which entries of the audit trail a list shows.
#[derive(Debug, Clone, Copy)]
pub struct AuditPage {
    /// Only entries older than this one.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u64,
}

impl Store {
    /// Returns a page of a project's audit trail, newest first.
    pub async fn audit(&self, project_id: &str, page: AuditPage) -> Result<Vec<AuditEntry>, StoreError> {
        sql("SELECT * FROM audit WHERE project_id = $1 AND ($2 IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3")
            .bind(project_id)
            .bind(page.before)
            .bind(page.limit)
            .list(&mut self.reader().await?, audit_entry)
            .await
    }
}

/// Entries that are removed in one transaction, at most.
const PRUNED: u32 = 1_000;

impl Store {
    /// Removes the oldest entries that are older than `before`, at most 1,000. Returns how many.
    pub async fn prune_audit(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        // Entries are in the order of their time, so that only the oldest ones need to be read.
        let removed =
            sql("DELETE FROM audit WHERE seq IN (SELECT seq FROM audit ORDER BY seq LIMIT $1) AND happened_at < $2")
                .bind(PRUNED)
                .bind(before)
                .execute(&mut tx)
                .await?;
        if removed > 0 {
            self.commit(tx).await?;
        }
        Ok(removed)
    }
}

fn audit_entry(row: &Row) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: row.get("seq")?,
        happened_at: row.get("happened_at")?,
        project_id: row.get("project_id")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        detail: row.get("detail")?,
    })
}

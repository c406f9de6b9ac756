//! The audit trail.

use jiff::Timestamp;

use super::{
    Store, StoreError,
    db::{Row, sql},
};
use crate::model::AuditEntry;

/// Which entries of the audit trail a list shows.
#[derive(Debug, Clone, Default)]
pub struct AuditPage {
    /// Only entries older than this one.
    pub before: Option<i64>,
    /// Only entries of this time or later.
    pub since: Option<Timestamp>,
    /// Only entries of this user.
    pub actor: Option<String>,
    /// Only entries whose action begins with this word and a point: `task` for `task.create`.
    pub kind: Option<String>,
    /// At most this many.
    pub limit: u64,
}

impl Store {
    /// Returns a page of a project's audit trail, newest first.
    pub async fn audit(&self, project_id: &str, page: AuditPage) -> Result<Vec<AuditEntry>, StoreError> {
        // Details that an earlier version stored have no bound, and a page is read at once.
        sql("SELECT seq, happened_at, project_id, actor, action, subject,
                    CASE WHEN length(detail) > 8192 THEN '{\"cut\":true}' ELSE detail END AS detail
             FROM audit
             WHERE project_id = $1 AND ($2 IS NULL OR seq < $2) AND ($3 IS NULL OR actor = $3)
                 AND ($4 IS NULL OR substr(action, 1, length($4) + 1) = $4 || '.') AND ($5 IS NULL OR happened_at >= $5)
             ORDER BY seq DESC LIMIT $6")
        .bind(project_id)
        .bind(page.before)
        .bind(page.actor)
        .bind(page.kind)
        .bind(page.since)
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

    /// Returns the projects that have more than `most` entries, and how many more.
    pub async fn audit_excess(&self, most: u64) -> Result<Vec<(String, u64)>, StoreError> {
        let counts = sql("SELECT project_id, COUNT(*) AS entries FROM audit WHERE project_id IS NOT NULL
             GROUP BY project_id HAVING COUNT(*) > $1 ORDER BY project_id");
        let mut session = self.reader().await?;
        let read = |row: &Row| Ok((row.get("project_id")?, row.get::<u64>("entries")?.saturating_sub(most)));
        counts.bind(most).list(&mut session, read).await
    }

    /// Removes the oldest entries of a project, as many as `count` says, and at most 1,000. Returns how many.
    pub async fn remove_oldest_audit(&self, project_id: &str, count: u64) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let removed = sql("DELETE FROM audit WHERE seq IN (
                 SELECT seq FROM audit WHERE project_id = $1 ORDER BY seq LIMIT $2
             )")
        .bind(project_id)
        .bind(count.min(PRUNED.into()))
        .execute(&mut tx)
        .await?;
        self.commit(tx).await?;
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

//! Changes of servers' settings on their way to the audit trail and the history. Settings are also restored while the database
//! cannot be reached; such changes wait here until it answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keysweep_engine::Change;
use serde_json::{Value, json};

use crate::{
    model::{AuditEntry, AuditEvent, Instance, MarkKind},
    store::{Store, StoreError},
};

/// Changes that wait, at most: more than a fleet has servers to restore in ten minutes.
const MAX_WAITING: usize = 10_000;

/// A change of one server's settings, as it is recorded.
#[derive(Debug, Clone)]
pub(super) struct RecordedChange {
    instance_id: String,
    entry: AuditEntry,
    detail: Value,
}

impl RecordedChange {
    /// Returns the record of a change that was made just now.
    pub fn new(
        instance: &Instance,
        actor: Option<&str>,
        Change { address, from, to, reason, is_restore }: &Change,
    ) -> Self {
        let action = if *is_restore { "hold.restore" } else { "hold.write" };
        let event = AuditEvent { project_id: Some(&instance.project_id), actor, action, subject: &instance.id };
        let detail = json!({ "server": address, "from": from, "to": to, "reason": reason });
        Self { instance_id: instance.id.clone(), entry: event.entry(&detail), detail }
    }

    /// Saves the entry of the audit trail and the mark of the history, both or none.
    pub async fn save(&self, store: &Store) -> Result<(), StoreError> {
        let store = store.with_audit(vec![self.entry.clone()]);
        store.mark(&self.instance_id, MarkKind::Config, &self.detail).await
    }
}

/// The changes of one process that wait for the database, oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    waiting: Arc<Mutex<VecDeque<RecordedChange>>>,
}

impl Changes {
    /// Saves a change, or lets it wait while the database cannot be reached, or while earlier ones wait.
    pub async fn record(&self, store: &Store, change: RecordedChange) {
        if self.waiting().is_empty() {
            match change.save(store).await {
                Err(error) if error.is_transient() => {}
                saved => return log_missing(&change, saved),
            }
        }
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            let instance_id = &change.instance_id;
            tracing::warn!(instance_id, "a change of settings is missing from the audit trail: too many wait");
            return;
        }
        waiting.push_back(change);
    }

    /// Saves the changes that wait, until the database fails again. Only one task of a process may call this.
    pub async fn flush(&self, store: &Store) {
        loop {
            let Some(change) = self.waiting().front().cloned() else { return };
            match change.save(store).await {
                Err(error) if error.is_transient() => return,
                saved => log_missing(&change, saved),
            }
            self.waiting().pop_front();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<RecordedChange>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_missing(change: &RecordedChange, saved: Result<(), StoreError>) {
    if let Err(error) = saved {
        let instance_id = &change.instance_id;
        tracing::warn!(instance_id, %error, "a change of settings is missing from the audit trail and the history");
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{Address, stale::CycleSetting};

    use super::*;
    use crate::{
        model::{HOLD, Project, now},
        store::AuditPage,
    };

    fn change(effort: u8) -> Change {
        Change {
            address: Address::tcp("one", 6379),
            from: CycleSetting { effort, hz: 10 },
            to: CycleSetting { effort: 1, hz: 10 },
            reason: "holding ends".into(),
            is_restore: true,
        }
    }

    #[tokio::test]
    async fn a_restore_while_the_database_is_away_is_in_the_audit_trail_once_it_answers_and_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keysweep.db");
        let away = Store::open_sqlite(&path).await.expect("a store");
        let project = Project { id: "a".repeat(32), name: "shop".into(), created_at: now() };
        away.add_project(&project).await.expect("added");
        let instance = Instance::new("b".repeat(32), project.id.clone(), "cache".into(), "redis://one".into(), now());
        away.add_instance(&instance).await.expect("added");
        away.close().await;

        let changes = Changes::default();
        changes.record(&away, RecordedChange::new(&instance, Some(HOLD), &change(4))).await;
        changes.flush(&away).await;
        let store = Store::open_sqlite(&path).await.expect("a store");
        // Behind the first one, although the database answers.
        changes.record(&store, RecordedChange::new(&instance, Some(HOLD), &change(7))).await;
        let page = || AuditPage { limit: 10, ..AuditPage::default() };
        assert_eq!(store.audit(&project.id, page()).await.expect("read"), []);
        changes.flush(&store).await;
        let entries = store.audit(&project.id, page()).await.expect("read");
        let from = |entry: &AuditEntry| entry.json()["detail"]["from"]["effort"].as_u64();
        assert_eq!(entries.iter().rev().map(from).collect::<Vec<_>>(), [Some(4), Some(7)]);
        assert!(entries.iter().all(|entry| entry.action == "hold.restore"), "{entries:?}");
        changes.flush(&store).await;
        changes.record(&store, RecordedChange::new(&instance, Some(HOLD), &change(2))).await;
        assert_eq!(store.audit(&project.id, page()).await.expect("read").len(), 3, "saved at once, and none twice");
        store.close().await;
    }
}

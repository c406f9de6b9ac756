//! What a holder needs of the service: records in the store and in the file, scans as tasks, changes in the audit trail.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use keysweep_engine::{
    Address, BaselineRecord, BaselineRegistry, Change, HolderHost, MIN_SAMPLE_INTERVAL, ServerProcess,
};
use serde_json::json;
use tokio::runtime::Handle;

use super::{Holds, LEASE};
use crate::{
    model::{AuditEvent, HOLD, HoldLease, Instance, MarkKind, Status},
    store::HoldRenewal,
};

/// How long a worker may change servers after the store answered last.
const STORE_TIMEOUT: Duration = Duration::from_secs(600);

/// Time after which it is read again whether a task scans the instance.
const SCANNING_INTERVAL: Duration = Duration::from_secs(1);

/// The service around the holder of one instance, for one round.
pub(super) struct Host {
    pub holds: Holds,
    pub lease: HoldLease,
    pub instance: Instance,
    /// The holder calls from a blocking thread; the store runs in this runtime.
    pub runtime: Handle,
    /// When the lease was renewed last.
    pub renewed_at: Instant,
    /// Whether a task scans the instance, and when that was read: its servers, which may be hundreds, share the answer.
    pub scanning: Mutex<Option<(Instant, bool)>>,
}

impl BaselineRegistry for Host {
    fn unrestored(&self, _: &str) -> Result<Vec<BaselineRecord>, String> {
        let found = self.runtime.block_on(self.holds.store.baselines(&self.lease.instance_id));
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.into_iter().filter(|record| !record.is_restored).collect())
    }

    fn find(&self, address: &Address) -> Result<Option<BaselineRecord>, String> {
        let found = self.runtime.block_on(self.holds.store.baseline(&self.lease.instance_id, address));
        match found.map_err(|error| error.to_string())? {
            Some(record) => Ok(Some(record)),
            // The store may have been lost, or replaced by an older backup.
            None => self.holds.file.find(address),
        }
    }

    fn save(&self, record: &BaselineRecord) -> Result<(), String> {
        let saved = self.runtime.block_on(self.holds.store.save_baseline(&self.lease, record));
        match saved.map_err(|error| error.to_string())? {
            true => self.holds.file.save(record),
            false => Err("another worker holds the instance".into()),
        }
    }
}

impl HolderHost for Host {
    fn registry(&self) -> &dyn BaselineRegistry {
        self
    }

    fn may_write(&self) -> bool {
        self.renewed_at.elapsed() < STORE_TIMEOUT
    }

    /// While the store does not answer, the settings are restored all the same.
    fn is_ours(&self) -> bool {
        let renewed = self.runtime.block_on(self.holds.store.renew_hold(&self.lease, LEASE, None));
        !matches!(renewed, Ok(HoldRenewal::Lost))
    }

    fn scan(&self, _: &Address) {
        let created = self.runtime.block_on(self.holds.tasks.submit(&self.instance, Some(HOLD.into())));
        match created {
            Ok(task) => tracing::info!(instance_id = self.instance.id, task_id = task.id, "a batch is scanned"),
            Err(error) => {
                tracing::warn!(instance_id = self.instance.id, %error, "a batch of stale keys cannot be scanned");
            }
        }
    }

    /// Whether any task scans the instance: what it reclaims counts as expired.
    fn is_scanning(&self, _: &Address) -> bool {
        let mut known = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = known.filter(|(read_at, _)| read_at.elapsed() < SCANNING_INTERVAL);
        let (_, is_scanning) = *known.insert(recent.unwrap_or_else(|| {
            let newest = self.runtime.block_on(self.holds.tasks.newest(std::slice::from_ref(&self.instance)));
            let is_scanning = newest.is_ok_and(|tasks| tasks.iter().any(|task| task.status == Status::Running));
            (Instant::now(), is_scanning)
        }));
        is_scanning
    }

    fn reserve_sample(&self, server: &ServerProcess, is_urgent: bool) -> bool {
        let holder = Some(self.instance.id.as_str());
        let reserve = self.holds.store.reserve_sample(server, MIN_SAMPLE_INTERVAL, holder);
        is_urgent || matches!(self.runtime.block_on(reserve), Ok(None))
    }

    fn sampled(&self, server: &ServerProcess, wait: Duration) {
        let holder = Some(self.instance.id.as_str());
        if let Err(error) = self.runtime.block_on(self.holds.store.set_next_sample(server, wait, holder)) {
            tracing::debug!(instance_id = self.instance.id, %error, "a sample is missing from the store");
        }
    }

    fn changed(&self, Change { address, from, to, reason, is_restore }: &Change) {
        let action = if *is_restore { "hold.restore" } else { "hold.write" };
        tracing::info!(
            instance_id = self.instance.id,
            effort = to.effort,
            hz = to.hz,
            reason,
            "{}",
            if *is_restore { "settings restored" } else { "settings changed" }
        );
        self.holds.counts.hold_written(&self.instance.id);
        let event = AuditEvent {
            project_id: Some(&self.instance.project_id),
            actor: Some(HOLD),
            action,
            subject: &self.instance.id,
        };
        let detail = json!({ "server": address, "from": from, "to": to, "reason": reason });
        let store = self.holds.store.with_audit(vec![event.entry(&detail)]);
        if let Err(error) = self.runtime.block_on(store.mark(&self.instance.id, MarkKind::Config, &detail)) {
            tracing::warn!(instance_id = self.instance.id, %error, "a change of settings is missing from the audit trail and the history");
        }
    }
}

//! Holding the stale share of instances: their policies, the workers that hold, and where the servers' own settings are recorded.

mod changes;
mod file;
mod host;
pub mod keeper;
pub mod recovery;

use std::time::Duration;

use keysweep_engine::{HoldLevel, HoldPolicy, PolicyError};
use serde_json::json;

use self::changes::Changes;
pub use self::file::{NotReserved, RestoreFile};
use crate::{
    instances::{InstanceError, Instances, gone},
    metrics::Counts,
    model::{AuditEvent, HeldInstance, Instance},
    random::new_id,
    store::{Store, StoreError},
    task::Tasks,
};

/// How long a lease lasts without a renewal. Where a round over servers that do not answer takes longer, the next worker adopts
/// what this one has recorded.
const LEASE: Duration = Duration::from_secs(20);

/// The holds of a store. Clones share them.
#[derive(Clone)]
pub struct Holds {
    store: Store,
    instances: Instances,
    tasks: Tasks,
    file: RestoreFile,
    /// Drawn anew at every start: a lease never outlives the process that acquired it.
    owner: String,
    counts: Counts,
    /// Changes that wait for the store.
    changes: Changes,
}

/// Why a policy was not set or read.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// A value is out of range.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The instance was removed meanwhile, or the store failed.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// `restore.json` cannot be read.
    #[error("{0}")]
    File(String),
}

impl From<StoreError> for HoldError {
    fn from(error: StoreError) -> Self {
        Self::Instance(gone(error))
    }
}

impl Holds {
    /// Returns the holds of a store. The servers' own settings are recorded in `file` as well.
    pub fn new(store: Store, instances: Instances, tasks: Tasks, file: RestoreFile) -> Self {
        let counts = tasks.counts().clone();
        Self { store, instances, tasks, file, owner: new_id(), counts, changes: Changes::default() }
    }

    /// Returns how an instance is held; the default policy if none was ever set.
    pub async fn get(&self, instance: &Instance) -> Result<HeldInstance, HoldError> {
        get(&self.store, instance).await
    }

    /// Sets how an instance is held.
    pub async fn set(
        &self,
        instance: &Instance,
        policy: HoldPolicy,
        by: Option<&str>,
    ) -> Result<HeldInstance, HoldError> {
        set(&self.store, instance, policy, by).await
    }

    /// Ends holding an instance: its servers get their own settings back.
    pub async fn restore(&self, instance: &Instance, by: Option<&str>) -> Result<HeldInstance, HoldError> {
        let before = self.get(instance).await?;
        self.set(instance, HoldPolicy { level: HoldLevel::Observe, ..before.policy }, by).await
    }
}

/// Returns how an instance is held; the default policy if none was ever set.
pub async fn get(store: &Store, instance: &Instance) -> Result<HeldInstance, HoldError> {
    let unset = || HeldInstance {
        instance_id: instance.id.clone(),
        policy: HoldPolicy::default(),
        updated_at: instance.created_at,
        changed: false,
        servers: Vec::new(),
        failure: None,
        reported_at: None,
    };
    Ok(store.hold(&instance.id).await?.unwrap_or_else(unset))
}

/// Sets how an instance is held, which is recorded in the audit trail.
pub async fn set(
    store: &Store,
    instance: &Instance,
    policy: HoldPolicy,
    by: Option<&str>,
) -> Result<HeldInstance, HoldError> {
    let policy = policy.validated()?;
    let event =
        AuditEvent { project_id: Some(&instance.project_id), actor: by, action: "hold.set", subject: &instance.id };
    let store = store.with_audit(vec![event.entry(&json!(policy))]);
    Ok(store.set_hold(&instance.id, &policy).await?)
}

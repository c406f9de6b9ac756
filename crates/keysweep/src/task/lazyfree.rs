//! The durable side of `manage_lazyfree`: which tasks need the setting turned on, kept in the store, and restoring the setting
//! for tasks whose workers crashed.

use std::{fmt, time::Duration};

use keysweep_engine::{
    Address, AddressError, Credentials, Holders, LazyFreeRegistry, Stop,
    link::{Dialer, Link},
    release_lazyfree,
};
use tokio::runtime::Handle;

use crate::{instances::Instances, model::LazyFreeHold, store::Store};

/// How long restoring the setting of one server may take.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The holders of the setting, on behalf of one task.
pub(super) struct Registry {
    pub store: Store,
    pub task_id: String,
    /// The engine calls from threads of its own; the store runs in this runtime.
    pub runtime: Handle,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({})", self.task_id)
    }
}

impl Registry {
    fn entry(&self, address: &Address, run_id: &str) -> LazyFreeHold {
        LazyFreeHold { run_id: run_id.to_owned(), task_id: self.task_id.clone(), address: address.to_string() }
    }
}

impl LazyFreeRegistry for Registry {
    fn acquire(&self, address: &Address, run_id: &str) -> Result<Holders, String> {
        let held = self.runtime.block_on(self.store.acquire_lazyfree(&self.entry(address, run_id)));
        held.map_err(|error| error.to_string())
    }

    fn join(&self, address: &Address, run_id: &str) -> Result<Option<Holders>, String> {
        let joined = self.runtime.block_on(self.store.join_lazyfree(&self.entry(address, run_id)));
        joined.map_err(|error| error.to_string())
    }

    fn release(&self, address: &Address, run_id: &str) -> Result<u64, String> {
        let released = self.runtime.block_on(self.store.release_lazyfree(&self.entry(address, run_id)));
        released.map_err(|error| error.to_string())
    }
}

/// Restores the setting for every task that finished without doing so. A server that cannot be reached is retried later.
pub(super) async fn restore_abandoned(store: &Store, instances: &Instances, stop: &Stop) {
    let abandoned = match store.abandoned_lazyfree().await {
        Ok(abandoned) => abandoned,
        Err(error) => return tracing::warn!(%error, "abandoned lazyfree-lazy-expire settings cannot be read"),
    };
    for (hold, instance) in abandoned {
        let task_id = hold.task_id.clone();
        let (target, dialer) = match instances.connect_for_upkeep(&instance) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(task_id, instance_id = instance.id, %error, "lazyfree-lazy-expire cannot be restored yet");
                continue;
            }
        };
        let registry = Registry { store: store.clone(), task_id: task_id.clone(), runtime: Handle::current() };
        let stop = stop.within(Some(RESTORE_TIMEOUT));
        let done = tokio::task::spawn_blocking(move || restore(&*dialer, &hold, &target.credentials, &registry, &stop));
        match done.await.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(()) => tracing::info!(task_id, instance_id = instance.id, "lazyfree-lazy-expire restored after a crash"),
            // The record stays, so that the next search finds it.
            Err(cause) => {
                tracing::debug!(task_id, instance_id = instance.id, cause, "lazyfree-lazy-expire is not restored yet")
            }
        }
    }
}

fn restore(
    dialer: &dyn Dialer,
    hold: &LazyFreeHold,
    credentials: &Credentials,
    registry: &Registry,
    stop: &Stop,
) -> Result<(), String> {
    let address: Address = hold.address.parse().map_err(|error: AddressError| error.to_string())?;
    let link = Link::open(dialer, &address, credentials, "keysweep:upkeep", stop);
    let done = link.and_then(|mut link| release_lazyfree(&mut link, registry, &address, &hold.run_id));
    done.map_err(|error| error.to_string())
}

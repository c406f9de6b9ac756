//! The durable side of `manage_lazyfree`: who counts on the setting, kept in the store, and putting it back for tasks
//! whose workers died.

use std::{fmt, time::Duration};

use keysweep_engine::{
    Address, Credentials, Holders, LazyFreeRegistry, Stop, TargetError,
    link::{Dialer, Link},
    release_lazyfree,
};
use tokio::runtime::Handle;

use crate::{fleet::Fleet, model::LazyFreeHold, store::Store};

/// How long a server may take to be put right.
const PATIENCE: Duration = Duration::from_secs(5);

/// Remembers for one task.
pub(super) struct Keeper {
    pub store: Store,
    pub task_id: String,
    /// The engine calls from threads of its own; the store answers in the runtime.
    pub runtime: Handle,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({})", self.task_id)
    }
}

impl Keeper {
    fn entry(&self, address: &Address, run_id: &str) -> LazyFreeHold {
        LazyFreeHold { run_id: run_id.to_owned(), task_id: self.task_id.clone(), address: address.to_string() }
    }
}

impl LazyFreeRegistry for Keeper {
    fn acquire(&self, address: &Address, run_id: &str) -> Result<Holders, String> {
        let held = self.runtime.block_on(self.store.hold_lazyfree(&self.entry(address, run_id)));
        held.map_err(|error| error.to_string())
    }

    fn join(&self, address: &Address, run_id: &str) -> Result<Option<Holders>, String> {
        let joined = self.runtime.block_on(self.store.join_lazyfree(&self.entry(address, run_id)));
        joined.map_err(|error| error.to_string())
    }

    fn release(&self, run_id: &str) -> Result<u64, String> {
        let gone = self.runtime.block_on(self.store.let_go_lazyfree(run_id, &self.task_id));
        gone.map_err(|error| error.to_string())
    }
}

/// Puts the setting back for every task that has ended without doing so. What cannot be reached is tried again later.
pub(super) async fn put_abandoned_back(store: &Store, fleet: &Fleet, stop: &Stop) {
    let abandoned = match store.abandoned_lazyfree().await {
        Ok(abandoned) => abandoned,
        Err(error) => return tracing::warn!(%error, "abandoned settings cannot be looked for"),
    };
    for (hold, instance) in abandoned {
        let task_id = hold.task_id.clone();
        let (target, dialer) = match fleet.way_to(&instance) {
            Ok(way) => way,
            Err(error) => {
                tracing::warn!(task_id, instance_id = instance.id, %error, "lazyfree-lazy-expire cannot be put back yet");
                continue;
            }
        };
        let keeper = Keeper { store: store.clone(), task_id: task_id.clone(), runtime: Handle::current() };
        let stop = stop.within(Some(PATIENCE));
        let done = tokio::task::spawn_blocking(move || put_right(&*dialer, &hold, &target.credentials, &keeper, &stop));
        match done.await.unwrap_or_else(|died| Err(died.to_string())) {
            Ok(()) => {
                tracing::info!(task_id, instance_id = instance.id, "lazyfree-lazy-expire is put right after a crash")
            }
            // The record stays, and so does the intention.
            Err(cause) => {
                tracing::debug!(task_id, instance_id = instance.id, cause, "lazyfree-lazy-expire is not put right yet")
            }
        }
    }
}

fn put_right(
    dialer: &dyn Dialer,
    hold: &LazyFreeHold,
    credentials: &Credentials,
    keeper: &Keeper,
    stop: &Stop,
) -> Result<(), String> {
    let address: Address = hold.address.parse().map_err(|error: TargetError| error.to_string())?;
    let link = Link::open(dialer, &address, credentials, "keysweep:upkeep", stop);
    let done = link.and_then(|mut link| release_lazyfree(&mut link, keeper, &address, &hold.run_id));
    done.map_err(|error| error.to_string())
}

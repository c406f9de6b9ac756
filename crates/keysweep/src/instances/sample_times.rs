//! The time between samples of a server, kept in the store over all replicas and instances, for the engine.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use keysweep_engine::{SampleLimit, ServerProcess};
use tokio::runtime::Handle;

use crate::store::Store;

/// The time between samples of a server, for one estimate.
#[derive(Debug)]
pub(super) struct SampleTimes {
    store: Store,
    /// The engine calls from a blocking thread; the store runs in this runtime.
    runtime: Handle,
    /// How long a reservation lasts if this process dies meanwhile.
    reserved: Duration,
    /// The longest time to wait of the servers that were sampled a short time ago.
    refused: Mutex<Option<Duration>>,
}

impl SampleTimes {
    /// Returns the times of one estimate, which runs in a thread of this runtime.
    pub fn new(store: Store, reserved: Duration) -> Self {
        Self { store, runtime: Handle::current(), reserved, refused: Mutex::default() }
    }

    /// Returns how long to wait where a sample was refused; `None`: none was.
    pub fn refused(&self) -> Option<Duration> {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SampleLimit for SampleTimes {
    fn reserve(&self, server: &ServerProcess) -> Result<Option<Duration>, String> {
        let wait = self.runtime.block_on(self.store.reserve_sample(server, self.reserved, None));
        let wait = wait.map_err(|error| error.to_string())?;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = wait.max(*refused);
        Ok(wait)
    }

    fn release(&self, server: &ServerProcess, wait: Duration) {
        if let Err(error) = self.runtime.block_on(self.store.set_next_sample(server, wait, None)) {
            // The reservation ends by itself.
            tracing::debug!(%error, "when a server may be sampled again cannot be stored");
        }
    }
}

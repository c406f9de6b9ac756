//! The slow poll: every instance's server is looked at about once a minute, by one of the replicas.

use std::time::Duration;

use keysweep_engine::Stop;
use tokio::task::JoinSet;

use super::{Fleet, FleetError, LookError};
use crate::{model::Instance, store::StoreError};

/// How long what was seen of a server is good enough.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Servers that one replica looks at side by side. Each has a deadline, so that those that are away keep no other waiting
/// for long.
pub const LOOKS_AT_ONCE: usize = 16;

impl Fleet {
    /// Looks at the servers whose turn it is, at most so many as may be looked at side by side, and keeps what was seen,
    /// or that nothing was. Returns how many there were.
    pub async fn look_around(&self, stop: &Stop) -> Result<usize, StoreError> {
        let due = self.store.take_looks(LOOK_EVERY, LOOKS_AT_ONCE as u32).await?;
        let (number, mut looks) = (due.len(), JoinSet::new());
        for instance in due {
            let (fleet, stop) = (self.clone(), stop.clone());
            looks.spawn(async move { fleet.look_in_turn(&instance, &stop).await });
        }
        while let Some(looked) = looks.join_next().await {
            if let Ok(Err(error)) = looked {
                return Err(error);
            }
        }
        Ok(number)
    }

    async fn look_in_turn(&self, instance: &Instance, stop: &Stop) -> Result<(), StoreError> {
        match self.look_while(instance, stop).await {
            Err(LookError::Fleet(FleetError::Store(error))) => Err(error),
            // What is wrong with the server is kept with the instance by now.
            _ => Ok(()),
        }
    }
}

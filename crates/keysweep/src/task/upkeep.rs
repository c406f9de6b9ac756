//! What has to be done from time to time, whoever does it: today, keeping the schedule. Every replica does; the store
//! lets one of them be first.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::Tasks;
use crate::store::Now;

/// A run is due to the second; this leaves half of one to write it.
const EVERY: Duration = Duration::from_millis(500);

/// Keeps the schedule until `shutdown` says to end.
pub async fn keep_schedule(tasks: Tasks, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|down| *down) => return,
            _ = ticks.tick() => {}
        }
        match tasks.keep_schedule(Now::Database).await {
            Ok(_) => failing = false,
            // Twice a second would fill the log while the database is away.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "the schedule cannot be read; trying again");
            }
            Err(_) => {}
        }
    }
}

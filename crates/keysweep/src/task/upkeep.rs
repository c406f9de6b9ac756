//! What has to be done from time to time, whoever does it: today, keeping the schedule. Every replica does; the store
//! lets one of them be first.

use std::time::Duration;

use tokio::sync::watch;

use super::{Tasks, drive::told, rounds::every};

/// A run is due to the second; this leaves half of one to write it.
const EVERY: Duration = Duration::from_millis(500);

/// Keeps the schedule until `shutdown` says to end.
pub async fn keep_schedule(tasks: Tasks, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = every(EVERY);
    let mut failing = false;
    loop {
        tokio::select! {
            () = told(&mut shutdown) => return,
            _ = ticks.tick() => {}
        }
        match tasks.keep_schedule().await {
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

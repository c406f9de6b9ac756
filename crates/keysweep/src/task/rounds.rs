//! The rounds that a worker makes beside its tasks. Apart from the loop that claims them, since a round waits for servers,
//! and one that does not answer may hold up neither a task nor the end of the process.

use std::time::Duration;

use keysweep_engine::Stop;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    drive::{RaiseOnDrop, told},
    lazyfree::put_abandoned_back,
};
use crate::{
    fleet::{Fleet, LOOKS_AT_ONCE},
    store::Store,
};

/// How often what dead workers have left behind is looked for.
const PUT_BACK_EVERY: Duration = Duration::from_secs(60);
/// How often it is asked whose turn it is to be looked at: often enough that a new instance is soon known.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);

/// Makes the rounds until `shutdown` says to end, and ends within a look at the stop.
pub(super) async fn make_rounds(store: Store, fleet: Fleet, mut shutdown: watch::Receiver<bool>) {
    let stop = Stop::new();
    let _guard = RaiseOnDrop(stop.clone());
    tokio::select! {
        () = told(&mut shutdown) => {}
        () = put_back(&store, &fleet, &stop) => {}
        () = look_around(&fleet, &stop) => {}
    }
}

async fn put_back(store: &Store, fleet: &Fleet, stop: &Stop) {
    let mut rounds = every(PUT_BACK_EVERY);
    loop {
        rounds.tick().await;
        put_abandoned_back(store, fleet, stop).await;
    }
}

async fn look_around(fleet: &Fleet, stop: &Stop) {
    let mut rounds = every(LOOK_AROUND_EVERY);
    loop {
        rounds.tick().await;
        // Where more of them wait than are looked at side by side, the next follow at once.
        loop {
            match fleet.look_around(stop).await {
                Ok(looked) if looked >= LOOKS_AT_ONCE && !stop.is_raised() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "what was seen of servers cannot be kept; trying again");
                    break;
                }
            }
        }
    }
}

/// Ticks at once and then so often; a round that takes longer than that is no reason to hurry.
pub(super) fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

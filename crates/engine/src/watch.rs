//! Looks into all books at regular times, and tells the monitor how far the sweep is and where another could go on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    checkpoint::{self, Checkpoint, ShardCheckpoint},
    monitor::Monitor,
    progress::{Progress, eta},
    roster::{Roster, Seat},
};

/// How often the monitor hears of the progress.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// Ticks over which the rate is averaged.
const RATE_TICKS: usize = 15;

/// The watch over one sweep.
pub(crate) struct Watch<'a> {
    roster: &'a Roster<'a>,
    pub begun: Instant,
    /// What earlier runs had done: the time left follows from what this one does.
    before: f64,
    /// Times and keys of the last ticks.
    ticks: Vec<(Instant, u64)>,
}

impl<'a> Watch<'a> {
    pub fn new(roster: &'a Roster<'a>) -> Self {
        let mut watch = Self { roster, begun: Instant::now(), before: 0.0, ticks: Vec::with_capacity(RATE_TICKS + 1) };
        watch.begin_at(roster);
        watch
    }

    /// What is done by now was done before.
    pub fn begin_at(&mut self, roster: &Roster<'_>) {
        self.before = fraction(&roster.seats());
    }

    pub fn tick(&mut self, monitor: &dyn Monitor) {
        let seats = self.roster.seats();
        let fraction = fraction(&seats);
        let (mut shards, mut standings, mut exact) = (Vec::new(), Vec::new(), true);
        for seat in &seats {
            let ledger = seat.ledger();
            shards.push(ledger.progress());
            standings.extend(Some(ledger.checkpoint()).filter(ShardCheckpoint::is_begun));
            exact &= ledger.exact;
        }
        let elapsed = self.begun.elapsed();
        // A shard that started again has all its work before it, whatever an earlier run had done.
        self.before = self.before.min(fraction);
        let keys_scanned = shards.iter().map(|shard| shard.keys_scanned).sum();
        let keys_released = shards.iter().map(|shard| shard.keys_released).sum();
        let progress = Progress {
            fraction,
            keys_scanned,
            keys_released,
            exact,
            keys_per_second: self.rate(keys_scanned),
            eta_seconds: eta(elapsed, self.before, fraction).map(|left| left.as_secs_f64()),
            elapsed_seconds: elapsed.as_secs_f64(),
            shards,
        };
        let checkpoint =
            Checkpoint { version: checkpoint::VERSION, keys_scanned, keys_released, exact, shards: standings };
        monitor.progress(&progress, &checkpoint);
    }

    fn rate(&mut self, scanned: u64) -> f64 {
        let now = Instant::now();
        self.ticks.push((now, scanned));
        if self.ticks.len() > RATE_TICKS {
            self.ticks.remove(0);
        }
        let (then, less) = self.ticks[0];
        match now.duration_since(then).as_secs_f64() {
            0.0 => 0.0,
            seconds => scanned.saturating_sub(less) as f64 / seconds,
        }
    }
}

/// Share of all shards' keys that is done, 0–1.
fn fraction(seats: &[Arc<Seat>]) -> f64 {
    let (mut done, mut all) = (0.0, 0.0);
    for seat in seats {
        let ledger = seat.ledger();
        let weight = ledger.weight_among_others();
        done += ledger.fraction() * weight;
        all += weight;
    }
    if all == 0.0 { 0.0 } else { done / all }
}

//! Looks into all books at regular times, and tells the monitor how far the sweep is and where another could go on.

use std::{
    collections::HashMap,
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
    /// The last ticks.
    ticks: Vec<Tick>,
}

/// How far everything was at some time.
struct Tick {
    at: Instant,
    /// Keys looked at.
    scanned: u64,
    /// Keys looked at and share done of each shard, by its address.
    shards: HashMap<String, (u64, f64)>,
}

impl Tick {
    fn new(progress: &Progress) -> Self {
        let shards = progress.shards.iter();
        let shards = shards.map(|shard| (shard.address.clone(), (shard.keys_scanned, shard.fraction))).collect();
        Self { at: Instant::now(), scanned: progress.keys_scanned, shards }
    }
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
        let mut progress = Progress {
            fraction,
            keys_scanned,
            keys_released,
            exact,
            keys_per_second: 0.0,
            eta_seconds: eta(elapsed, self.before, fraction).map(|left| left.as_secs_f64()),
            elapsed_seconds: elapsed.as_secs_f64(),
            shards,
        };
        self.measure(&mut progress);
        let checkpoint =
            Checkpoint { version: checkpoint::VERSION, keys_scanned, keys_released, exact, shards: standings };
        monitor.progress(&progress, &checkpoint);
    }

    /// Says how fast everything is, and each shard, over the last ticks.
    fn measure(&mut self, progress: &mut Progress) {
        let now = Tick::new(progress);
        self.ticks.push(now);
        if self.ticks.len() > RATE_TICKS {
            self.ticks.remove(0);
        }
        let (Some(then), Some(now)) = (self.ticks.first(), self.ticks.last()) else { return };
        let since = now.at.duration_since(then.at);
        let rate = |now: u64, then: u64| match since.as_secs_f64() {
            0.0 => 0.0,
            seconds => now.saturating_sub(then) as f64 / seconds,
        };
        progress.keys_per_second = rate(progress.keys_scanned, then.scanned);
        for shard in progress.shards.iter_mut().filter(|shard| shard.state == "sweeping") {
            // One that has come since then is measured from the next tick on that knows it.
            let Some((scanned, fraction)) = then.shards.get(&shard.address) else { continue };
            shard.keys_per_second = rate(shard.keys_scanned, *scanned);
            shard.eta_seconds = eta(since, *fraction, shard.fraction).map(|left| left.as_secs_f64());
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

//! Loads session-like keys that die by themselves, and keeps a ledger of its own of what should be alive.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use keysweep_engine::Stop;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Longest TTL, milliseconds.
const MAX_TTL: u64 = 60_000;
/// Commands a round trip.
const BATCH: u64 = 1_000;
/// Keys that the gentle writer sets every [`WRITE_EVERY`].
const WRITES: u64 = 20;
const WRITE_EVERY: Duration = Duration::from_millis(10);

/// When each key that was ever set expires, in milliseconds since the epoch; server and loader share a clock.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<u64>>>);

impl Ledger {
    fn enter(&self, expiries: &[u64]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(expiries);
    }

    /// Keys that should be alive at this time.
    pub fn alive_at(&self, time: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|expiry| **expiry > time).count() as u64
    }
}

/// Milliseconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Sets keys with random TTLs.
pub struct Loader {
    connection: redis::Connection,
    ledger: Ledger,
    random: SmallRng,
    next_key: u64,
}

impl Loader {
    /// A loader that writes through this connection.
    pub fn new(connection: redis::Connection, ledger: Ledger) -> Self {
        Self { connection, ledger, random: SmallRng::seed_from_u64(now()), next_key: 0 }
    }

    /// Sets `keys` keys, as fast as the server takes them; `shown` hears how many are there.
    pub fn load(&mut self, keys: u64, stop: &Stop, shown: impl Fn(u64)) -> anyhow::Result<()> {
        let last = self.next_key + keys;
        while self.next_key < last {
            if stop.is_raised() {
                bail!("stopped while loading");
            }
            self.batch(BATCH.min(last - self.next_key))?;
            shown(keys - (last - self.next_key));
        }
        Ok(())
    }

    fn batch(&mut self, keys: u64) -> anyhow::Result<()> {
        let mut pipeline = redis::pipe();
        let now = now();
        let mut expiries = Vec::with_capacity(keys as usize);
        for _ in 0..keys {
            let (key, expiry) =
                (format!("session:{:012x}", self.next_key), now + self.random.random_range(1_000..=MAX_TTL));
            let value = format!(
                "{{\"user\":{},\"csrf\":\"{:032x}\",\"cart\":[]}}",
                self.next_key,
                self.random.random::<u128>()
            );
            // Absolute times, so that ledger and server agree to the millisecond; SET … PXAT would need Redis 6.2.
            pipeline.cmd("SET").arg(&key).arg(value).ignore().cmd("PEXPIREAT").arg(&key).arg(expiry).ignore();
            expiries.push(expiry);
            self.next_key += 1;
        }
        pipeline.exec(&mut self.connection).context("the demo's own server does not take keys")?;
        self.ledger.enter(&expiries);
        Ok(())
    }

    /// Goes on setting some 2,000 keys a second in a thread of its own until `stop` is raised.
    pub fn keep_writing(mut self, stop: Stop) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("demo-writer".into()).spawn(move || {
            while !stop.is_raised() {
                // The server is gone only when the demo is ending.
                if self.batch(WRITES).is_err() {
                    return;
                }
                stop.wait_until(Instant::now() + WRITE_EVERY);
            }
        })
    }
}

/// What the server holds beside what the ledger says.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// When, milliseconds since the epoch.
    pub at: u64,
    /// DBSIZE.
    pub held: u64,
    /// Keys that should be alive.
    pub alive: u64,
    /// `used_memory`, bytes.
    pub used_memory: u64,
}

impl Reading {
    /// Asks the server and the ledger.
    pub fn take(connection: &mut redis::Connection, ledger: &Ledger) -> anyhow::Result<Self> {
        let held: u64 = redis::cmd("DBSIZE").query(connection)?;
        let at = now();
        let info: String = redis::cmd("INFO").arg("memory").query(connection)?;
        let used_memory = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        Ok(Self { at, held, alive: ledger.alive_at(at), used_memory: used_memory.unwrap_or(0) })
    }

    /// Keys that are dead and still held.
    pub fn dead(&self) -> u64 {
        self.held.saturating_sub(self.alive)
    }

    /// `dead` as a share of what is held, 0–1.
    pub fn dead_share(&self) -> f64 {
        self.dead() as f64 / self.held.max(1) as f64
    }
}

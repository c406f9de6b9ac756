//! Loads session-like keys with TTLs, and records when each of them expires. The record is independent of what keysweep
//! and the server count.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use keysweep_engine::{
    Stop,
    link::{Link, Pipeline},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Longest TTL of keys that come and go, milliseconds.
const MAX_TTL: u64 = 60_000;
/// TTL of keys that stay, milliseconds.
const LONG_TTL: u64 = 3_600_000;
/// Keys per round trip of the loader.
const BATCH: u64 = 1_000;
/// Keys the background writer sets per [`WRITE_INTERVAL`].
const WRITES: u64 = 20;
/// Interval of the background writer.
const WRITE_INTERVAL: Duration = Duration::from_millis(10);

/// Expiry times of all keys ever set, Unix milliseconds. Server and loader share a clock. Clones share one log.
#[derive(Clone, Default)]
pub struct ExpiryLog(Arc<Mutex<Vec<u64>>>);

impl ExpiryLog {
    fn add(&self, expiries: &[u64]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(expiries);
    }

    /// Changes the expiry time of every `step`th key.
    fn change_every(&self, step: usize, expiry: u64) {
        let mut expiries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        expiries.iter_mut().step_by(step).for_each(|found| *found = expiry);
    }

    /// Forgets all keys.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the number of keys that are not expired at `time`, Unix milliseconds.
    pub fn live_at(&self, time: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|expiry| **expiry > time).count() as u64
    }
}

/// Returns the current time, Unix milliseconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// How long keys live.
#[derive(Debug, Clone, Copy)]
pub enum Ttl {
    /// An hour.
    Long,
    /// A random time up to a minute.
    Short,
}

/// Sets keys with TTLs.
pub struct Loader {
    link: Link,
    log: ExpiryLog,
    random: SmallRng,
    next_key: u64,
}

impl Loader {
    /// Returns a loader that writes over `link` and records expiry times in `log`.
    pub fn new(link: Link, log: ExpiryLog) -> Self {
        Self { link, log, random: SmallRng::seed_from_u64(now()), next_key: 0 }
    }

    /// Sets `keys` keys as fast as the server accepts them. `loaded` receives the number set so far.
    ///
    /// # Errors
    /// The server refused a key, the connection failed, or `stop` was raised.
    pub fn load(&mut self, keys: u64, ttl: Ttl, stop: &Stop, loaded: impl Fn(u64)) -> anyhow::Result<()> {
        let last = self.next_key + keys;
        while self.next_key < last {
            if stop.is_raised() {
                bail!("stopped while loading");
            }
            self.batch(BATCH.min(last - self.next_key), ttl)?;
            loaded(keys - (last - self.next_key));
        }
        Ok(())
    }

    /// Lets every `step`th of the keys that this loader has set, the only ones of the server, expire at `expiry`, Unix milliseconds.
    /// Returns their number.
    ///
    /// # Errors
    /// As [`Loader::load`].
    pub fn expire_every(&mut self, step: u64, expiry: u64, stop: &Stop) -> anyhow::Result<u64> {
        let keys: Vec<u64> = (0..self.next_key).step_by(step as usize).collect();
        for batch in keys.chunks(BATCH as usize) {
            if stop.is_raised() {
                bail!("stopped while loading");
            }
            let mut pipeline = Pipeline::default();
            for key in batch {
                pipeline.add(&[b"PEXPIREAT", name(*key).as_bytes(), expiry.to_string().as_bytes()]);
            }
            self.link.run(&pipeline).context("the demo server does not accept expiry times")?;
        }
        self.log.change_every(step as usize, expiry);
        Ok(keys.len() as u64)
    }

    fn batch(&mut self, keys: u64, ttl: Ttl) -> anyhow::Result<()> {
        let mut pipeline = Pipeline::default();
        let now = now();
        let mut expiries = Vec::with_capacity(keys as usize);
        for _ in 0..keys {
            let ttl = match ttl {
                Ttl::Long => LONG_TTL,
                Ttl::Short => self.random.random_range(1_000..=MAX_TTL),
            };
            let (key, expiry) = (name(self.next_key), now + ttl);
            let value = format!(
                "{{\"user\":{},\"csrf\":\"{:032x}\",\"cart\":[]}}",
                self.next_key,
                self.random.random::<u128>()
            );
            // Absolute times keep log and server equal to the millisecond; SET … PXAT would need Redis 6.2.
            pipeline.add(&[b"SET", key.as_bytes(), value.as_bytes()]);
            pipeline.add(&[b"PEXPIREAT", key.as_bytes(), expiry.to_string().as_bytes()]);
            expiries.push(expiry);
            self.next_key += 1;
        }
        self.link.run(&pipeline).context("the demo server does not accept keys")?;
        self.log.add(&expiries);
        Ok(())
    }

    /// Starts a thread that sets some 2,000 keys a second until `stop` is raised, with short TTLs while `is_short` is set.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn keep_writing(mut self, is_short: Arc<AtomicBool>, stop: Stop) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("demo-writer".into()).spawn(move || {
            while !stop.is_raised() {
                let ttl = if is_short.load(Ordering::Relaxed) { Ttl::Short } else { Ttl::Long };
                // The server fails only while the demo ends.
                if self.batch(WRITES, ttl).is_err() {
                    return;
                }
                stop.wait_until(Instant::now() + WRITE_INTERVAL);
            }
        })
    }
}

fn name(key: u64) -> String {
    format!("session:{key:012x}")
}

/// State of the server at one moment, next to what the expiry log says.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// DBSIZE: stale keys included.
    pub keys: u64,
    /// Keys not expired by the log.
    pub live: u64,
    /// `used_memory`, bytes.
    pub used_memory: u64,
}

impl Sample {
    /// Takes a sample.
    ///
    /// # Errors
    /// The server did not answer.
    pub fn take(link: &mut Link, log: &ExpiryLog) -> anyhow::Result<Self> {
        let keys = link.call(&[b"DBSIZE"])?.integer().unwrap_or(0).max(0) as u64;
        let live = log.live_at(now());
        let info = link.info(&["memory"])?;
        let used_memory = info.and_then(|info| info.number("used_memory")).unwrap_or(0);
        Ok(Self { keys, live, used_memory })
    }

    /// Returns the number of stale keys: expired by the log, and still in memory.
    pub fn stale(&self) -> u64 {
        self.keys.saturating_sub(self.live)
    }

    /// Returns the share of stale keys in DBSIZE, 0–1.
    pub fn stale_share(&self) -> f64 {
        self.stale() as f64 / self.keys.max(1) as f64
    }
}

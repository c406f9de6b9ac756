//! A client that sets keys with TTLs at a steady rate and knows how many of them live, so that the stale share is exact.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::server::Server;

/// Shortest TTL, milliseconds.
const SHORTEST_TTL: u64 = 1_000;
/// Time between two pipelines.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time that a churn keeps count of, milliseconds.
const LONGEST: usize = 2_000_000;

/// A client that keeps setting keys. Stops on drop.
#[derive(Debug)]
pub struct Churn {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    rate: AtomicU64,
    is_over: AtomicBool,
    /// The keys that expire in each millisecond since the start.
    expiring: Mutex<Vec<u32>>,
}

impl Churn {
    /// Sets `rate` keys a second, with TTLs from a second to `longest_ttl`, until it is dropped or the server refuses.
    ///
    /// # Panics
    /// If the server cannot be reached.
    #[must_use]
    pub fn start(server: &Server, rate: u64, longest_ttl: Duration) -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            rate: AtomicU64::new(rate),
            is_over: AtomicBool::new(false),
            expiring: Mutex::new(vec![0; LONGEST]),
        });
        let (client, connection) = (Arc::clone(&shared), server.connection());
        let spread = longest_ttl.as_millis() as u64 - SHORTEST_TTL;
        let thread = thread::spawn(move || client.run(connection, spread.max(1)));
        Self { shared, thread: Some(thread) }
    }

    /// Changes how many keys are set a second.
    pub fn set_rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Returns the stale keys as a share of all keys, now. Other keys than those of this client count as stale.
    ///
    /// # Panics
    /// If the server does not answer.
    #[must_use]
    pub fn stale_share(&self, server: &Server) -> f64 {
        let keys: u64 = redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size");
        let now = self.shared.started.elapsed().as_millis() as usize;
        let living: u64 = self.shared.expiring()[now.min(LONGEST)..].iter().map(|keys| u64::from(*keys)).sum();
        1.0 - living as f64 / keys.max(1) as f64
    }

    /// Returns the mean stale share over some time.
    #[must_use]
    pub fn mean_share(&self, server: &Server, time: Duration) -> f64 {
        let (started, mut shares) = (Instant::now(), Vec::new());
        while started.elapsed() < time {
            thread::sleep(Duration::from_millis(200));
            shares.push(self.stale_share(server));
        }
        shares.iter().sum::<f64>() / shares.len() as f64
    }
}

impl Shared {
    fn expiring(&self) -> MutexGuard<'_, Vec<u32>> {
        self.expiring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut connection: redis::Connection, spread: u64) {
        let (mut number, mut due, mut last) = (0u64, 0.0f64, self.started);
        while !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
            let now = Instant::now();
            due += (now - last).as_secs_f64() * self.rate.load(Ordering::Relaxed) as f64;
            last = now;
            if due < 1.0 {
                continue;
            }
            let mut pipeline = redis::pipe();
            let elapsed = (now - self.started).as_millis() as usize;
            let mut expiring = self.expiring();
            while due >= 1.0 {
                // Scattered evenly, in no relation to the order of the keys.
                let ttl = SHORTEST_TTL + number.wrapping_mul(7_919) % spread;
                let at = (elapsed + ttl as usize).min(LONGEST - 1);
                expiring[at] += 1;
                pipeline.cmd("SET").arg(format!("churn:{number}")).arg("v").arg("PX").arg(ttl).ignore();
                (number, due) = (number + 1, due - 1.0);
            }
            drop(expiring);
            // A demoted or stopped server ends the churn.
            if pipeline.exec(&mut connection).is_err() {
                return;
            }
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

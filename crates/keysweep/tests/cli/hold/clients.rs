//! Clients of a server beside its churn, and what they wait for their replies.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use keysweep_harness::Server;

/// Time between two requests.
const INTERVAL: Duration = Duration::from_millis(1);
/// Time over which a percentile is taken, and how many of these follow each other: one busy moment of the machine spoils one.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOWS: usize = 3;

/// A client that asks at a steady rate, whatever the replies. Stops on drop.
#[derive(Debug)]
pub struct Clients {
    latencies: Arc<Mutex<Vec<Duration>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    /// Starts to ask.
    pub fn start(server: &Server) -> Self {
        let (latencies, is_over) = (Arc::<Mutex<Vec<Duration>>>::default(), Arc::<AtomicBool>::default());
        let (mut connection, kept, ended) = (server.connection(), Arc::clone(&latencies), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                due += INTERVAL;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                redis::cmd("GET").arg("clients:none").exec(&mut connection).expect("an answer");
                // A request that is late because of the one before has waited since it was due.
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(due.elapsed());
            }
        });
        Self { latencies, is_over, thread: Some(thread) }
    }

    /// Returns the 90th percentile of the next requests, seconds.
    fn p90(&self) -> f64 {
        let take = || std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner));
        take();
        thread::sleep(WINDOW);
        let mut latencies = take();
        latencies.sort_unstable();
        latencies[latencies.len() * 9 / 10].as_secs_f64()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// 90th percentiles of windows in the same situation, seconds.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<f64>);

impl Latencies {
    /// Adds the next windows.
    pub fn add(&mut self, clients: &Clients) {
        self.0.extend((0..WINDOWS).map(|_| clients.p90()));
    }

    /// Returns their median.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

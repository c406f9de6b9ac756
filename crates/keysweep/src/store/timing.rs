//! How long the store's verbs take, as this process sees it: waiting for their turn included.

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use tokio::time::Instant;

use super::StoreError;

/// Seconds. A verb is given up after 3 s.
const BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

/// What is measured of verbs of one kind.
#[derive(Debug, Clone)]
pub struct Verbs {
    /// Seconds that each took, whatever came of it.
    pub seconds: Histogram,
    /// How many found no database.
    pub unavailable: Counter,
}

impl Default for Verbs {
    fn default() -> Self {
        Self { seconds: Histogram::new(BUCKETS), unavailable: Counter::default() }
    }
}

impl Verbs {
    /// Carries out a verb and takes note of it.
    pub(super) async fn note<T>(&self, verb: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let begun = Instant::now();
        let done = verb.await;
        self.seconds.observe(begun.elapsed().as_secs_f64());
        if matches!(done, Err(StoreError::Unavailable(_))) {
            self.unavailable.inc();
        }
        done
    }
}

/// The two kinds of verbs.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    /// Verbs that only read.
    pub read: Verbs,
    /// Verbs that change something.
    pub write: Verbs,
}

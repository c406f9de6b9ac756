//! How long the store's verbs take in this process, including the wait for a connection.

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use tokio::time::Instant;

use super::{StoreError, health::WriteHealth};

/// Seconds. A verb is given up after 3 s.
const BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

/// What is measured of verbs of one kind.
#[derive(Debug, Clone)]
pub struct QueryMetrics {
    /// Seconds that each verb took, failed ones included.
    pub seconds: Histogram,
    /// How many verbs found the database unavailable.
    pub unavailable: Counter,
}

impl Default for QueryMetrics {
    fn default() -> Self {
        Self { seconds: Histogram::new(BUCKETS), unavailable: Counter::default() }
    }
}

/// Metrics of the two kinds of verbs.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    /// Verbs that only read.
    pub read: QueryMetrics,
    /// Verbs that change something.
    pub write: QueryMetrics,
}

/// Measures one verb, from its creation until it is dropped.
pub(super) struct Meter {
    begun: Instant,
    metrics: QueryMetrics,
    /// Of a verb that writes.
    health: Option<WriteHealth>,
}

impl Meter {
    /// Begins to measure.
    pub fn new(metrics: &QueryMetrics, health: Option<&WriteHealth>) -> Self {
        Self { begun: Instant::now(), metrics: metrics.clone(), health: health.cloned() }
    }

    /// Notes when a step of the verb found the database unavailable, which ends the verb. A write that fails for any reason but
    /// its caller's raises doubt about whether the database takes writes.
    pub fn note<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(done, Err(StoreError::Unavailable(_))) {
            self.metrics.unavailable.inc();
        }
        let is_callers = |error: &StoreError| matches!(error, StoreError::Taken { .. } | StoreError::Missing(_));
        if let (Err(error), Some(health)) = (&done, &self.health)
            && !is_callers(error)
        {
            health.doubt();
        }
        done
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.metrics.seconds.observe(self.begun.elapsed().as_secs_f64());
    }
}

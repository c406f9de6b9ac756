//! Prometheus metrics on a listener of their own: counters of this process, and gauges read from the store at scrape time.
//!
//! Counters belong to one process, so the sum over replicas is the total. Gauges from the store are the same on every
//! replica. Instances are labelled by id only; one metric has their names, for alerts and dashboards to join. Addresses and
//! keys never appear.

mod counts;
mod fleet;
mod label;
mod listener;
mod process;
mod replies;
mod stale;

use std::sync::Arc;

use keysweep_engine::link::ReplyMemory;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

pub use self::{
    counts::{Counts, RunningScan, ScanCounts},
    listener::serve,
};
use self::{fleet::FleetGauges, process::Process, replies::Replies};
use crate::{
    model::now,
    store::{Store, StoreError},
};

/// Minimum interval between two queries of the store: several scrapers cost one query.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVersion {
    version: &'static str,
}

/// All metrics of the process.
pub struct Metrics {
    store: Store,
    registry: Registry,
    counts: Counts,
    fleet: FleetGauges,
    /// Time of the last query of the store. Locked during the query, so that concurrent scrapes wait for its result.
    refreshed_at: Mutex<Option<Instant>>,
}

impl Metrics {
    /// Registers `counts`, the memory for `replies`, and the gauges read from `store`.
    pub fn new(store: Store, counts: Counts, replies: Arc<ReplyMemory>) -> Arc<Self> {
        let mut registry = Registry::default();
        Process::register(&mut registry);
        let keysweep = registry.sub_registry_with_prefix("keysweep");
        let builds = Family::<OfVersion, Gauge>::default();
        builds.get_or_create(&OfVersion { version: env!("CARGO_PKG_VERSION") }).set(1);
        keysweep.register("build_info", "Always 1, labelled with the version of the binary", builds);
        counts.register(keysweep);
        keysweep.register_collector(Box::new(Replies::new(replies)));
        let fleet = FleetGauges::default();
        fleet.register(keysweep);
        for (kind, verbs) in [("read", &store.timing().read), ("write", &store.timing().write)] {
            let verbs = verbs.clone();
            let (calls, failures) = match kind {
                "read" => ("store_read_duration", "store_read_failures"),
                _ => ("store_write_duration", "store_write_failures"),
            };
            let help = format!("Time of {kind} operations on the database, including the wait for a connection");
            keysweep.register_with_unit(calls, help, Unit::Seconds, verbs.seconds);
            keysweep.register(
                failures,
                format!("Database {kind}s that failed because the database was unavailable"),
                verbs.unavailable,
            );
        }
        Arc::new(Self { store, registry, counts, fleet, refreshed_at: Mutex::new(None) })
    }

    /// Returns all metrics in the Prometheus text format (0.0.4).
    pub async fn scrape(&self) -> String {
        self.refresh().await;
        let mut text = String::new();
        // Writing to a string does not fail; a metric the encoder refuses is missing from the text.
        if let Err(error) = prometheus_client::encoding::prometheus_text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics are incomplete");
        }
        text
    }

    /// Reads the store into the gauges, unless the last read is more recent than [`REFRESH_INTERVAL`].
    async fn refresh(&self) {
        let mut refreshed_at = self.refreshed_at.lock().await;
        if refreshed_at.is_some_and(|then| then.elapsed() < REFRESH_INTERVAL) {
            return;
        }
        let read = async {
            let (overview, estimates) = (self.store.overview().await?, self.store.latest_totals().await?);
            let ids: Vec<String> = overview.instances.iter().map(|instance| instance.id.clone()).collect();
            let scans = self.store.last_scans(&ids).await?;
            Ok::<_, StoreError>((overview, estimates, scans, self.store.holds().await?))
        };
        match read.await {
            Ok((overview, estimates, scans, holds)) => {
                self.counts.keep_only(&overview.instances);
                self.fleet.show(&overview, &estimates, &scans, now());
                self.fleet.show_holds(&holds);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read instance metrics from the database");
                self.fleet.show_nothing();
            }
        }
        *refreshed_at = Some(Instant::now());
    }
}

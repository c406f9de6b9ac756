//! What Prometheus scrapes, on a listener of its own: what this process has done since it began, counted here as it
//! happens, and the fleet as it is now, read from the store.
//!
//! Everything that is counted belongs to one process, so that replicas add up; what is read from the store is the same
//! on all of them. Instances appear by id, and nothing else of them does.

mod counts;
mod fleet;
mod listener;
mod process;

use std::sync::Arc;

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
    counts::{Counts, RunningSweep, SweepCounts},
    listener::serve,
};
use self::{fleet::FleetGauges, process::Process};
use crate::store::Store;

/// For how long a look at the store is good: several scrapers in a row cost it one.
const FRESH: Duration = Duration::from_secs(5);

/// Marks what is about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfInstance {
    instance_id: String,
}

impl OfInstance {
    fn new(instance_id: &str) -> Self {
        Self { instance_id: instance_id.to_owned() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVersion {
    version: &'static str,
}

/// Everything that there is to scrape.
pub struct Metrics {
    store: Store,
    registry: Registry,
    counts: Counts,
    fleet: FleetGauges,
    /// When the store was last looked at. Locked while it is: whoever scrapes meanwhile waits for that look.
    looked: Mutex<Option<Instant>>,
}

impl Metrics {
    /// What `counts` counts, and what `store` holds.
    pub fn new(store: Store, counts: Counts) -> Arc<Self> {
        let mut registry = Registry::default();
        Process::register(&mut registry);
        let keysweep = registry.sub_registry_with_prefix("keysweep");
        let builds = Family::<OfVersion, Gauge>::default();
        builds.get_or_create(&OfVersion { version: env!("CARGO_PKG_VERSION") }).set(1);
        keysweep.register("build_info", "Always 1, labelled with the version of the binary", builds);
        counts.register(keysweep);
        let fleet = FleetGauges::default();
        fleet.register(keysweep);
        for (kind, verbs) in [("read", &store.timing().read), ("write", &store.timing().write)] {
            let verbs = verbs.clone();
            let (calls, failures) = match kind {
                "read" => ("store_read_duration", "store_read_failures"),
                _ => ("store_write_duration", "store_write_failures"),
            };
            let help = format!("How long {kind} verbs of the database took, waiting for their turn included");
            keysweep.register_with_unit(calls, help, Unit::Seconds, verbs.seconds);
            keysweep.register(failures, format!("{kind} verbs that found the database unavailable"), verbs.unavailable);
        }
        Arc::new(Self { store, registry, counts, fleet, looked: Mutex::new(None) })
    }

    /// All of it, in the text format of Prometheus (0.0.4).
    pub async fn scrape(&self) -> String {
        self.look().await;
        let mut text = String::new();
        // Writing to a string does not fail; what an encoder refused would be missing from the text.
        if let Err(error) = prometheus_client::encoding::prometheus_text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics are incomplete");
        }
        text
    }

    /// Has the gauges of the fleet show the store as it is, or as it was a few seconds ago.
    async fn look(&self) {
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|then| then.elapsed() < FRESH) {
            return;
        }
        match self.store.overview().await {
            Ok(overview) => {
                self.counts.keep_only(&overview.instances);
                self.fleet.show(&overview);
            }
            Err(error) => {
                tracing::warn!(%error, "the metrics of the fleet cannot be read");
                self.fleet.show_nothing();
            }
        }
        *looked = Some(Instant::now());
    }
}

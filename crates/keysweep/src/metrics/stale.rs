//! Gauges of the latest estimates of stale keys, in total for each instance.

use std::sync::atomic::AtomicU64;

use keysweep_engine::Method;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::label::OfInstance;
use crate::model::EstimateTotal;

type Numbers = Family<OfInstance, Gauge<f64, AtomicU64>>;

/// Gauges of the latest estimates. What an estimate does not know is absent.
#[derive(Debug, Default)]
pub(super) struct StaleGauges {
    share: Numbers,
    low: Numbers,
    high: Numbers,
    bytes: Numbers,
    expiry_rate: Numbers,
    predicted: Numbers,
    effort: Numbers,
    hz: Numbers,
    taken_at: Numbers,
}

impl StaleGauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, help, family) in [
            ("stale_share", "Measured stale share of all keys, 0-1, by the latest estimate", &self.share),
            ("stale_share_low", "Lower end of its 95 % interval", &self.low),
            ("stale_share_high", "Upper end of its 95 % interval", &self.high),
            ("expiry_rate", "Keys that expire a second, by the latest estimate", &self.expiry_rate),
            (
                "predicted_stale_share",
                "Stale share of all keys that the servers' own expiry cycle holds in steady state, 0-1",
                &self.predicted,
            ),
            ("server_effort", "active-expire-effort of the servers, 1-10; absent where they differ", &self.effort),
            ("server_hz", "Expiry cycles a second of the servers; absent where they differ", &self.hz),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register_with_unit("stale", "Bytes of the stale keys, measured", Unit::Bytes, self.bytes.clone());
        registry.register_with_unit(
            "estimate_timestamp",
            "Time of the latest estimate, Unix seconds",
            Unit::Seconds,
            self.taken_at.clone(),
        );
    }

    pub(super) fn show(&self, estimates: &[(String, EstimateTotal)]) {
        for (instance_id, estimate) in estimates {
            let (of, total) = (OfInstance::new(instance_id), &estimate.total);
            // The servers' own average is a hint, which must not pass for a measurement.
            let measured = Some(total).filter(|total| total.method.is_some_and(|method| method != Method::Info));
            for (family, value) in [
                (&self.share, measured.and_then(|total| total.share)),
                (&self.low, measured.and_then(|total| total.share_low)),
                (&self.high, measured.and_then(|total| total.share_high)),
                (&self.bytes, measured.and_then(|total| total.bytes).map(|bytes| bytes as f64)),
                (&self.expiry_rate, total.expiry_rate),
                (&self.predicted, total.predicted_share),
                (&self.effort, total.effort.map(f64::from)),
                (&self.hz, total.hz.map(f64::from)),
                (&self.taken_at, Some(estimate.taken_at.as_microsecond() as f64 / 1e6)),
            ] {
                if let Some(value) = value {
                    family.get_or_create(&of).set(value);
                }
            }
        }
    }

    pub(super) fn clear(&self) {
        let Self { share, low, high, bytes, expiry_rate, predicted, effort, hz, taken_at } = self;
        for family in [share, low, high, bytes, expiry_rate, predicted, effort, hz, taken_at] {
            family.clear();
        }
    }
}

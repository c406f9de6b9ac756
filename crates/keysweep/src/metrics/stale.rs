//! Gauges of the latest estimates of stale keys, in total for each instance. What a scan or a day has made untrue is absent.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::AtomicU64,
};

use jiff::Timestamp;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::label::OfInstance;
use crate::model::{EstimateTotal, LastScan, LatestShare, is_recent};

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
            (
                "stale_share",
                "Stale share of all keys, 0-1: measured within the last day, or what a scan since then left",
                &self.share,
            ),
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

    /// Shows estimates and last scans, both with the ids of their instances.
    pub(super) fn show(&self, estimates: &[(String, EstimateTotal)], scans: &[(String, LastScan)], now: Timestamp) {
        let estimates: HashMap<&str, &EstimateTotal> =
            estimates.iter().map(|(id, found)| (id.as_str(), found)).collect();
        let scans: HashMap<&str, &LastScan> = scans.iter().map(|(id, scan)| (id.as_str(), scan)).collect();
        let ids: BTreeSet<&str> = estimates.keys().chain(scans.keys()).copied().collect();
        for id in ids {
            let estimate = estimates.get(id).copied();
            let share = LatestShare::new(estimate, scans.get(id).copied(), now).filter(|share| share.is_recent(now));
            let of_servers = estimate.filter(|found| is_recent(found.taken_at, now)).map(|found| &found.total);
            let of = OfInstance::new(id);
            for (family, value) in [
                (&self.share, share.map(|share| share.share)),
                (&self.low, share.and_then(|share| share.low)),
                (&self.high, share.and_then(|share| share.high)),
                (&self.bytes, share.and_then(|share| share.bytes).map(|bytes| bytes as f64)),
                (&self.expiry_rate, of_servers.and_then(|total| total.expiry_rate)),
                (&self.predicted, of_servers.and_then(|total| total.predicted_share)),
                (&self.effort, of_servers.and_then(|total| total.effort).map(f64::from)),
                (&self.hz, of_servers.and_then(|total| total.hz).map(f64::from)),
                (&self.taken_at, estimate.map(|found| found.taken_at.as_microsecond() as f64 / 1e6)),
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

#[cfg(test)]
mod tests {
    use keysweep_engine::{Finding, Method, Remaining};
    use prometheus_client::encoding::prometheus_text::encode;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// Returns the samples of an instance that was estimated at 0 and scanned at another time.
    fn shown(method: Method, scanned_at: Option<i64>, now: i64) -> Vec<String> {
        let total = Finding {
            share: Some(0.25),
            share_low: Some(0.24),
            method: Some(method),
            expiry_rate: Some(7.0),
            ..Finding::default()
        };
        let estimate = ("i".to_owned(), EstimateTotal { taken_at: at(0), total });
        let remaining = Some(Remaining { keys: 1_000, share: 0.01, ..Remaining::default() });
        let scan = scanned_at.map(|second| ("i".to_owned(), LastScan { finished_at: at(second), remaining }));
        let (gauges, mut registry) = (StaleGauges::default(), Registry::default());
        gauges.register(&mut registry);
        gauges.show(&[estimate], scan.as_slice(), at(now));
        let mut text = String::new();
        encode(&mut text, &registry).expect("written");
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.replace("{instance_id=\"i\"}", "")).collect()
    }

    #[test]
    fn a_share_is_gone_after_a_day_and_replaced_by_what_a_scan_left() {
        let (low, rate, time) = ("stale_share_low 0.24", "expiry_rate 7.0", "estimate_timestamp_seconds 0.0");
        assert_eq!(shown(Method::Replica, None, 86_400), ["stale_share 0.25", low, rate, time]);
        assert_eq!(shown(Method::Replica, None, 86_401), [time], "an instance that is not estimated any more");
        assert_eq!(shown(Method::Replica, Some(-5), 60), ["stale_share 0.25", low, rate, time]);
        assert_eq!(shown(Method::Replica, Some(5), 60), ["stale_share 0.01", rate, time]);
        assert_eq!(shown(Method::Replica, Some(5), 7_200), [rate, time], "what it left has been joined by others");
        assert_eq!(shown(Method::Info, None, 60), [rate, time], "INFO only suggests");
    }
}

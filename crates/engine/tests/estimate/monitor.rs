//! The steps that an estimate reports while it works.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use keysweep_engine::{EstimateMonitor, EstimateRequest, EstimateStep, Method};
use keysweep_harness::{DataSet, Flavor, Server};

use crate::methods::{ask, request};

/// Steps as texts, and the parts of counts.
#[derive(Debug, Default)]
struct Steps {
    named: Mutex<Vec<String>>,
    counted: Mutex<Vec<f64>>,
}

impl EstimateMonitor for Steps {
    fn step(&self, step: EstimateStep<'_>) {
        let name = match step {
            EstimateStep::Expiry(time) => format!("expiry for {time:?}"),
            EstimateStep::Primary { address, number, of } => format!("primary {address}, {number} of {of}"),
            EstimateStep::Count { address, fraction } => {
                self.counted.lock().expect("parts").push(fraction);
                format!("count on {address}")
            }
        };
        let mut named = self.named.lock().expect("steps");
        if named.last() != Some(&name) {
            named.push(name);
        }
    }
}

#[test]
fn an_estimate_says_what_it_does_and_how_far_a_count_has_come() {
    let primary = Server::start(Flavor::Valkey91);
    DataSet::new().live(9_000).database(2).live(3_000).load(&primary);
    let replica = primary.replica();
    for max_counted in [u64::MAX, 4_000] {
        let steps = Arc::new(Steps::default());
        let monitor: Arc<dyn EstimateMonitor> = steps.clone();
        let observe = Duration::from_millis(1);
        let asked = request(Some(Method::Replica));
        ask(&primary.url(), &EstimateRequest { monitor: Some(monitor), max_counted, observe, ..asked });
        let expected = [
            "expiry for 1ms".to_owned(),
            format!("primary {}, 1 of 1", primary.address()),
            format!("count on {}", replica.address()),
        ];
        assert_eq!(*steps.named.lock().expect("steps"), expected);
        let counted = steps.counted.lock().expect("parts");
        assert!(counted.len() > 3 && counted.is_sorted(), "{counted:?}");
        // The larger database is three quarters of the keys, counted to its end or to the limit.
        assert!(counted.iter().any(|part| (part - 0.75).abs() < 1e-9), "{counted:?}");
        assert_eq!(counted.last(), Some(&1.0), "{max_counted}: {counted:?}");
    }
}

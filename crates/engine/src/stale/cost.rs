//! What the expiry cycle costs, and how fast a share returns to what the cycle holds.

use serde::{Deserialize, Serialize};

/// Time of the cycle from which its cost is calibrated, seconds: the counter has steps of a millisecond.
pub(crate) const MIN_CYCLE_SECONDS: f64 = 0.01;

/// Cost of the expiry cycle, in seconds of the main thread for each key.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CycleCost {
    /// Seconds for each key that the cycle visits.
    pub visit: f64,
    /// Seconds for each key that it removes.
    pub removal: f64,
}

impl Default for CycleCost {
    /// Measured on a shared core of a virtual machine; [`CycleCost::calibrated`] fits it to a server.
    fn default() -> Self {
        Self { visit: 0.25e-6, removal: 0.5e-6 }
    }
}

impl CycleCost {
    /// Returns the seconds a second that the cycle takes where `rate` keys expire a second and `share` of the keys with a
    /// TTL is stale: ahead of the cursor every (1/2D)th key is.
    pub fn load(self, rate: f64, share: f64) -> f64 {
        if rate <= 0.0 {
            return 0.0;
        }
        let visits = 1.0 / (2.0 * share.clamp(1e-6, 0.5));
        rate * (self.visit * visits + self.removal)
    }

    /// Returns the same cost in proportion to `measured` seconds a second (`expire_cycle_cpu_milliseconds`), where this cost
    /// predicts `expected` ones. A measurement of nothing changes nothing.
    pub fn calibrated(self, measured: f64, expected: f64) -> Self {
        if !(measured > 0.0 && measured.is_finite() && expected > 0.0) {
            return self;
        }
        let factor = measured / expected;
        Self { visit: self.visit * factor, removal: self.removal * factor }
    }
}

/// Returns the time constant, in seconds, with which the share returns to what the cycle holds: 2·D·N/λ. `share` and
/// `with_ttl` are of the keys with a TTL; `None` where nothing expires.
pub fn reversion_seconds(share: f64, with_ttl: u64, rate: f64) -> Option<f64> {
    (rate > 0.0).then(|| 2.0 * share.max(0.0) * with_ttl as f64 / rate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stale::CycleSetting;

    #[test]
    fn the_cost_agrees_with_measured_cycles() {
        // Valkey 9.1, 10,000 keys a second, effort 10: seconds a second, and milliseconds of one cycle.
        for (hz, load, stall) in [(10, 0.028, 2.8), (30, 0.031, 1.0), (100, 0.039, 0.4)] {
            let share = CycleSetting { effort: 10, hz }.held_share(1e4);
            let found = CycleCost::default().load(1e4, share);
            assert!((found / load - 1.0).abs() < 0.15, "hz {hz}: {found} is not {load}");
            assert!((found / f64::from(hz) * 1e3 / stall - 1.0).abs() < 0.15, "hz {hz}");
        }
    }

    #[test]
    fn the_time_constant_is_seconds_here_and_hours_where_keys_are_many() {
        let minutes =
            |share, with_ttl, rate| reversion_seconds(share, with_ttl, rate).map(|seconds| (seconds / 60.0) as u64);
        assert_eq!(minutes(0.2, 100_000_000, 10_000.0), Some(66));
        assert_eq!(reversion_seconds(0.15, 36_000, 1_000.0).map(f64::round), Some(11.0));
        assert_eq!(reversion_seconds(0.2, 1_000, 0.0), None);
    }

    proptest! {
        #[test]
        fn a_calibrated_cost_predicts_the_measurement(
            measured in 1e-6f64..1.0, rate in 1.0f64..1e5, share in 0.001f64..0.5,
        ) {
            let default = CycleCost::default();
            let cost = default.calibrated(measured, default.load(rate, share));
            prop_assert!((cost.load(rate, share) / measured - 1.0).abs() < 1e-9);
            prop_assert!((cost.visit / cost.removal - 0.5).abs() < 1e-9, "the proportion stays");
            for nothing in [0.0, f64::NAN, f64::INFINITY] {
                prop_assert_eq!(cost.calibrated(nothing, 1.0), cost);
            }
        }
    }
}

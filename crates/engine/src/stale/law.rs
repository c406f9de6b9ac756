//! The law of the stale share: in steady state it depends only on how many keys expire in a cycle and on the effort.
//!
//! `activeExpireCycle` samples n keys in a loop and repeats while more than s of them were stale. Ahead of its cursor the
//! share is twice the mean share D, so that the number of stale keys in a loop is Poisson with mean μ = 2nD, and a cycle runs
//! 1/P(Poisson(μ) ≤ s) loops. In steady state it removes what expires: ρ = λ/hz = μ / P(Poisson(μ) ≤ s).

use serde::{Deserialize, Serialize};

/// The lowest `active-expire-effort`, which is also the servers' default.
pub const MIN_EFFORT: u8 = 1;
/// The highest `active-expire-effort`.
pub const MAX_EFFORT: u8 = 10;
/// Every `active-expire-effort`.
pub const EFFORTS: std::ops::RangeInclusive<u8> = MIN_EFFORT..=MAX_EFFORT;
/// Keys with a TTL from which on the law holds: in smaller databases a loop meets the same keys again.
pub const MIN_LAW_KEYS: u64 = 3_000;

/// Highest mean share of the law: ahead of the cursor every key is stale.
const MAX_SHARE: f64 = 0.5;

/// Settings of the server's expiry cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleSetting {
    /// `active-expire-effort`, 1–10.
    pub effort: u8,
    /// Cycles a second, as INFO reports them.
    pub hz: u32,
}

impl Default for CycleSetting {
    fn default() -> Self {
        Self { effort: MIN_EFFORT, hz: 10 }
    }
}

impl CycleSetting {
    /// Returns the share of the keys with a TTL that is stale in steady state, where `rate` keys expire a second.
    pub fn held_share(self, rate: f64) -> f64 {
        let load = rate / self.cycles();
        if load.is_nan() || load <= 0.0 {
            return 0.0;
        }
        let keys = 2.0 * f64::from(keys_per_loop(self.effort));
        let (mut low, mut high) = (0.0, MAX_SHARE * keys);
        // The load grows with the mean. 60 halvings leave less than the precision of a float.
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match ln_load(middle, tolerated(self.effort)) < load.ln() {
                true => low = middle,
                false => high = middle,
            }
        }
        high / keys
    }

    /// Returns the keys that may expire a second where this share of the keys with a TTL is to be held.
    pub fn held_rate(self, share: f64) -> f64 {
        load(self.effort, share) * self.cycles()
    }

    /// Returns the lowest hz at which this effort holds a share of the keys with a TTL; infinite for a share of 0.
    pub fn needed_hz(effort: u8, share: f64, rate: f64) -> f64 {
        if rate <= 0.0 { 0.0 } else { rate / load(effort, share) }
    }

    /// Returns the seconds that one cycle may take: the server's own limit of the slow cycle.
    pub fn cycle_limit(self) -> f64 {
        (0.25 + 0.02 * f64::from(valid(self.effort) - 1)) / self.cycles()
    }

    fn cycles(self) -> f64 {
        f64::from(self.hz.max(1))
    }
}

/// Returns the keys that expire in one cycle where the mean share is held.
fn load(effort: u8, share: f64) -> f64 {
    if share <= 0.0 {
        return 0.0;
    }
    let mean = 2.0 * f64::from(keys_per_loop(effort)) * share.min(MAX_SHARE);
    ln_load(mean, tolerated(effort)).exp()
}

/// Returns ln(μ / P(Poisson(μ) ≤ s)). The probability itself would underflow where the mean is large.
fn ln_load(mean: f64, tolerated: u32) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..=tolerated {
        term *= mean / f64::from(k);
        sum += term;
    }
    mean.ln() + mean - sum.ln()
}

fn valid(effort: u8) -> u8 {
    effort.clamp(MIN_EFFORT, MAX_EFFORT)
}

/// Returns the keys that the cycle samples in one loop.
fn keys_per_loop(effort: u8) -> u32 {
    20 + 5 * u32::from(valid(effort) - 1)
}

/// Returns the most stale keys in a loop after which the cycle ends. The server compares percentages in integers.
fn tolerated(effort: u8) -> u32 {
    let (keys, acceptable) = (keys_per_loop(effort), 10 - u32::from(valid(effort) - 1));
    (0..keys).take_while(|stale| 100 * stale / keys <= acceptable).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Measured on Redis 6.2 to 8.2 and Valkey 8.1 and 9.1: percent = a + b · log10(ρ), for the efforts 1 to 10.
    const FITS: [(f64, f64); 10] = [
        (2.33, 6.57),
        (1.78, 5.27),
        (1.33, 4.43),
        (1.16, 3.79),
        (1.06, 3.29),
        (0.90, 2.91),
        (0.76, 2.64),
        (0.70, 2.38),
        (0.39, 1.80),
        (0.32, 1.68),
    ];

    #[test]
    fn the_closed_form_agrees_with_the_measured_fits() {
        for (effort, (a, b)) in EFFORTS.zip(FITS) {
            for step in 0..=60 {
                let load = 3.0 * 1_000f64.powf(f64::from(step) / 60.0);
                let held = CycleSetting { effort, hz: 10 }.held_share(load * 10.0) * 100.0;
                let measured = a + b * load.log10();
                assert!((held - measured).abs() <= 0.7, "effort {effort}, ρ {load}: {held} is not {measured}");
            }
        }
    }

    #[test]
    fn measured_shares_are_predicted_within_a_point() {
        // Means of Valkey 9.1, Redis 7.0 and Redis 8.2.
        for (rate, effort, hz, percent) in [
            (1e3, 1, 10, 15.6),
            (1e3, 4, 10, 9.2),
            (1e3, 10, 10, 3.93),
            (1e4, 7, 10, 8.85),
            (1e4, 10, 10, 5.4),
            (1e4, 10, 100, 3.7),
        ] {
            let held = CycleSetting { effort, hz }.held_share(rate) * 100.0;
            assert!((held - percent).abs() < 1.0, "{rate} a second, effort {effort}, hz {hz}: {held} is not {percent}");
        }
    }

    #[test]
    fn a_loop_is_as_the_servers_sources_have_it() {
        let loops: Vec<_> = EFFORTS.map(|effort| (keys_per_loop(effort), tolerated(effort))).collect();
        let expected = [(20, 2), (25, 2), (30, 2), (35, 2), (40, 2), (45, 2), (50, 2), (55, 2), (60, 1), (65, 1)];
        assert_eq!(loops, expected);
        let limit = |effort| CycleSetting { effort, hz: 10 }.cycle_limit();
        assert!((limit(1) - 0.025).abs() < 1e-9 && (limit(10) - 0.043).abs() < 1e-9);
    }

    #[test]
    fn nothing_expires_means_nothing_is_stale() {
        let setting = CycleSetting::default();
        assert_eq!((setting.held_share(0.0), setting.held_share(-1.0), setting.held_rate(0.0)), (0.0, 0.0, 0.0));
        assert_eq!((CycleSetting::needed_hz(1, 0.1, 0.0), CycleSetting::needed_hz(1, 0.0, 1.0)), (0.0, f64::INFINITY));
        assert!((0.0..=0.5).contains(&setting.held_share(1e300)) && setting.held_share(1e300) == 0.5);
    }

    proptest! {
        #[test]
        fn the_law_is_inverted_by_its_inverses(effort in EFFORTS, hz in 1u32..=500, share in 0.001f64..0.45) {
            let setting = CycleSetting { effort, hz };
            let rate = setting.held_rate(share);
            prop_assert!((setting.held_share(rate) - share).abs() < 1e-9);
            let needed = CycleSetting::needed_hz(effort, share, rate);
            prop_assert!((needed / f64::from(hz) - 1.0).abs() < 1e-9);
        }

        #[test]
        fn more_effort_and_more_hz_hold_less_and_more_expiry_holds_more(
            effort in 1u8..10, hz in 1u32..500, rate in 0.01f64..1e6,
        ) {
            let held = |effort, hz, rate| CycleSetting { effort, hz }.held_share(rate);
            let now = held(effort, hz, rate);
            prop_assert!(held(effort + 1, hz, rate) < now);
            prop_assert!(held(effort, hz + 1, rate) < now);
            prop_assert!(held(effort, hz, rate * 1.01) > now);
            prop_assert!((0.0..0.5).contains(&now));
        }
    }
}

//! Estimators of the stale share from samples, with 95 % intervals.

use serde::{Deserialize, Serialize};

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The share, 0–1.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// One slice of a sample on a primary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SliceSample {
    /// Keys that SCAN visited, the reclaimed ones included.
    pub visited: u64,
    /// Stale keys that it reclaimed.
    pub reclaimed: u64,
    /// Part of the table that it covered, above 0 and up to 1; 1 where slices are not weighted.
    pub fraction: f64,
}

/// What a sample says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// Share of all keys.
    pub share: Share,
    /// Keys that the sample is worth, where it weighs them differently.
    pub effective_keys: f64,
}

/// Quantile of the normal distribution for 95 %.
pub(crate) const NORMAL: f64 = 1.959_964;
/// 97.5 % upper ends of a Poisson mean after 0 to 4 events, and the 2.5 % lower ends.
const POISSON_HIGH: [f64; 5] = [3.689, 5.572, 7.225, 8.767, 10.242];
const POISSON_LOW: [f64; 5] = [0.0, 0.0253, 0.2422, 0.6187, 1.0899];
/// Smallest part of the keys that a sample may not exceed: 1/20 of them.
const KEYS_PER_SAMPLED_KEY: u64 = 20;
/// Keys below which a sample of a database is refused: its stale keys are too few to matter.
pub(crate) const MIN_SAMPLED_KEYS: u64 = 20_000;
/// Fewest slices of a sample: with fewer its interval says nothing.
pub(crate) const MIN_SLICES: u32 = 10;

/// Slices of a sample of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplePlan {
    /// How many there are.
    pub slices: u32,
    /// Keys that each asks for.
    pub count: u32,
}

impl SamplePlan {
    /// Returns the slices that visit a twentieth of the keys at most, ten or more of them; `None`: the database is too small to
    /// sample. Where ten slices of `count` keys would visit more, each asks for fewer keys.
    pub fn of(keys: u64, slices: u32, count: u32) -> Option<Self> {
        if keys < MIN_SAMPLED_KEYS {
            return None;
        }
        let most = keys / KEYS_PER_SAMPLED_KEY;
        let count = u64::from(count.max(1)).min(most / u64::from(MIN_SLICES));
        let slices = u64::from(slices.max(MIN_SLICES)).min(most / count);
        let whole = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Self { slices: whole(slices), count: whole(count) })
    }
}

impl Share {
    /// Returns a share that is known exactly.
    pub fn exact(share: f64) -> Self {
        Self { share, low: share, high: share }
    }

    /// Returns the share of the whole of several parts with their weights, such as their keys. The intervals of the parts are
    /// independent of each other.
    pub fn combined(parts: &[(Self, f64)]) -> Self {
        let weight: f64 = parts.iter().map(|(_, weight)| weight).sum();
        if weight <= 0.0 {
            return Self::default();
        }
        let share = parts.iter().map(|(part, weight)| part.share * weight).sum::<f64>() / weight;
        let spread = |end: fn(&Self) -> f64| {
            parts.iter().map(|(part, weight)| ((end(part) - part.share) * weight).powi(2)).sum::<f64>().sqrt() / weight
        };
        Self { share, low: share - spread(|part| part.low), high: share + spread(|part| part.high) }.clamped()
    }

    /// Returns the share with its ends around it, all of them from 0 to 1.
    pub(super) fn clamped(self) -> Self {
        let share = self.share.clamp(0.0, 1.0);
        Self { share, low: self.low.clamp(0.0, share), high: self.high.clamp(share, 1.0) }
    }
}

/// Returns the stale share from slices at random cursors: p = Σ(r/f)/Σ(v/f). The weights matter because SCAN counts the stale
/// keys towards COUNT, so that slices are shorter where more keys are stale. `None`: fewer than two slices visited a key.
pub fn weighted_share(slices: &[SliceSample]) -> Option<Sampled> {
    let slices: Vec<SliceSample> =
        slices.iter().copied().filter(|slice| slice.fraction > 0.0 && slice.visited > 0).collect();
    if slices.len() < 2 {
        return None;
    }
    let count = slices.len() as f64;
    let weighted = |of: fn(&SliceSample) -> u64, power: i32| {
        slices.iter().map(|slice| of(slice) as f64 / slice.fraction.powi(power)).sum::<f64>()
    };
    let visited = weighted(|slice| slice.visited, 1);
    let share = weighted(|slice| slice.reclaimed, 1) / visited;
    let residuals = slices.iter().map(|slice| (slice.reclaimed as f64 - share * slice.visited as f64) / slice.fraction);
    let squares: f64 = residuals.map(|residual| residual * residual).sum();
    let error = (squares / (count * (count - 1.0))).sqrt() / (visited / count);
    let effective_keys = visited * visited / weighted(|slice| slice.visited, 2);
    let reclaimed: u64 = slices.iter().map(|slice| slice.reclaimed).sum();
    Some(Sampled { share: interval(share, error, slices.len(), reclaimed, effective_keys), effective_keys })
}

/// Returns the stale share from whole slots of a cluster that were drawn with a probability in proportion to their keys: the
/// mean of their shares. `slots`: stale and all keys of each. `None`: fewer than two slots hold keys.
pub fn average_of_slots(slots: &[(u64, u64)]) -> Option<Sampled> {
    let slices: Vec<SliceSample> = slots
        .iter()
        .filter(|(_, keys)| *keys > 0)
        .map(|(stale, keys)| SliceSample { visited: *keys, reclaimed: *stale, fraction: *keys as f64 })
        .collect();
    weighted_share(&slices)
}

/// Returns the interval of a share with this standard error between slices.
///
/// It is the score interval of a binomial share over the effective keys, divided by how much more the slices differ than single
/// keys drawn at random would. A hash spreads the keys, so that slices which differ less do so by chance.
fn interval(share: f64, error: f64, slices: usize, reclaimed: u64, effective_keys: f64) -> Share {
    let share = match (POISSON_LOW.get(reclaimed as usize), POISSON_HIGH.get(reclaimed as usize)) {
        (Some(low), Some(high)) => Share { share, low: low / effective_keys, high: high / effective_keys },
        _ => {
            let variance = share * (1.0 - share) / effective_keys;
            let excess = if variance > 0.0 { error * error / variance } else { 1.0 };
            let draws = effective_keys / excess.max(1.0);
            let z = (student(slices - 1) * excess.sqrt().min(1.0)).max(NORMAL);
            let (middle, scale) = (share + z * z / (2.0 * draws), 1.0 + z * z / draws);
            let half = z * (share * (1.0 - share) / draws + (z / (2.0 * draws)).powi(2)).sqrt();
            Share { share, low: (middle - half) / scale, high: (middle + half) / scale }
        }
    };
    share.clamped()
}

/// Returns the quantile of Student's distribution for 95 %, by the expansion of Cornish and Fisher.
fn student(freedom: usize) -> f64 {
    let (z, n) = (NORMAL, freedom.max(1) as f64);
    let (first, second) = ((z.powi(3) + z) / 4.0, (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0);
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / n + second / (n * n) + third / (n * n * n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slice(visited: u64, reclaimed: u64, fraction: f64) -> SliceSample {
        SliceSample { visited, reclaimed, fraction }
    }

    #[test]
    fn a_small_database_is_not_sampled_and_a_sample_takes_a_twentieth_at_most() {
        let plan = |keys, slices, count| SamplePlan::of(keys, slices, count).map(|plan| (plan.slices, plan.count));
        assert_eq!(plan(19_999, 100, 50), None);
        assert_eq!(plan(20_000, 100, 50), Some((20, 50)));
        assert_eq!(plan(1_000_000, 100, 50), Some((100, 50)));
        assert_eq!(plan(30_000, 100, 1_000), Some((10, 150)), "ten slices of 1,000 keys would be a third of the keys");
        assert_eq!((plan(1_000_000, 2, 50), plan(u64::MAX, 100, 0)), (Some((10, 50)), Some((100, 1))));
    }

    #[test]
    fn short_slices_in_stale_regions_weigh_more() {
        // Half of the table holds stale and live keys, half of it only live ones: 25 % of 50 + 50 + 50 keys are stale. A SCAN
        // of 50 keys covers half as much of the dense half.
        let slices: Vec<_> =
            (0..40).map(|n| if n % 2 == 0 { slice(50, 25, 0.001) } else { slice(50, 0, 0.002) }).collect();
        let found = weighted_share(&slices).expect("a share").share;
        assert!((found.share - 1.0 / 3.0).abs() < 1e-9, "{found:?}");
        let unweighted: u64 = slices.iter().map(|slice| slice.reclaimed).sum();
        assert_eq!(unweighted * 4, 2_000, "without weights it would be a quarter");
        assert!(found.low < 0.3 && found.high > 0.36);
    }

    #[test]
    fn few_stale_keys_have_the_interval_of_a_poisson_mean() {
        for (stale, high) in [3.7, 5.6, 7.2, 8.8, 10.2].into_iter().enumerate() {
            let slices: Vec<_> = (0..100).map(|n| slice(50, u64::from(n < stale), 0.001)).collect();
            let found = weighted_share(&slices).expect("a share");
            assert!((found.effective_keys - 5_000.0).abs() < 1e-6);
            assert!((found.share.high * 5_000.0 - high).abs() < 0.05, "{stale}: {found:?}");
            assert!(found.share.low <= found.share.share);
        }
    }

    #[test]
    fn an_interval_is_never_narrower_than_that_of_keys_drawn_at_random() {
        // All slices agree, by chance: a tenth of 500 keys has an interval of 7.7 to 12.9 %.
        let slices: Vec<_> = (0..10).map(|_| slice(50, 5, 0.001)).collect();
        let found = weighted_share(&slices).expect("a share").share;
        assert!((found.low - 0.0767).abs() < 0.001 && (found.high - 0.1294).abs() < 0.001, "{found:?}");
        // Slices that differ much count for fewer keys.
        let slices: Vec<_> = (0..10).map(|n| slice(50, n % 2 * 10, 0.001)).collect();
        let found = weighted_share(&slices).expect("a share").share;
        assert!(found.low < 0.06 && found.high > 0.16, "{found:?}");
    }

    #[test]
    fn the_quantile_is_that_of_the_tables() {
        for (freedom, quantile) in [(4, 2.776), (10, 2.228), (19, 2.093), (99, 1.984)] {
            assert!((student(freedom) - quantile).abs() < 0.02, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn nothing_is_estimated_from_nothing() {
        assert_eq!(weighted_share(&[]), None);
        assert_eq!(weighted_share(&[slice(50, 1, 0.1)]), None);
        assert_eq!(weighted_share(&[slice(50, 1, 0.0), slice(0, 0, 0.1), slice(50, 1, 0.1)]), None);
        assert_eq!(average_of_slots(&[(0, 0), (1, 2)]), None);
        assert_eq!(Share::combined(&[]), Share::default());
    }

    #[test]
    fn the_interval_of_the_whole_is_narrower_than_those_of_its_parts() {
        let part = Share { share: 0.2, low: 0.1, high: 0.4 };
        let whole = Share::combined(&[(part, 1_000.0); 4]);
        assert!(
            (whole.share - 0.2).abs() < 1e-12 && (whole.low - 0.15).abs() < 1e-9 && (whole.high - 0.3).abs() < 1e-9
        );
        let with_exact = Share::combined(&[(part, 1_000.0), (Share::exact(0.6), 3_000.0)]);
        assert!((with_exact.share - 0.5).abs() < 1e-12 && (with_exact.high - 0.55).abs() < 1e-9);
    }

    /// A repeatable source of numbers from 0 to 1.
    fn numbers(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    const BUCKETS: usize = 1 << 16;

    /// Returns a table of buckets that hold a live key on average, in which the stale share differs between the halves: the
    /// live and the stale keys of each bucket.
    fn table(shares: [f64; 2], number: &mut impl FnMut() -> f64) -> Vec<(u64, u64)> {
        let chained =
            |mean: f64, number: &mut dyn FnMut() -> f64| (0..4).filter(|_| number() < mean / 4.0).count() as u64;
        let stale = |bucket: usize| shares[bucket * 2 / BUCKETS] / (1.0 - shares[bucket * 2 / BUCKETS]);
        (0..BUCKETS).map(|bucket| (chained(1.0, number), chained(stale(bucket), number))).collect()
    }

    /// Samples a table as SCAN would: it ends at the first bucket after COUNT keys.
    fn sample(table: &[(u64, u64)], slices: u32, number: &mut impl FnMut() -> f64) -> Share {
        let mut drawn = Vec::new();
        for _ in 0..slices {
            let first = (number() * BUCKETS as f64) as usize;
            let (mut bucket, mut visited, mut reclaimed) = (first, 0, 0);
            while visited < 50 && bucket < BUCKETS {
                let (live, stale) = table[bucket];
                (bucket, visited, reclaimed) = (bucket + 1, visited + live + stale, reclaimed + stale);
            }
            drawn.push(slice(visited, reclaimed, (bucket - first) as f64 / BUCKETS as f64));
        }
        weighted_share(&drawn).expect("a share").share
    }

    #[test]
    fn the_interval_covers_the_truth_after_half_a_scan() {
        let (mut number, runs) = (numbers(7_919), 200);
        for shares in [[0.01, 0.01], [0.05, 0.05], [0.2, 0.2], [0.0, 0.35], [0.01, 0.2]] {
            let table = table(shares, &mut number);
            let (live, stale) = table.iter().fold((0, 0), |sum, bucket| (sum.0 + bucket.0, sum.1 + bucket.1));
            let truth = stale as f64 / (live + stale) as f64;
            let (mut covered, mut bias) = (0, 0.0);
            for _ in 0..runs {
                let found = sample(&table, 100, &mut number);
                covered += u64::from((found.low..=found.high).contains(&truth));
                bias += (found.share - truth) / runs as f64;
            }
            assert!(covered >= 180, "{shares:?}: {covered} of {runs} intervals cover the truth");
            assert!(bias.abs() < 0.005, "{shares:?}: the bias is {bias}");
        }
    }

    proptest! {
        #[test]
        fn a_sample_is_planned_so_that_it_says_something_or_not_at_all(
            keys in 0u64..2_000_000_000, slices in 0u32..20_000, count in 0u32..5_000, stale in 0.0f64..=1.0,
        ) {
            let Some(plan) = SamplePlan::of(keys, slices, count) else {
                prop_assert!(keys < MIN_SAMPLED_KEYS);
                return Ok(());
            };
            prop_assert!(plan.slices >= MIN_SLICES && (1..=count.max(1)).contains(&plan.count), "{plan:?}");
            prop_assert!(u64::from(plan.slices) * u64::from(plan.count) <= keys / KEYS_PER_SAMPLED_KEY, "{plan:?}");
            let visited = u64::from(plan.count);
            let drawn = vec![slice(visited, (visited as f64 * stale) as u64, 1e-3); plan.slices.min(100) as usize];
            let Share { share, low, high } = weighted_share(&drawn).expect("a share").share;
            prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
        }

        #[test]
        fn an_interval_contains_its_share(
            slices in prop::collection::vec((0u64..200, 0.0f64..1.0, 1e-6f64..1.0), 2..50),
        ) {
            let slices: Vec<_> = slices
                .into_iter()
                .map(|(visited, part, fraction)| slice(visited, (visited as f64 * part) as u64, fraction))
                .collect();
            if let Some(Sampled { share: Share { share, low, high }, .. }) = weighted_share(&slices) {
                prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
            }
        }

        #[test]
        fn slots_drawn_by_size_have_the_mean_of_their_shares(
            slots in prop::collection::vec((0u64..1_000, 1u64..1_000), 2..40),
        ) {
            let slots: Vec<_> = slots.into_iter().map(|(stale, more)| (stale, stale + more)).collect();
            let mean = slots.iter().map(|(stale, keys)| *stale as f64 / *keys as f64).sum::<f64>() / slots.len() as f64;
            let found = average_of_slots(&slots).expect("a share");
            prop_assert!((found.share.share - mean).abs() < 1e-9);
        }
    }
}

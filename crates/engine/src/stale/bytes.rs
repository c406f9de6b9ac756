//! Bytes of a stale key, from the memory that slices freed.

use serde::{Deserialize, Serialize};

/// One slice with the server's memory around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BytesSlice {
    /// Decrease of `used_memory` from before the SCAN to after it, bytes. Negative where the reply took more.
    pub freed: f64,
    /// Stale keys that it reclaimed.
    pub stale: f64,
    /// Keys that it returned: their names are in the reply, which takes memory too.
    pub returned: f64,
}

/// Bytes that a stale key takes, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BytesPerKey {
    /// The average, bytes.
    pub bytes: f64,
    /// Its standard error, bytes.
    pub error: f64,
}

/// Fewest stale keys from which an average is calculated.
const MIN_STALE: f64 = 10.0;
/// Slices whose residual exceeds this multiple of the median are left out: the server resized a table meanwhile.
const OUTLIER: f64 = 8.0;

/// Returns the bytes of a stale key by least squares: freed = k + b·stale + c·returned. The plain difference would count the
/// reply's own buffers. `None`: too few slices or stale keys, or a result that is not positive.
///
/// Values that the server frees in the background are missed.
pub fn bytes_per_stale_key(slices: &[BytesSlice]) -> Option<BytesPerKey> {
    let first = fit(slices)?;
    let residuals: Vec<f64> = slices.iter().map(|slice| first.residual(slice).abs()).collect();
    let limit = OUTLIER * median(residuals.clone()).max(1.0);
    let kept: Vec<BytesSlice> =
        slices.iter().zip(residuals).filter(|(_, residual)| *residual <= limit).map(|(slice, _)| *slice).collect();
    let found = if kept.len() < slices.len() { fit(&kept)? } else { first };
    (found.per_stale > 0.0).then_some(BytesPerKey { bytes: found.per_stale, error: found.error })
}

struct Fit {
    constant: f64,
    per_stale: f64,
    per_returned: f64,
    error: f64,
}

impl Fit {
    fn residual(&self, slice: &BytesSlice) -> f64 {
        slice.freed - self.constant - self.per_stale * slice.stale - self.per_returned * slice.returned
    }
}

fn fit(slices: &[BytesSlice]) -> Option<Fit> {
    if slices.len() < 5 || slices.iter().map(|slice| slice.stale).sum::<f64>() < MIN_STALE {
        return None;
    }
    let count = slices.len() as f64;
    let mean = |of: fn(&BytesSlice) -> f64| slices.iter().map(of).sum::<f64>() / count;
    let (freed, stale, returned) = (mean(|slice| slice.freed), mean(|slice| slice.stale), mean(|slice| slice.returned));
    let (mut ss, mut rr, mut sr, mut sf, mut rf) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for slice in slices {
        let (s, r, f) = (slice.stale - stale, slice.returned - returned, slice.freed - freed);
        (ss, rr, sr, sf, rf) = (ss + s * s, rr + r * r, sr + s * r, sf + s * f, rf + r * f);
    }
    if ss <= 0.0 {
        return None;
    }
    // Where every slice returns the same number of keys, or the keys are always COUNT in all, one coefficient is enough.
    let determinant = ss * rr - sr * sr;
    let is_plane = determinant > 1e-9 * ss * rr;
    let (per_stale, per_returned, variance) = match is_plane {
        true => ((sf * rr - rf * sr) / determinant, (rf * ss - sf * sr) / determinant, rr / determinant),
        false => (sf / ss, 0.0, 1.0 / ss),
    };
    let constant = freed - per_stale * stale - per_returned * returned;
    let fit = Fit { constant, per_stale, per_returned, error: 0.0 };
    let squares: f64 = slices.iter().map(|slice| fit.residual(slice).powi(2)).sum();
    let freedom = count - if is_plane { 3.0 } else { 2.0 };
    Some(Fit { error: (squares / freedom * variance).sqrt(), ..fit })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slices(counts: &[(u32, u32)], freed: impl Fn(f64, f64) -> f64) -> Vec<BytesSlice> {
        let slice = |(stale, returned): &(u32, u32)| {
            let (stale, returned) = (f64::from(*stale), f64::from(*returned));
            BytesSlice { freed: freed(stale, returned), stale, returned }
        };
        counts.iter().map(slice).collect()
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(bytes_per_stale_key(&[]), None);
        let same = slices(&[(5, 45); 100], |stale, _| 100.0 * stale);
        assert_eq!(bytes_per_stale_key(&same), None, "no slice differs from another");
        let none = slices(&[(0, 50), (0, 51), (0, 52), (0, 53), (0, 54)], |_, returned| -10.0 * returned);
        assert_eq!(bytes_per_stale_key(&none), None, "no key was stale");
        let growing = slices(&[(9, 41), (1, 49), (4, 47), (6, 44), (2, 51)], |stale, _| -50.0 * stale);
        assert_eq!(bytes_per_stale_key(&growing), None, "no key takes negative memory");
    }

    #[test]
    fn a_resized_table_does_not_count() {
        let counts: Vec<(u32, u32)> = (0..100).map(|n| (n % 11, 50 - n % 11 + n % 7)).collect();
        let mut slices = slices(&counts, |stale, returned| 120.0 * stale - 40.0 * returned - 500.0);
        for (n, slice) in slices.iter_mut().enumerate() {
            slice.freed += f64::from((n * 37 % 64) as u32) - 32.0;
        }
        slices[10].freed += 8.0 * 1024.0 * 1024.0;
        let found = bytes_per_stale_key(&slices).expect("an average");
        assert!((found.bytes - 120.0).abs() < 3.0 * found.error.max(1.0) && found.error < 3.0, "{found:?}");
    }

    proptest! {
        #[test]
        fn the_size_is_found_beside_the_replys_own_memory(
            counts in prop::collection::vec((0u32..20, 30u32..70), 12..200),
            bytes in 50.0f64..5_000.0, reply in 0.0f64..100.0, constant in -1e4f64..1e4,
        ) {
            let slices = slices(&counts, |stale, returned| bytes * stale - reply * returned + constant);
            if let Some(found) = bytes_per_stale_key(&slices) {
                prop_assert!((found.bytes / bytes - 1.0).abs() < 1e-6, "{found:?}");
            }
        }
    }
}

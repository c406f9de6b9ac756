//! What an estimate says: of all primaries together, of each of them, and of each of their databases.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{cycle::Cycle, limit::sample_interval};
use crate::{
    link::saturating_sum,
    stale::{Gap, Share, reversion_seconds},
};

/// How an estimate was made, the most reliable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The keys of a replica were counted.
    Replica,
    /// The keys of an RDB file were counted.
    Rdb,
    /// The keys of some slots were counted on a replica.
    Slots,
    /// Slices at random places of the primary were scanned.
    Sample,
    /// The server's own running average.
    Info,
}

impl Method {
    /// Returns the name on the command line, in the API and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Rdb => "rdb",
            Self::Slots => "slots",
            Self::Sample => "sample",
            Self::Info => "info",
        }
    }

    /// Describes the method and its reliability.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Replica => "counted on a replica, where nothing is reclaimed",
            Self::Rdb => "counted in an RDB file, as of the time at which it was written",
            Self::Slots => "counted on a replica in slots drawn by size, where nothing is reclaimed",
            Self::Sample => "sampled on the primary, which reclaims only the stale keys of the sample",
            Self::Info => {
                "from INFO (expired_stale_perc), in steady state only: 1.4 to 1.85 times too high there, and worthless after a scan"
            }
        }
    }
}

/// What was found of some keys. Shares are 0–1; `None` stands for what is unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Keys in memory, stale keys included.
    pub keys: u64,
    /// Keys with a TTL among them.
    pub keys_with_ttl: u64,
    /// Stale keys as a share of all keys.
    pub share: Option<f64>,
    /// Lower end of its 95 % interval.
    pub share_low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub share_high: Option<f64>,
    /// Stale keys as a share of the keys with a TTL.
    pub share_of_expiring: Option<f64>,
    /// Stale keys.
    pub stale_keys: Option<u64>,
    /// Bytes of the stale keys.
    pub bytes: Option<u64>,
    /// Lower end of its 95 % interval.
    pub bytes_low: Option<u64>,
    /// Upper end of its 95 % interval.
    pub bytes_high: Option<u64>,
    /// How it was found; the least reliable method where there are several.
    pub method: Option<Method>,
    /// Stale keys that the estimate itself has reclaimed.
    pub reclaimed: u64,
    /// Time for which the estimate kept the main threads of servers, seconds.
    pub server_seconds: Option<f64>,
    /// Keys that expire a second.
    pub expiry_rate: Option<f64>,
    /// Cycles a second of the server (`hz`).
    pub hz: Option<u32>,
    /// `active-expire-effort`.
    pub effort: Option<u8>,
    /// Share of all keys that the server's own cycle holds in steady state.
    pub predicted_share: Option<f64>,
    /// Whether the share is what the cycle holds: no batch has expired, and nothing was scanned.
    pub steady: Option<bool>,
}

/// What was found of one database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseEstimate {
    /// Its number.
    pub database: u32,
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What was found of one primary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PrimaryEstimate {
    /// Address of the primary.
    pub address: String,
    /// Address of the node whose keys were counted, or the name of the file.
    pub source: String,
    /// The finding of all its databases.
    #[serde(flatten)]
    pub finding: Finding,
    /// The findings of its databases.
    pub databases: Vec<DatabaseEstimate>,
    /// What the finding lacks, and why.
    pub notes: Vec<String>,
    /// Why it was not sampled although it might have been.
    #[serde(skip)]
    pub gap: Option<Gap>,
    /// Bytes that the primary's data takes, as INFO reports them; `None`: INFO is refused, or a file was read.
    pub used_memory: Option<u64>,
    /// What the primary reports about its expiry cycle.
    #[serde(skip)]
    pub cycle: Cycle,
}

impl PrimaryEstimate {
    /// Returns how long the next sample of this primary has to wait: until its share has returned to what its cycle holds, and
    /// five minutes at least.
    pub fn sample_interval(&self) -> Duration {
        let finding = &self.finding;
        let known = finding.share_of_expiring.zip(finding.expiry_rate);
        sample_interval(known.and_then(|(share, rate)| reversion_seconds(share, finding.keys_with_ttl, rate)))
    }
}

/// An estimate of the stale keys of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The target, without credentials, or the name of the file.
    pub target: String,
    /// The finding of all primaries.
    pub total: Finding,
    /// The findings of the primaries.
    pub primaries: Vec<PrimaryEstimate>,
}

impl Estimate {
    /// Returns how long the next sample of the target has to wait: the longest time of its primaries.
    pub fn sample_interval(&self) -> Duration {
        let all = self.primaries.iter().map(PrimaryEstimate::sample_interval).max();
        all.unwrap_or_else(|| sample_interval(None))
    }

    /// Whether a primary was sampled.
    pub fn has_sampled(&self) -> bool {
        self.primaries.iter().any(|primary| primary.finding.method == Some(Method::Sample))
    }
}

/// Bytes with their 95 % interval, where it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bytes {
    pub bytes: f64,
    pub interval: Option<(f64, f64)>,
}

/// Part of the keys that a sum may lack: databases too small to sample. They widen its interval.
const MAX_UNKNOWN: f64 = 0.5;
/// Part of the keys that a sum of bytes may lack.
const MAX_UNKNOWN_BYTES: f64 = 0.05;

impl Finding {
    /// Returns a finding that knows only how many keys there are.
    pub(super) fn of_keys(keys: u64, keys_with_ttl: u64) -> Self {
        Self { keys, keys_with_ttl, ..Self::default() }
    }

    /// Returns the finding with a share of all keys.
    pub(super) fn with_share(self, share: Share, method: Method) -> Self {
        let stale = share.share * self.keys as f64;
        let of_expiring = (self.keys_with_ttl > 0).then(|| (stale / self.keys_with_ttl as f64).min(1.0));
        Self {
            share: Some(share.share),
            share_low: Some(share.low),
            share_high: Some(share.high),
            share_of_expiring: of_expiring.or((stale == 0.0).then_some(0.0)),
            stale_keys: Some(stale.round() as u64),
            method: Some(method),
            ..self
        }
    }

    /// Returns the finding with bytes.
    pub(super) fn with_bytes(self, bytes: Option<Bytes>) -> Self {
        let whole = |bytes: f64| bytes.max(0.0).round() as u64;
        let interval = bytes.and_then(|bytes| bytes.interval);
        Self {
            bytes: bytes.map(|bytes| whole(bytes.bytes)),
            bytes_low: interval.map(|(low, _)| whole(low)),
            bytes_high: interval.map(|(_, high)| whole(high)),
            ..self
        }
    }

    /// Returns the share with its interval.
    pub fn interval(&self) -> Option<Share> {
        let share = self.share?;
        Some(Share { share, low: self.share_low.unwrap_or(share), high: self.share_high.unwrap_or(share) })
    }

    /// Returns the finding of several parts together.
    pub(super) fn sum<'a>(parts: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let sum = Self::of_keys(
            saturating_sum(parts.clone().map(|part| part.keys)),
            saturating_sum(parts.clone().map(|part| part.keys_with_ttl)),
        );
        let known = || parts.clone().filter(|part| part.share.is_some());
        let unknown = sum.keys.saturating_sub(saturating_sum(known().map(|part| part.keys)));
        let method = parts.clone().filter_map(|part| part.method).max();
        let shares: Vec<(Share, f64)> = known().filter_map(|part| Some((part.interval()?, part.keys as f64))).collect();
        let sum = match method {
            Some(method) if unknown as f64 <= MAX_UNKNOWN * sum.keys as f64 && !shares.is_empty() => {
                let stale = saturating_sum(known().filter_map(|part| part.stale_keys));
                // The average of the server has no interval.
                let is_certain = known().all(|part| part.share_high.is_some());
                // Of the keys of an unknown part, between none and all that have a TTL are stale.
                let expiring = saturating_sum(
                    parts.clone().filter(|part| part.share.is_none()).map(|part| part.keys_with_ttl.min(part.keys)),
                );
                let of_all = |keys: u64| keys as f64 / sum.keys.max(1) as f64;
                let (known_part, open) = (1.0 - of_all(unknown), of_all(expiring));
                let Share { share, low, high } = Share::combined(&shares);
                let share =
                    Share { share: share * (known_part + open), low: low * known_part, high: high * known_part + open };
                let has_bytes = unknown as f64 <= MAX_UNKNOWN_BYTES * sum.keys as f64;
                let found = sum.with_share(share, method);
                let ends = |end: Option<f64>| end.filter(|_| is_certain);
                Self {
                    stale_keys: if unknown == 0 { Some(stale) } else { found.stale_keys },
                    share_low: ends(found.share_low),
                    share_high: ends(found.share_high),
                    ..found
                }
                .with_bytes(total_bytes(known()).filter(|_| has_bytes))
            }
            method => Self { method, ..sum },
        };
        let seconds = parts.clone().filter_map(|part| part.server_seconds).reduce(|sum, part| sum + part);
        let reclaimed = saturating_sum(parts.map(|part| part.reclaimed));
        Self { reclaimed, server_seconds: seconds, ..sum }
    }

    /// Returns the finding of several primaries together, with what their cycles have in common.
    pub(super) fn total(primaries: &[PrimaryEstimate]) -> Self {
        let findings = || primaries.iter().map(|primary| &primary.finding);
        let all_of =
            |of: fn(&Self) -> Option<f64>| findings().map(of).sum::<Option<f64>>().filter(|_| !primaries.is_empty());
        let predicted = all_of(|part| match part.expiry_rate {
            Some(rate) if rate <= 0.0 => Some(0.0),
            _ => part.predicted_share.map(|share| share * part.keys as f64),
        });
        let sum = Self::sum(findings());
        let steady = match findings().map(|part| part.steady).collect::<Option<Vec<bool>>>() {
            Some(all) if !all.is_empty() => Some(all.into_iter().all(|steady| steady)),
            _ => findings().any(|part| part.steady == Some(false)).then_some(false),
        };
        Self {
            expiry_rate: all_of(|part| part.expiry_rate),
            hz: common(findings().map(|part| part.hz)),
            effort: common(findings().map(|part| part.effort)),
            predicted_share: predicted.filter(|stale| *stale > 0.0).map(|stale| stale / sum.keys.max(1) as f64),
            steady,
            ..sum
        }
    }
}

fn total_bytes<'a>(parts: impl Iterator<Item = &'a Finding> + Clone) -> Option<Bytes> {
    let bytes = parts.clone().map(|part| part.bytes.map(|bytes| bytes as f64)).sum::<Option<f64>>()?;
    let spread = |end: fn(&Finding) -> Option<u64>| {
        let squares = parts.clone().map(|part| Some((end(part)? as f64 - part.bytes? as f64).powi(2)));
        squares.sum::<Option<f64>>().map(f64::sqrt)
    };
    let (low, high) = (spread(|part| part.bytes_low), spread(|part| part.bytes_high));
    Some(Bytes { bytes, interval: low.zip(high).map(|(low, high)| ((bytes - low).max(0.0), bytes + high)) })
}

/// Returns the value that all have; `None` where they differ.
fn common<T: PartialEq>(mut values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = values.next()??;
    values.all(|value| value.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(keys: u64, share: Option<f64>) -> Finding {
        let part = Finding::of_keys(keys, keys / 2);
        match share {
            Some(share) => {
                let share = Share { share, low: share - 0.01, high: share + 0.01 };
                let bytes = Bytes { bytes: 1_000.0, interval: Some((970.0, 1_040.0)) };
                part.with_share(share, Method::Sample).with_bytes(Some(bytes))
            }
            None => part,
        }
    }

    fn primary(finding: Finding) -> PrimaryEstimate {
        PrimaryEstimate { address: "one:1".into(), source: "one:1".into(), finding, ..PrimaryEstimate::default() }
    }

    #[test]
    fn parts_add_up_to_a_narrower_interval() {
        let sum = Finding::sum([part(1_000, Some(0.1)), part(3_000, Some(0.2))].iter());
        assert_eq!((sum.keys, sum.keys_with_ttl, sum.stale_keys), (4_000, 2_000, Some(700)));
        assert!((sum.share.expect("a share") - 0.175).abs() < 1e-9);
        assert!((sum.share_of_expiring.expect("a share") - 0.35).abs() < 1e-9);
        let high = sum.share_high.expect("an end") - 0.175;
        assert!((high - 0.01 * 10f64.sqrt() / 4.0).abs() < 1e-9, "{high}");
        assert_eq!((sum.bytes, sum.bytes_low, sum.bytes_high), (Some(2_000), Some(1_958), Some(2_057)));
    }

    #[test]
    fn the_keys_of_an_unknown_part_widen_the_interval_and_most_of_the_keys_leave_it_unknown() {
        let ends = |found: &Finding| [found.share_low, found.share, found.share_high].map(|end| end.expect("an end"));
        let near = |found: &Finding, wanted: [f64; 3]| {
            assert!(ends(found).iter().zip(wanted).all(|(end, wanted)| (end - wanted).abs() < 1e-9), "{found:?}");
        };
        // Half of the keys have a TTL.
        let small = Finding::sum([part(97_000, Some(0.1)), part(3_000, None)].iter());
        near(&small, [0.09 * 0.97, 0.1 * 0.985, 0.11 * 0.97 + 0.015]);
        assert_eq!((small.keys, small.stale_keys, small.bytes), (100_000, Some(9_850), Some(1_000)));
        let large = Finding::sum([part(90_000, Some(0.1)), part(10_000, None)].iter());
        near(&large, [0.09 * 0.9, 0.1 * 0.95, 0.11 * 0.9 + 0.05]);
        assert_eq!(large.bytes, None, "bytes of a tenth of the keys are unknown");
        let most = Finding::sum([part(40_000, Some(0.1)), part(60_000, None)].iter());
        assert_eq!((most.keys, most.share, most.stale_keys, most.bytes), (100_000, None, None, None));
        assert_eq!(most.method, Some(Method::Sample));
        assert_eq!(Finding::sum([].iter()), Finding::default());
    }

    #[test]
    fn primaries_that_differ_have_no_common_setting() {
        let primary = |hz, steady, rate| {
            let finding = part(1_000, Some(0.1));
            primary(Finding { hz, steady, expiry_rate: rate, predicted_share: Some(0.1), ..finding })
        };
        let total =
            Finding::total(&[primary(Some(10), Some(true), Some(5.0)), primary(Some(10), Some(true), Some(7.0))]);
        assert_eq!((total.hz, total.steady, total.expiry_rate, total.effort), (Some(10), Some(true), Some(12.0), None));
        assert!((total.predicted_share.expect("a share") - 0.1).abs() < 1e-9);
        let total = Finding::total(&[primary(Some(10), Some(true), Some(5.0)), primary(Some(20), Some(false), None)]);
        assert_eq!((total.hz, total.steady, total.expiry_rate), (None, Some(false), None));
        let total = Finding::total(&[primary(Some(10), Some(true), None), primary(None, None, None)]);
        assert_eq!((total.hz, total.steady), (None, None));
        assert_eq!(Finding::total(&[]), Finding::default());
    }

    #[test]
    fn the_primary_that_takes_longest_decides_when_a_target_is_sampled_again() {
        let primary = |share_of_expiring, expiry_rate| {
            let keys_with_ttl = 10_000_000;
            primary(Finding { share_of_expiring, expiry_rate, keys_with_ttl, ..Finding::default() })
        };
        let seconds = |primaries| {
            let found = Estimate { target: String::new(), total: Finding::default(), primaries };
            found.sample_interval().as_secs()
        };
        let (slow, fast) = (primary(Some(0.2), Some(4_000.0)), primary(Some(0.2), Some(1e6)));
        assert_eq!((slow.sample_interval().as_secs(), fast.sample_interval().as_secs()), (1_000, 300));
        assert_eq!(seconds(vec![fast, slow, primary(None, Some(1.0))]), 1_000);
        assert_eq!((seconds(Vec::new()), seconds(vec![primary(Some(0.2), Some(1e-9))])), (300, 24 * 3_600));
    }

    #[test]
    fn the_least_reliable_method_is_named() {
        let by = |method| Finding { method: Some(method), ..part(1_000, Some(0.1)) };
        assert_eq!(Finding::sum([by(Method::Info), by(Method::Replica)].iter()).method, Some(Method::Info));
        let hint = Finding { share_low: None, share_high: None, ..by(Method::Info) };
        let sum = Finding::sum([hint, by(Method::Replica)].iter());
        assert_eq!((sum.share_low, sum.share_high), (None, None), "a hint has no interval");
    }
}

//! The latest estimate of an instance's stale keys, as its page shows it.

use jiff::Timestamp;

use super::format::{self, RelativeTime};
use crate::{
    model::{EstimatedPrimary, LatestEstimate, Sampling},
    units,
};

/// An estimate as shown.
pub(super) struct EstimateView {
    pub(super) taken: Option<RelativeTime>,
    /// Why there is no newer one.
    pub(super) failure: Option<String>,
    pub(super) rows: Vec<PrimaryRow>,
    /// How the service estimates in the background.
    pub(super) sampling: &'static str,
    /// Whether a share is a hint or a prediction.
    pub(super) has_hints: bool,
}

/// One primary of an estimate.
pub(super) struct PrimaryRow {
    pub(super) address: String,
    pub(super) share: String,
    pub(super) bytes: String,
    pub(super) rate: String,
    pub(super) predicted: String,
    /// What to do, a sentence.
    pub(super) verdict: String,
    /// A command, or a change of rights.
    pub(super) remedy: Option<String>,
}

impl EstimateView {
    pub(super) fn new(latest: LatestEstimate, sampling: Sampling, now: Timestamp) -> Self {
        let primaries = latest.estimate.as_ref().map(|estimate| estimate.primaries.as_slice()).unwrap_or_default();
        Self {
            taken: latest.estimate.as_ref().map(|estimate| RelativeTime::new(estimate.taken_at, now)),
            rows: primaries.iter().map(PrimaryRow::new).collect(),
            has_hints: primaries.iter().any(|primary| primary.approximate),
            failure: latest.failure,
            sampling: match sampling {
                Sampling::Off => "Background estimates are off.",
                Sampling::Replica => "Estimated on a replica in the background, which reclaims nothing.",
                Sampling::Primary => {
                    "Estimated in the background: on a replica, else by samples of the primary, which reclaim the stale keys of the sample."
                }
            },
        }
    }
}

impl PrimaryRow {
    fn new(primary: &EstimatedPrimary) -> Self {
        let finding = &primary.finding;
        let dash = || "–".to_owned();
        Self {
            address: primary.address.clone(),
            share: share_text(finding.share, finding.share_low, finding.share_high, primary.approximate),
            bytes: finding.bytes.map_or_else(dash, units::size),
            rate: finding.expiry_rate.map_or_else(dash, |rate| format!("{rate:.0}")),
            predicted: finding.predicted_share.map_or_else(dash, format::percent),
            verdict: format::sentence(&primary.verdict.reason),
            remedy: primary.verdict.remedy.clone(),
        }
    }
}

/// Formats a share with half of its interval; a hint or a prediction is marked.
pub(super) fn share_text(share: Option<f64>, low: Option<f64>, high: Option<f64>, is_approximate: bool) -> String {
    match (share, low, high) {
        (None, ..) => "–".to_owned(),
        (Some(share), ..) if is_approximate => format!("≈\u{a0}{}", format::percent(share)),
        (Some(share), Some(low), Some(high)) if high > low => {
            format!("{:.1}\u{a0}±{}", share * 100.0, format::percent((high - low) / 2.0))
        }
        (Some(share), ..) => format::percent(share),
    }
}

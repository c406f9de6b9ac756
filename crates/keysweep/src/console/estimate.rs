//! The latest estimate of an instance's stale keys, as its page shows it, and the sentence that the page begins with.

use jiff::Timestamp;
use keysweep_engine::{
    HoldLevel, HoldState,
    stale::{Code, Share},
};

use super::format::{self, RelativeTime};
use crate::{
    model::{EstimatedPrimary, HeldInstance, LastScan, LatestEstimate, Sampling},
    units,
};

/// An estimate as shown.
pub(super) struct EstimateView {
    pub(super) taken: Option<RelativeTime>,
    /// When a scan has finished since then; `None`: none has.
    pub(super) scanned: Option<RelativeTime>,
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

/// The verdict on an instance, one sentence.
#[derive(Debug, PartialEq)]
pub(super) struct Headline {
    pub(super) sentence: String,
    /// A command, or a change of rights.
    pub(super) remedy: Option<String>,
}

impl Headline {
    /// Returns what holding the share does, where it is held, else the verdict of the latest estimate.
    pub(super) fn new(latest: &LatestEstimate, hold: &HeldInstance, sampling: Sampling) -> Self {
        if let Some(sentence) = held(hold) {
            return Self { sentence, remedy: None };
        }
        if let Some(scan) = &latest.scanned_since {
            let sentence = format!("{} {}", scanned(scan), sampling_text(sampling));
            return Self { sentence, remedy: None };
        }
        let primaries = latest.estimate.as_ref().map(|estimate| estimate.primaries.as_slice()).unwrap_or_default();
        let is_due = |primary: &&EstimatedPrimary| primary.verdict.code != Code::Pointless;
        let due = primaries.iter().filter(is_due).count();
        // The primary that has most to gain, of those with a verdict that asks for something.
        let Some(first) = primaries.iter().max_by_key(|primary| (is_due(primary), primary.finding.bytes)) else {
            let sentence = format!("No estimate yet. {}", sampling_text(sampling));
            return Self { sentence, remedy: None };
        };
        let reason = &first.verdict.reason;
        let sentence = match primaries.len() {
            1 => format::sentence(reason),
            all if due == 0 => format!("None of the {all} primaries needs anything: of {}, {reason}.", first.address),
            all => format!("{due} of {all} primaries need something, most of all {}: {reason}.", first.address),
        };
        Self { sentence, remedy: first.verdict.remedy.clone() }
    }
}

/// Returns what a scan has changed since the latest estimate, a sentence.
fn scanned(scan: &LastScan) -> String {
    match scan.remaining {
        Some(left) => format!(
            "A scan has reclaimed the stale keys of the latest estimate, and left about {} ({}).",
            format::count(left.stale_keys),
            format::percent(left.share)
        ),
        None => "A scan has reclaimed the stale keys of the latest estimate.".to_owned(),
    }
}

/// Returns what holding an instance does; of several servers, that of the first with a problem. `None`: it is not held, or no
/// worker has reported yet.
fn held(hold: &HeldInstance) -> Option<String> {
    if hold.policy.level == HoldLevel::Observe {
        return None;
    }
    let is_bad = |state| matches!(state, HoldState::CannotHold | HoldState::Foreign | HoldState::BackingOff);
    let target = format::percent(hold.policy.below);
    let worst =
        hold.servers.iter().max_by_key(|server| (is_bad(server.status.state), server.status.share.map(permille)));
    let Some(first) = worst else {
        return hold.failure.as_ref().map(|failure| format!("Target {target} (not held): {failure}."));
    };
    let (state, sentence) = (first.status.state.as_str().replace('_', " "), &first.status.sentence);
    let server = if hold.servers.len() == 1 { String::new() } else { format!(", {}", first.address) };
    Some(format!("Target {target} ({state}{server}): {sentence}."))
}

/// Returns a share in a form that has an order.
fn permille(share: Share) -> u64 {
    (share.share * 1e3) as u64
}

impl EstimateView {
    pub(super) fn new(latest: LatestEstimate, sampling: Sampling, now: Timestamp) -> Self {
        let primaries = latest.estimate.as_ref().map(|estimate| estimate.primaries.as_slice()).unwrap_or_default();
        let is_outdated = latest.scanned_since.is_some();
        Self {
            taken: latest.estimate.as_ref().map(|estimate| RelativeTime::new(estimate.taken_at, now)),
            scanned: latest.scanned_since.map(|scan| RelativeTime::new(scan.finished_at, now)),
            rows: primaries.iter().map(|primary| PrimaryRow::new(primary, is_outdated)).collect(),
            has_hints: primaries.iter().any(|primary| primary.approximate),
            failure: latest.failure,
            sampling: sampling_text(sampling),
        }
    }
}

/// Returns how the service estimates in the background, a sentence.
fn sampling_text(sampling: Sampling) -> &'static str {
    match sampling {
        Sampling::Off => "Background estimates are off.",
        Sampling::Replica => "Estimated on a replica in the background, which reclaims nothing.",
        Sampling::Primary => {
            "Estimated in the background: on a replica, else by samples of the primary, which reclaim the stale keys of the sample."
        }
    }
}

impl PrimaryRow {
    /// `is_outdated`: a scan has reclaimed the keys since.
    fn new(primary: &EstimatedPrimary, is_outdated: bool) -> Self {
        let finding = &primary.finding;
        let dash = || "–".to_owned();
        Self {
            address: primary.address.clone(),
            share: share_text(finding.share, finding.share_low, finding.share_high, primary.approximate),
            bytes: finding.bytes.map_or_else(dash, units::size),
            rate: finding.expiry_rate.map_or_else(dash, |rate| format!("{rate:.0}")),
            predicted: finding.predicted_share.map_or_else(dash, format::percent),
            verdict: match is_outdated {
                true => "From before the last scan.".to_owned(),
                false => format::sentence(&primary.verdict.reason),
            },
            remedy: primary.verdict.remedy.clone().filter(|_| !is_outdated),
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use keysweep_engine::{Finding, HoldPolicy, HoldStatus, Remaining, stale::Advice};

    use super::*;
    use crate::model::{HeldServer, InstanceEstimate};

    fn primary(address: &str, code: Code, bytes: u64) -> EstimatedPrimary {
        EstimatedPrimary {
            address: address.into(),
            finding: Finding { bytes: Some(bytes), ..Finding::default() },
            approximate: false,
            used_memory: None,
            verdict: Advice {
                code,
                reason: format!("the reason of {address}"),
                remedy: (code != Code::Pointless).then(|| format!("the remedy of {address}")),
                interval_seconds: None,
                setting: None,
            },
            notes: Vec::new(),
            cycle: keysweep_engine::Cycle::default(),
            gap: None,
        }
    }

    fn held_at(level: HoldLevel, servers: &[(&str, HoldState, &str)]) -> HeldInstance {
        let server = |(address, state, sentence): &(&str, HoldState, &str)| HeldServer {
            address: address.parse().expect("an address"),
            status: HoldStatus { state: *state, sentence: (*sentence).into(), ..HoldStatus::default() },
        };
        HeldInstance {
            instance_id: "i".into(),
            policy: HoldPolicy { level, below: 0.08, ..HoldPolicy::default() },
            updated_at: Timestamp::UNIX_EPOCH,
            changed: false,
            servers: servers.iter().map(server).collect(),
            failure: None,
            reported_at: None,
        }
    }

    fn headline(primaries: Vec<EstimatedPrimary>, hold: &HeldInstance) -> Headline {
        let estimate = InstanceEstimate { taken_at: Timestamp::UNIX_EPOCH, total: Finding::default(), primaries };
        let latest = LatestEstimate { estimate: Some(estimate), ..LatestEstimate::default() };
        Headline::new(&latest, hold, Sampling::Off)
    }

    #[test]
    fn the_page_begins_with_the_verdict_on_the_primary_that_has_most_to_gain() {
        let observed = held_at(HoldLevel::Observe, &[]);
        let one = headline(vec![primary("a:1", Code::ScanOnce, 1)], &observed);
        assert_eq!((one.sentence.as_str(), one.remedy.as_deref()), ("The reason of a:1.", Some("the remedy of a:1")));
        let fine = || primary("b:1", Code::Pointless, 9);
        let some =
            headline(vec![primary("a:1", Code::ScanOnce, 1), fine(), primary("c:1", Code::SetEffort, 2)], &observed);
        assert_eq!(some.sentence, "2 of 3 primaries need something, most of all c:1: the reason of c:1.");
        let none = headline(vec![fine(), primary("c:1", Code::Pointless, 2)], &observed);
        assert_eq!(none.sentence, "None of the 2 primaries needs anything: of b:1, the reason of b:1.");
        assert_eq!(headline(Vec::new(), &observed).sentence, "No estimate yet. Background estimates are off.");
    }

    #[test]
    fn after_a_scan_the_verdict_is_from_before_it() {
        let left = Remaining { stale_keys: 1_200, share: 0.004, ..Remaining::default() };
        let scan = LastScan { finished_at: Timestamp::UNIX_EPOCH, remaining: Some(left) };
        let latest = || LatestEstimate {
            estimate: Some(InstanceEstimate {
                taken_at: Timestamp::UNIX_EPOCH,
                total: Finding::default(),
                primaries: vec![primary("a:1", Code::ScanOnce, 1)],
            }),
            scanned_since: Some(scan),
            ..LatestEstimate::default()
        };
        let found = Headline::new(&latest(), &held_at(HoldLevel::Observe, &[]), Sampling::Off);
        assert_eq!(
            (found.sentence.as_str(), found.remedy),
            (
                "A scan has reclaimed the stale keys of the latest estimate, and left about 1,200 (0.4\u{a0}%). Background estimates are off.",
                None
            )
        );
        let view = EstimateView::new(latest(), Sampling::Off, Timestamp::UNIX_EPOCH);
        let row = &view.rows[0];
        assert_eq!((row.verdict.as_str(), &row.remedy), ("From before the last scan.", &None));
        let silent = LastScan { remaining: None, ..scan };
        assert_eq!(scanned(&silent), "A scan has reclaimed the stale keys of the latest estimate.");
    }

    #[test]
    fn a_held_instance_begins_with_what_is_done_and_a_problem_comes_first() {
        let fine = ("a:1", HoldState::Holding, "5.0 % are stale");
        let bad = ("b:1", HoldState::CannotHold, "the limits are reached");
        let held = held_at(HoldLevel::Hold, &[fine, bad]);
        let found = headline(vec![primary("a:1", Code::ScanOnce, 1)], &held);
        assert_eq!(found.sentence, "Target 8.0\u{a0}% (cannot hold, b:1): the limits are reached.");
        let held = held_at(HoldLevel::Advise, &[fine]);
        assert_eq!(headline(Vec::new(), &held).sentence, "Target 8.0\u{a0}% (holding): 5.0 % are stale.");
        let unfound = HeldInstance { failure: Some("b:1 is gone".into()), ..held_at(HoldLevel::Hold, &[]) };
        assert_eq!(headline(Vec::new(), &unfound).sentence, "Target 8.0\u{a0}% (not held): b:1 is gone.");
        let unreported = held_at(HoldLevel::Hold, &[]);
        assert!(headline(vec![primary("a:1", Code::ScanOnce, 1)], &unreported).sentence.starts_with("The reason"));
    }
}

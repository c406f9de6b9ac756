//! The verdict on a primary, from its estimate.

use super::report::{Method, PrimaryEstimate};
use crate::stale::{Advice, Basis, CycleSetting, Gap, MIN_EFFORT, Share, advise};

/// Keys that a scan at the pace normal visits a second: less than measured, so that advised intervals are long enough.
const SCANNED_PER_SECOND: f64 = 100_000.0;
/// Cycles a second of a server that does not report them: the servers' default.
const DEFAULT_HZ: u32 = 10;

/// What to do about the stale keys of a primary.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Stale share of all keys, measured or predicted; `None`: unknown.
    pub share: Option<Share>,
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    pub is_approximate: bool,
    /// The verdict.
    pub advice: Advice,
}

impl PrimaryEstimate {
    /// Returns what to do so that at most `target` (0–1) of all keys are stale.
    pub fn verdict(&self, target: f64) -> Verdict {
        let (finding, cycle) = (&self.finding, &self.cycle);
        // Where nothing expires the law says nothing: a batch may have expired long ago.
        let predicted = finding.predicted_share.filter(|share| *share > 0.0).map(Share::exact);
        let share = finding.interval().or(predicted);
        let is_measured = finding.share.is_some() && finding.method != Some(Method::Info);
        // The hint of INFO is up to 1.85 times too high in steady state: no batch is concluded from it.
        let known = if finding.method == Some(Method::Info) { predicted } else { share };
        let basis = Basis {
            missing_right: finding.hz.is_none().then(|| "grant +info".to_owned()),
            gap: self.gap(),
            share: known,
            is_predicted: known.is_some() && !is_measured,
            used_memory: self.used_memory,
            bytes: finding.bytes_high.or(finding.bytes),
            keys: finding.keys,
            workload: cycle.workload.clone(),
            setting: CycleSetting {
                effort: finding.effort.unwrap_or(MIN_EFFORT),
                hz: finding.hz.unwrap_or(DEFAULT_HZ),
            },
            may_configure: cycle.may_configure,
            scan_seconds: finding.keys as f64 / SCANNED_PER_SECOND,
            cost: cycle.cost,
            target,
            ..Basis::default()
        };
        Verdict { share, is_approximate: share.is_some() && !is_measured, advice: advise(&basis) }
    }

    /// Returns why the share may be unknown: a sample was refused, or the law lacks a setting.
    fn gap(&self) -> Option<Gap> {
        let gap = |cause: &str, remedy: &str| Some(Gap { cause: cause.into(), remedy: Some(remedy.into()) });
        let uncounted = "its keys were neither counted on a replica nor sampled";
        self.gap.clone().or_else(|| match (self.finding.method, self.finding.effort) {
            (Some(Method::Info), Some(_)) => gap(uncounted, "attach a replica, or allow samples of the primary"),
            (Some(Method::Info), None) => gap(
                &format!("{uncounted}, and CONFIG GET is refused, without which the law predicts nothing"),
                "grant +config|get, attach a replica, or allow samples of the primary",
            ),
            (Some(Method::Sample) | None, _) => gap(
                "most of its keys are in databases too small to sample",
                "attach a replica, or run keysweep scan, whose report says how many were stale",
            ),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        estimate::{Cycle, Finding},
        stale::{Code, Workload},
    };

    fn primary(finding: Finding, rate: f64) -> PrimaryEstimate {
        let cycle = Cycle {
            workload: Some(Workload::split(rate, &[(finding.keys, finding.keys_with_ttl, None)], 16)),
            hz: Some(10),
            effort: Some(1),
            may_configure: true,
            ..Cycle::default()
        };
        let finding = Finding { hz: Some(10), effort: Some(1), predicted_share: cycle.predicted_share(), ..finding };
        PrimaryEstimate { finding, cycle, ..PrimaryEstimate::default() }
    }

    #[test]
    fn a_measured_batch_is_scanned_once_and_churn_is_steered() {
        let share = |share| Share { share, low: share - 0.01, high: share + 0.01 };
        let finding = |found| Finding::of_keys(1_000_000, 1_000_000).with_share(share(found), Method::Sample);
        let batch = primary(finding(0.3), 10.0).verdict(0.1);
        assert_eq!((batch.advice.code, batch.is_approximate), (Code::ScanOnce, false));
        assert_eq!(primary(finding(0.16), 1_000.0).verdict(0.1).advice.code, Code::SetEffort);
        assert_eq!(primary(finding(0.05), 100.0).verdict(0.1).advice.code, Code::Pointless);
    }

    #[test]
    fn without_a_measurement_the_law_stands_and_is_marked() {
        let unknown = Finding { method: Some(Method::Info), ..Finding::of_keys(1_000_000, 1_000_000) };
        let found = primary(unknown, 1_000.0).verdict(0.1);
        assert!(
            found.is_approximate && found.share.is_some_and(|share| (0.14..0.17).contains(&share.share)),
            "{found:?}"
        );
        assert_eq!(found.advice.code, Code::SetEffort);
    }

    #[test]
    fn a_hint_of_info_is_shown_and_concluded_from_by_no_verdict() {
        let hint = Finding::of_keys(1_000_000, 1_000_000).with_share(Share::exact(0.3), Method::Info);
        let found = primary(hint.clone(), 1_000.0).verdict(0.1);
        assert_eq!((found.is_approximate, found.share.map(|share| share.share)), (true, Some(0.3)));
        assert_eq!(found.advice.code, Code::SetEffort, "{found:?}");
        assert_eq!(primary(hint, 0.0).verdict(0.1).advice.code, Code::Unknown);
    }

    #[test]
    fn an_unknown_share_names_what_is_missing() {
        let hint = || Finding { method: Some(Method::Info), ..Finding::of_keys(1_000_000, 1_000_000) };
        let advice = |primary: PrimaryEstimate| {
            let Advice { code, reason, remedy, .. } = primary.verdict(0.1).advice;
            assert_eq!(code, Code::Unknown, "{reason}");
            (reason, remedy.unwrap_or_default())
        };
        let (reason, remedy) = advice(primary(hint(), 0.0));
        assert!(reason.contains("neither counted on a replica nor sampled") && !reason.contains("CONFIG"), "{reason}");
        assert!(remedy.contains("attach a replica"), "{remedy}");

        let mut blind = primary(hint(), 1_000.0);
        (blind.finding.effort, blind.finding.predicted_share) = (None, None);
        let (reason, remedy) = advice(blind);
        assert!(reason.contains("CONFIG GET is refused") && remedy.contains("+config|get"), "{reason}; {remedy}");

        let refused =
            Gap { cause: "it is not sampled, since a right is missing".into(), remedy: Some("grant +scan".into()) };
        let (reason, remedy) = advice(PrimaryEstimate { gap: Some(refused), ..primary(hint(), 0.0) });
        assert_eq!(
            (reason.as_str(), remedy.as_str()),
            ("the stale share is unknown: it is not sampled, since a right is missing", "grant +scan")
        );

        let mut mute = primary(hint(), 0.0);
        mute.finding.hz = None;
        assert_eq!(advice(mute).1, "grant +info");
    }

    #[test]
    fn a_prediction_below_the_target_is_no_measurement() {
        let hint = Finding { method: Some(Method::Info), ..Finding::of_keys(1_000_000, 1_000_000) };
        let found = primary(hint, 20.0).verdict(0.1);
        let Advice { code, reason, remedy, .. } = &found.advice;
        assert_eq!((*code, found.is_approximate), (Code::Unknown, true));
        assert!(reason.contains("would not show: its keys were neither counted"), "{reason}");
        assert!(remedy.as_ref().is_some_and(|remedy| remedy.contains("attach a replica")), "{remedy:?}");
    }

    #[test]
    fn databases_too_small_to_sample_are_named_where_they_hold_most_keys() {
        let unsampled = Finding { method: Some(Method::Sample), ..Finding::of_keys(51_000, 51_000) };
        let advice = primary(unsampled, 100.0).verdict(0.1).advice;
        assert_eq!((advice.code, advice.reason.contains("too small to sample")), (Code::Unknown, true), "{advice:?}");
    }

    #[test]
    fn where_nothing_expires_the_law_says_nothing() {
        let hint =
            |keys| primary(Finding { method: Some(Method::Info), ..Finding::of_keys(keys, keys) }, 0.0).verdict(0.1);
        assert_eq!((hint(1_000_000).share, hint(1_000_000).advice.code), (None, Code::Unknown));
        assert_eq!(hint(300).advice.code, Code::Pointless);
    }
}

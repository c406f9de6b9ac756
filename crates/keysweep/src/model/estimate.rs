//! Stored estimates of stale keys: the latest of an instance, its history, and what happened meanwhile.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use keysweep_engine::{
    Cycle, Estimate, Finding, Method, PrimaryEstimate, PrimaryVerdict,
    stale::{Advice, CycleSetting, Gap, Share},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{LastScan, UnknownName, named, remedy::remedy_for};

/// Stale share to stay below where no other target is set, 0–1.
pub const DEFAULT_TARGET: f64 = 0.1;

/// How the service estimates the stale keys of an instance by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// Not at all.
    Off,
    /// On a replica in sync, where nothing is reclaimed; without one, what INFO and the law say.
    #[default]
    Replica,
    /// On a replica in sync, else by samples of the primary, which reclaim the stale keys of the sample.
    Primary,
}

named!(Sampling, "sampling", { Off = "off", Replica = "replica", Primary = "primary" });

/// What was found of one primary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EstimatedPrimary {
    /// Address of the primary.
    pub address: String,
    /// The finding. Its share is a hint or a prediction where `approximate` says so.
    #[serde(flatten)]
    pub finding: Finding,
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    pub approximate: bool,
    /// Bytes that the data of the primary takes; `None`: unknown.
    pub used_memory: Option<u64>,
    /// What to do about the stale keys.
    pub verdict: Advice,
    /// What the finding lacks, and why.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What the verdict is based on beside the finding.
    #[serde(default)]
    pub cycle: Cycle,
    /// Why it was not sampled although it might have been.
    #[serde(default)]
    pub gap: Option<Gap>,
}

impl EstimatedPrimary {
    /// Returns what an estimate says of a primary, with the verdict for a target share (0–1).
    pub fn new(primary: PrimaryEstimate, target: f64) -> Self {
        let PrimaryVerdict { share, is_approximate, advice } = primary.verdict(target);
        let finding = Finding { share: share.map(|share| share.share), ..primary.finding };
        Self {
            address: primary.address,
            finding,
            approximate: is_approximate,
            used_memory: primary.used_memory,
            verdict: advice,
            notes: primary.notes,
            cycle: primary.cycle,
            gap: primary.gap,
        }
    }

    /// Returns the same with a remedy that names the instance.
    pub fn for_instance(mut self, name: &str) -> Self {
        if let Some(remedy) = &mut self.verdict.remedy {
            *remedy = remedy_for(name, remedy);
        }
        self
    }

    /// Returns the same with the verdict for another target share (0–1).
    pub fn for_target(self, target: f64) -> Self {
        let mut finding = self.finding;
        if self.approximate && finding.method != Some(Method::Info) {
            // Predicted, and predicted again: as a finding it would pass for a measurement.
            finding.share = None;
        }
        let primary = PrimaryEstimate {
            address: self.address,
            source: String::new(),
            finding,
            databases: Vec::new(),
            notes: self.notes,
            gap: self.gap,
            used_memory: self.used_memory,
            cycle: self.cycle,
        };
        Self::new(primary, target)
    }
}

/// What was found of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceEstimate {
    /// When the estimate was made.
    pub taken_at: Timestamp,
    /// All primaries together, as far as their shares were measured.
    pub total: Finding,
    /// Each primary.
    pub primaries: Vec<EstimatedPrimary>,
}

/// What an estimate found of all primaries of an instance together. Read from a stored [`InstanceEstimate`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EstimateTotal {
    /// When the estimate was made.
    pub taken_at: Timestamp,
    /// All primaries together, as far as their shares were measured.
    pub total: Finding,
}

impl InstanceEstimate {
    /// Returns what an estimate says of an instance, with the verdicts for a target share (0–1).
    pub fn new(found: Estimate, target: f64, taken_at: Timestamp) -> Self {
        let primaries = found.primaries.into_iter().map(|primary| EstimatedPrimary::new(primary, target)).collect();
        Self { taken_at, total: found.total, primaries }
    }

    /// Returns the same with the verdicts for another target share (0–1).
    pub fn for_target(self, target: f64) -> Self {
        let primaries = self.primaries.into_iter().map(|primary| primary.for_target(target)).collect();
        Self { primaries, ..self }
    }

    /// Returns the same with remedies that name the instance.
    pub fn for_instance(self, name: &str) -> Self {
        let primaries = self.primaries.into_iter().map(|primary| primary.for_instance(name)).collect();
        Self { primaries, ..self }
    }

    /// Returns the settings of expiry cycles that differ from those of an earlier estimate. Primaries that one of the two does not
    /// have, or whose settings were not read, have none.
    pub fn changed_settings(&self, before: &Self) -> Vec<SettingChange> {
        let changes = self.primaries.iter().filter_map(|primary| {
            let earlier = before.primaries.iter().find(|earlier| earlier.address == primary.address)?;
            let (from, to) = (earlier.cycle.configured()?, primary.cycle.configured()?);
            (from != to).then(|| SettingChange { server: primary.address.clone(), from, to })
        });
        changes.collect()
    }
}

/// Settings of a primary's expiry cycle that were changed between two estimates.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingChange {
    /// Address of the primary.
    pub server: String,
    /// The settings before.
    pub from: CycleSetting,
    /// The settings now.
    pub to: CycleSetting,
}

impl SettingChange {
    /// Returns the part that these marks do not have, which are those since the earlier estimate; `None`: they have all of it.
    pub fn since(self, marks: &[Mark]) -> Option<Self> {
        let is_of_server =
            |mark: &&Mark| mark.kind == MarkKind::Config && mark.detail["server"] == self.server.as_str();
        let last = marks.iter().rev().find(is_of_server);
        let marked = last.and_then(|mark| serde_json::from_value(mark.detail["to"].clone()).ok());
        let from = marked.unwrap_or(self.from);
        (from != self.to).then_some(Self { from, ..self })
    }

    /// Returns the detail of its mark, in the form of the marks of what keysweep writes.
    pub fn detail(&self) -> Value {
        let Self { server, from, to } = self;
        json!({ "server": server, "from": from, "to": to, "reason": "seen by an estimate, not written by keysweep" })
    }
}

/// What the store has of an instance's stale keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LatestEstimate {
    /// The latest estimate; `None`: there was none yet, or another version of keysweep made it.
    pub estimate: Option<InstanceEstimate>,
    /// Why there is no newer one, a sentence; `None`: the latest attempt succeeded.
    pub failure: Option<String>,
    /// The last successful scan, if it has reclaimed keys since the latest estimate.
    pub scanned_since: Option<LastScan>,
}

/// One primary at one time of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrimaryPoint {
    /// Address of the primary.
    pub address: String,
    /// Keys in memory, stale keys included.
    pub keys: u64,
    /// Stale keys as a share of all keys, 0–1.
    pub share: Option<f64>,
    /// Lower end of its 95 % interval.
    pub share_low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub share_high: Option<f64>,
    /// Whether the share is a hint (INFO) or a prediction, and no measurement.
    pub approximate: bool,
    /// Bytes of the stale keys.
    pub bytes: Option<u64>,
    /// Keys that expire a second.
    pub expiry_rate: Option<f64>,
    /// Bytes that the data of the primary takes.
    pub used_memory: Option<u64>,
}

impl PrimaryPoint {
    /// Returns the same point with a measured share, and as many bytes as follow from it.
    pub fn measured(self, Share { share, low, high }: Share) -> Self {
        let scaled = |(bytes, before): (u64, f64)| (before > 0.0).then(|| (bytes as f64 * share / before) as u64);
        let bytes = self.bytes.zip(self.share).and_then(scaled);
        Self { share: Some(share), share_low: Some(low), share_high: Some(high), approximate: false, bytes, ..self }
    }
}

impl From<&EstimatedPrimary> for PrimaryPoint {
    fn from(primary: &EstimatedPrimary) -> Self {
        let finding = &primary.finding;
        Self {
            address: primary.address.clone(),
            keys: finding.keys,
            share: finding.share,
            share_low: finding.share_low,
            share_high: finding.share_high,
            approximate: primary.approximate,
            bytes: finding.bytes,
            expiry_rate: finding.expiry_rate,
            used_memory: primary.used_memory,
        }
    }
}

/// An instance at one time of its history.
#[derive(Debug, Clone, PartialEq)]
pub struct EstimatePoint {
    /// When the estimate was made.
    pub taken_at: Timestamp,
    /// Its primaries.
    pub primaries: Vec<PrimaryPoint>,
}

/// What a mark of the history says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// A scan ended.
    Scan,
    /// Settings of the servers were changed.
    Config,
}

named!(MarkKind, "kind of mark", { Scan = "scan", Config = "config" });

/// What happened to an instance at one time of its history, beside estimates.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// When it happened.
    pub happened_at: Timestamp,
    /// What happened.
    pub kind: MarkKind,
    /// JSON, without key names and secrets.
    pub detail: Value,
}

#[cfg(test)]
mod tests {
    use keysweep_engine::stale::{Code, Workload};

    use super::*;

    #[test]
    fn a_setting_that_others_changed_between_two_estimates_is_told_once() {
        let setting = |effort, hz| CycleSetting { effort, hz };
        let estimate = |setting: Option<CycleSetting>| InstanceEstimate {
            taken_at: Timestamp::UNIX_EPOCH,
            total: Finding::default(),
            primaries: vec![EstimatedPrimary {
                address: "one:1".into(),
                finding: Finding::default(),
                approximate: false,
                used_memory: None,
                verdict: Advice {
                    code: Code::Pointless,
                    reason: String::new(),
                    remedy: None,
                    interval_seconds: None,
                    setting: None,
                },
                notes: Vec::new(),
                cycle: Cycle {
                    // What dynamic-hz makes of hz is no change of a setting.
                    hz: Some(40),
                    effort: setting.map(|setting| setting.effort),
                    configured_hz: setting.map(|setting| setting.hz),
                    ..Cycle::default()
                },
                gap: None,
            }],
        };
        let before = estimate(Some(setting(1, 10)));
        let changed = estimate(Some(setting(4, 10))).changed_settings(&before);
        let change = SettingChange { server: "one:1".into(), from: setting(1, 10), to: setting(4, 10) };
        assert_eq!(changed, std::slice::from_ref(&change));
        for same in [estimate(Some(setting(1, 10))), estimate(None)] {
            assert_eq!(same.changed_settings(&before), []);
        }

        let mark = |server: &str, to| Mark {
            happened_at: Timestamp::UNIX_EPOCH,
            kind: MarkKind::Config,
            detail: json!({ "server": server, "from": setting(1, 10), "to": to, "reason": "why" }),
        };
        assert_eq!(change.clone().since(&[]), Some(change.clone()));
        assert_eq!(change.clone().since(&[mark("two:1", setting(4, 10))]), Some(change.clone()), "of another server");
        assert_eq!(change.clone().since(&[mark("one:1", setting(4, 10))]), None, "keysweep wrote it");
        let later = change.clone().since(&[mark("one:1", setting(3, 10))]).expect("changed after that");
        assert_eq!((later.from, later.to), (setting(3, 10), setting(4, 10)));
        let detail = change.detail();
        assert_eq!((&detail["server"], &detail["to"]["effort"]), (&json!("one:1"), &json!(4)));
    }

    #[test]
    fn a_stored_estimate_has_a_verdict_for_any_target() {
        let cycle = Cycle {
            workload: Some(Workload::split(1_000.0, &[(1_000_000, 1_000_000, None)], 16)),
            hz: Some(10),
            effort: Some(1),
            may_configure: true,
            ..Cycle::default()
        };
        let primary = |share, method| PrimaryEstimate {
            address: "one:1".into(),
            source: "one:1".into(),
            finding: Finding {
                keys: 1_000_000,
                keys_with_ttl: 1_000_000,
                share,
                method,
                hz: Some(10),
                effort: Some(1),
                predicted_share: cycle.predicted_share(),
                ..Finding::default()
            },
            databases: Vec::new(),
            notes: vec!["database 1 is too small to matter".into()],
            gap: Some(Gap { cause: "a save runs".into(), remedy: None }),
            used_memory: Some(1 << 30),
            cycle: cycle.clone(),
        };
        for (share, method) in [(Some(0.16), Some(Method::Sample)), (None, Some(Method::Info)), (None, None)] {
            let stored = serde_json::to_string(&EstimatedPrimary::new(primary(share, method), 0.1)).expect("JSON");
            let read: EstimatedPrimary = serde_json::from_str(&stored).expect("readable");
            assert_eq!(read.verdict.code, Code::SetEffort);
            let at_half = read.for_target(0.5);
            assert_eq!(at_half, EstimatedPrimary::new(primary(share, method), 0.5), "{share:?} by {method:?}");
            // Without a measurement a batch would not show.
            let code = if share.is_some() { Code::Pointless } else { Code::Unknown };
            assert_eq!((at_half.verdict.code, at_half.approximate), (code, share.is_none()));
        }
    }
}

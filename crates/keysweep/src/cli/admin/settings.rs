//! `keysweep admin instance set`: changes of the settings of a registered instance.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use clap::Args;
use keysweep_engine::{HoldLevel, HoldPolicy, Preset};
use serde_json::json;

use super::Output;
use crate::{
    cli::scan::percent,
    hold,
    instances::{InstanceChange, InstanceError, Instances},
    model::{COMMAND_LINE, Instance, Label, Labels, Sampling, Stored, UnreadableField},
    store::Store,
    units::duration,
};

/// Options of `keysweep admin instance set`, at least one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct SettingsArgs {
    /// Label to add, or to give another value; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<Label>,
    /// Name of a label to remove; repeatable
    #[arg(long = "remove-label", value_name = "NAME")]
    removed_labels: Vec<String>,
    /// Throttle profile of its scans: gentle, normal, fast or max
    #[arg(long, value_name = "PACE")]
    pace: Option<Preset>,
    /// How the service estimates its stale keys in the background: off, replica or primary
    #[arg(long, value_name = "HOW")]
    sampling: Option<Sampling>,
    /// Maintenance window of scheduled scans, for example "02:00-05:00 Europe/Paris"; "" for any time
    #[arg(long, value_name = "WINDOW")]
    window: Option<String>,
    /// observe, advise, or hold, which lets keysweep change settings of the instance's servers
    #[arg(long, value_name = "LEVEL")]
    hold_level: Option<HoldLevel>,
    /// Share of all keys below which the stale keys are held, in percent, from 2 to 30
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "hold_level")]
    hold_below: Option<f64>,
    /// Highest active-expire-effort to write
    #[arg(long, value_name = "N", requires = "hold_level")]
    hold_max_effort: Option<u8>,
    /// Highest hz to write, at most 100, or none: hz is not written
    #[arg(long, value_name = "N", requires = "hold_level")]
    hold_max_hz: Option<HzLimit>,
    /// Longest time that a cycle may block clients beyond today's, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", requires = "hold_level")]
    hold_max_added_stall: Option<f64>,
    /// CPU that the cycle may take beyond today's, in percent of a core
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "hold_level")]
    hold_max_added_cpu: Option<f64>,
    /// Time between two observations
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "hold_level")]
    hold_interval: Option<Duration>,
    /// Time without another write after each write, at least
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "hold_level")]
    hold_settle_floor: Option<Duration>,
}

/// The consent to raise hz up to a limit, or its withdrawal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HzLimit(Option<u32>);

impl FromStr for HzLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            number => number.parse().map(|hz| Self(Some(hz))).map_err(|_| "expected a whole number or none".to_owned()),
        }
    }
}

impl SettingsArgs {
    /// Changes an instance, and returns its settings as they are then.
    ///
    /// # Errors
    /// A value is invalid, in which case nothing was changed; or the store failed.
    pub async fn apply(&self, instance: &Instance, store: &Store, instances: &Instances) -> anyhow::Result<Output> {
        let change = self.change(instance)?;
        let mut policy = hold::get(store, instance).await?.policy;
        if let Some(level) = self.hold_level {
            // Checked before the instance changes: neither part is applied without the other.
            policy = self.policy(level, policy).validated()?;
        }
        let instance = match change {
            Some(change) => instances.change(instance, change, COMMAND_LINE).await?,
            None => instance.clone(),
        };
        if self.hold_level.is_some() {
            policy = hold::set(store, &instance, policy, COMMAND_LINE).await?.policy;
        }
        Ok(describe(&instance, &policy))
    }

    /// Returns a policy with what the options change.
    fn policy(&self, level: HoldLevel, before: HoldPolicy) -> HoldPolicy {
        let seconds = |time: Option<Duration>, before: u64| time.map_or(before, |time| time.as_secs());
        HoldPolicy {
            level,
            below: self.hold_below.unwrap_or(before.below),
            max_effort: self.hold_max_effort.unwrap_or(before.max_effort),
            max_hz: self.hold_max_hz.map_or(before.max_hz, |HzLimit(limit)| limit),
            max_added_stall_ms: self.hold_max_added_stall.unwrap_or(before.max_added_stall_ms),
            max_added_cpu: self.hold_max_added_cpu.unwrap_or(before.max_added_cpu),
            interval_seconds: seconds(self.hold_interval, before.interval_seconds),
            settle_floor_seconds: seconds(self.hold_settle_floor, before.settle_floor_seconds),
        }
    }

    /// Returns the change of the instance's own settings; `None`: only the hold changes.
    fn change(&self, instance: &Instance) -> Result<Option<InstanceChange>, InstanceError> {
        let labels = match self.labels.is_empty() && self.removed_labels.is_empty() {
            true => None,
            false => Some(readable_labels(instance)?.with(&self.labels, &self.removed_labels)?),
        };
        let is_left_out = labels.is_none() && self.pace.is_none() && self.sampling.is_none() && self.window.is_none();
        Ok((!is_left_out).then(|| InstanceChange {
            labels,
            pace: self.pace,
            sampling: self.sampling,
            window: self.window.clone(),
            ..InstanceChange::default()
        }))
    }
}

/// Returns an instance's labels. Unreadable ones are an error: a change would replace them all.
fn readable_labels(instance: &Instance) -> Result<&Labels, InstanceError> {
    instance.labels.value().map_err(|cause| InstanceError::Unreadable {
        name: instance.name.clone(),
        field: UnreadableField { field: "labels", cause: cause.to_owned() },
    })
}

fn describe(instance: &Instance, policy: &HoldPolicy) -> Output {
    let none = BTreeMap::new();
    let labels = instance.labels.value().map_or(&none, Labels::as_map);
    let pairs = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    let window = instance.window.as_ref().map(Stored::text);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let max_hz = policy.max_hz.map_or_else(|| "none".to_owned(), |hz| hz.to_string());
    let row = |name: &'static str, value: &str| (name, value.to_owned());
    Output::One {
        json: json!({
            "id": instance.id, "name": instance.name, "labels": labels, "pace": instance.pace.text(),
            "sampling": instance.sampling.as_str(), "window": window, "hold": policy.level.as_str(), "below": policy.below,
            "max_effort": policy.max_effort, "max_hz": policy.max_hz, "max_added_stall_ms": policy.max_added_stall_ms,
            "max_added_cpu": policy.max_added_cpu, "interval_seconds": policy.interval_seconds,
            "settle_floor_seconds": policy.settle_floor_seconds,
        }),
        rows: vec![
            row("name", &instance.name),
            row("labels", if pairs.is_empty() { "-" } else { &pairs }),
            row("pace", instance.pace.text()),
            row("sampling", instance.sampling.as_str()),
            row("window", window.unwrap_or("any time")),
            row("hold", policy.level.as_str()),
            row("below", &percent(policy.below)),
            row("max effort", &policy.max_effort.to_string()),
            row("max hz", &max_hz),
            row("max added stall", &format!("{} ms", policy.max_added_stall_ms)),
            row("max added CPU", &percent(policy.max_added_cpu)),
            row("interval", &format!("{} s", policy.interval_seconds)),
            row("settle floor", &format!("{} s", policy.settle_floor_seconds)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn policy(line: &str, before: HoldPolicy) -> Result<HoldPolicy, String> {
        let settings = TestCli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.settings;
        Ok(settings.policy(settings.hold_level.expect("given"), before))
    }

    #[test]
    fn options_of_hold_change_what_they_name_and_the_consent_to_hz_can_be_withdrawn() {
        let all = "set --hold-level hold --hold-below 8 --hold-max-effort 9 --hold-max-hz 30 --hold-max-added-stall 0.5 \
                   --hold-max-added-cpu 2 --hold-interval 5s --hold-settle-floor 15s";
        let expected = HoldPolicy {
            level: HoldLevel::Hold,
            below: 0.08,
            max_effort: 9,
            max_hz: Some(30),
            max_added_stall_ms: 0.5,
            max_added_cpu: 0.02,
            interval_seconds: 5,
            settle_floor_seconds: 15,
        };
        assert_eq!(policy(all, HoldPolicy::default()), Ok(expected));
        assert_eq!(policy("set --hold-level hold", expected), Ok(expected), "what is left out stays");
        let withdrawn = policy("set --hold-level hold --hold-max-hz none", expected);
        assert_eq!(withdrawn, Ok(HoldPolicy { max_hz: None, ..expected }));
        let error = policy("set --hold-level hold --hold-max-hz never", expected).expect_err("no number");
        assert!(error.contains("expected a whole number or none"), "{error}");
    }
}

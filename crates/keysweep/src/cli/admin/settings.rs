//! `keysweep admin instance set`: changes of the settings of a registered instance.

use std::collections::BTreeMap;

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
    /// Highest hz to write, at most 100; without it hz is not written
    #[arg(long, value_name = "N", requires = "hold_level")]
    hold_max_hz: Option<u32>,
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
            policy = HoldPolicy {
                level,
                below: self.hold_below.unwrap_or(policy.below),
                max_effort: self.hold_max_effort.unwrap_or(policy.max_effort),
                max_hz: self.hold_max_hz.or(policy.max_hz),
                ..policy
            }
            .validated()?;
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
    let below = format!("{:.1} %", policy.below * 100.0);
    let row = |name: &'static str, value: &str| (name, value.to_owned());
    Output::One {
        json: json!({
            "id": instance.id, "name": instance.name, "labels": labels, "pace": instance.pace.text(),
            "sampling": instance.sampling.as_str(), "window": window, "hold": policy.level.as_str(), "below": policy.below,
        }),
        rows: vec![
            row("name", &instance.name),
            row("labels", if pairs.is_empty() { "-" } else { &pairs }),
            row("pace", instance.pace.text()),
            row("sampling", instance.sampling.as_str()),
            row("window", window.unwrap_or("any time")),
            row("hold", policy.level.as_str()),
            row("below", &below),
        ],
    }
}

//! What a primary reports about its own expiry cycle: how many keys expire a second, and with which settings it runs.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{
    failure::ShardError,
    link::{Info, Keyspace, Link, LinkError, Pipeline},
    server::{DEFAULT_DATABASES, ExpiredKeys, ServerState, config, cycle_seconds, reading},
    stale::{CycleCost, CycleSetting, MIN_CYCLE_SECONDS, Reading, Workload, expiry_rate},
    target::Address,
};

/// A primary's expiry cycle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    /// Keys that expire, by database; `None`: not in steady state, or INFO is refused.
    pub workload: Option<Workload>,
    /// Cycles a second, as INFO reports them.
    pub hz: Option<u32>,
    /// Cycles a second as they are configured, without what `dynamic-hz` adds while many clients are connected; `None`: CONFIG is
    /// refused.
    #[serde(default)]
    pub configured_hz: Option<u32>,
    /// `active-expire-effort`; `None`: CONFIG is refused.
    pub effort: Option<u8>,
    /// Cost of the cycle on this server, calibrated where it has run meanwhile.
    pub cost: CycleCost,
    /// Whether CONFIG SET is allowed.
    pub may_configure: bool,
}

impl Cycle {
    /// Returns the keys that expire a second.
    pub fn rate(&self) -> Option<f64> {
        self.workload.as_ref().map(Workload::rate)
    }

    /// Returns the settings, where both are known.
    pub fn setting(&self) -> Option<CycleSetting> {
        Some(CycleSetting { effort: self.effort?, hz: self.hz? })
    }

    /// Returns the settings as they are configured, where both are known. They change only when they are written.
    pub fn configured(&self) -> Option<CycleSetting> {
        Some(CycleSetting { effort: self.effort?, hz: self.configured_hz? })
    }

    /// Returns the share of all keys that the cycle holds in steady state.
    pub fn predicted_share(&self) -> Option<f64> {
        let workload = self.workload.as_ref().filter(|workload| workload.follows_the_law())?;
        Some(workload.held_share(self.setting()?))
    }
}

/// What a primary reported at one moment.
pub(super) struct Snapshot {
    pub info: Info,
    reading: Reading,
    /// Seconds of the main thread that the cycle has taken since the start.
    cycle_seconds: Option<f64>,
}

impl Snapshot {
    /// Asks a primary; `None`: INFO is refused. `since`: the clock that is common to the snapshots of an estimate.
    pub fn take(link: &mut Link, address: &Address, since: Instant) -> Result<Option<Self>, ShardError> {
        let failed = |error: LinkError| ShardError::at(address, error);
        let mut pipeline = Pipeline::default();
        ServerState::add_with_expiry(&mut pipeline);
        let mut replies = link.ask(&pipeline).map_err(failed)?;
        let found = ServerState::take_with_expiry(&mut replies, link).map_err(failed)?;
        let Some((state, info)) = found else { return Ok(None) };
        let Some(reading) = reading(&info, since.elapsed().as_secs_f64(), state.pauses) else { return Ok(None) };
        let cycle_seconds = cycle_seconds(&info);
        Ok(Some(Self { info, reading, cycle_seconds }))
    }
}

/// Shortest and longest time over which the rate is measured with earlier counters, milliseconds. In seconds keys that expire
/// together count as none or as many.
const SHORTEST_RATE: u64 = 60_000;
const LONGEST_RATE: u64 = 600_000;

/// Returns the keys that expire a second: since the latest of these counters that are a minute old or more, else between both
/// readings. `now`: when the second reading was made, on the clock of the counters.
fn rate(before: &Reading, after: &Reading, earlier: &[ExpiredKeys], now: u64) -> Option<f64> {
    // A pause or a reset within the estimate itself shows in the readings alone.
    let of_estimate = expiry_rate(before, after)?;
    let age = |counted: &ExpiredKeys| now.saturating_sub(counted.at);
    let usable = |counted: &&ExpiredKeys| {
        counted.run_id == after.run_id && (SHORTEST_RATE..=LONGEST_RATE).contains(&age(counted))
    };
    let Some(base) = earlier.iter().filter(usable).min_by_key(|counted| age(counted)) else { return Some(of_estimate) };
    let base = Reading {
        run_id: base.run_id.clone(),
        at: after.at - age(base) as f64 / 1e3,
        expired: base.keys,
        expired_fields: base.fields,
        pauses: after.pauses,
    };
    expiry_rate(&base, after)
}

/// Returns what two snapshots and the primary's settings say. `earlier`: counters of before; `may_configure`: whether CONFIG SET
/// is allowed.
pub(super) fn describe(
    link: &mut Link,
    address: &Address,
    earlier: &[ExpiredKeys],
    before: Option<&Snapshot>,
    after: Option<&Snapshot>,
    may_configure: bool,
) -> Result<Cycle, ShardError> {
    let settings = config(link, ["active-expire-effort", "hz", "databases"]);
    let [effort, configured_hz, databases] = settings.map_err(|error| ShardError::at(address, error))?;
    let effort = effort.and_then(|effort| effort.parse().ok());
    let configured_hz = configured_hz.and_then(|hz| hz.parse().ok());
    let databases = databases.and_then(|databases| databases.parse().ok());
    let mut cycle = Cycle { effort, configured_hz, may_configure, ..Cycle::default() };
    let Some(after) = after else { return Ok(cycle) };
    cycle.hz = after.info.number("hz");
    let Some(before) = before else { return Ok(cycle) };
    // The second snapshot was made a moment ago, or before a sample of some milliseconds.
    let rate = rate(&before.reading, &after.reading, earlier, ExpiredKeys::clock());
    cycle.workload = rate.map(|rate| {
        let line = |line: &Keyspace| (line.keys, line.expires, line.mean_ttl);
        let lines: Vec<_> = after.info.keyspace().iter().map(line).collect();
        Workload::split(rate, &lines, databases.unwrap_or(DEFAULT_DATABASES))
    });
    let seconds = after.reading.at - before.reading.at;
    let spent = after.cycle_seconds.zip(before.cycle_seconds).map(|(after, before)| (after - before) / seconds);
    if let (Some(spent), Some(workload), Some(setting)) = (spent, &cycle.workload, cycle.setting()) {
        let expected = workload.cycle_load(setting, cycle.cost);
        if spent * seconds >= MIN_CYCLE_SECONDS {
            cycle.cost = cycle.cost.calibrated(spent, expected);
        }
    }
    Ok(cycle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_measured_since_a_minute_ago_where_counters_are_known() {
        let reading = |at, expired| Reading { run_id: "one".into(), at, expired, ..Reading::default() };
        let (before, after) = (reading(5.0, 10_000), reading(7.0, 10_000));
        let counted = |seconds_ago: u64, keys| ExpiredKeys {
            at: 1_000_000_000 - seconds_ago * 1_000,
            run_id: "one".into(),
            keys,
            fields: 0,
        };
        let rate = |earlier: &[ExpiredKeys]| rate(&before, &after, earlier, 1_000_000_000);
        assert_eq!(rate(&[]), Some(0.0), "keys of whole minutes do not expire within these two seconds");
        assert_eq!(rate(&[counted(120, 4_000), counted(80, 6_000), counted(30, 9_000)]), Some(50.0));
        for unusable in
            [counted(59, 4_000), counted(601, 4_000), ExpiredKeys { run_id: "two".into(), ..counted(80, 1) }]
        {
            assert_eq!(rate(std::slice::from_ref(&unusable)), Some(0.0), "{unusable:?}");
        }
        assert_eq!(rate(&[counted(80, 20_000)]), None, "CONFIG RESETSTAT");
        assert_eq!(rate(&[ExpiredKeys { fields: 5, ..counted(80, 6_000) }]), None, "fields expire");
    }

    #[test]
    fn a_prediction_needs_the_rate_and_both_settings() {
        let workload = Workload::split(1_000.0, &[(50_000, 50_000, None)], 16);
        let cycle = Cycle { workload: Some(workload.clone()), hz: Some(10), effort: Some(1), ..Cycle::default() };
        assert!((cycle.predicted_share().expect("a share") - 0.155).abs() < 0.01);
        assert_eq!(Cycle { effort: None, ..cycle.clone() }.predicted_share(), None);
        assert_eq!(Cycle { workload: None, ..cycle.clone() }.predicted_share(), None);
        let small = Workload::split(1_000.0, &[(2_000, 2_000, None)], 16);
        assert_eq!(Cycle { workload: Some(small), ..cycle }.predicted_share(), None, "no law for so few keys");
    }
}

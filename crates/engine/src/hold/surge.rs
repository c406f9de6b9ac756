//! What a write makes the cycle remove once: the keys that the weaker setting had left. The seconds that this takes break no limit,
//! and everything else is judged from the first observation after a write.

use super::{
    alarms::{Broken, broken_limit},
    controller::Controller,
    model::Model,
    signals::Signals,
};
use crate::stale::{CycleCost, CycleSetting, Workload};

/// Factor by which the seconds may exceed the predicted ones.
const GRAVE: f64 = 2.0;
/// Part of an interval from which on an observation says what the cycle takes.
const WHOLE: f64 = 0.5;

/// Seconds of the cycle that a write explains.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Surge {
    left: f64,
}

impl Surge {
    /// Returns what a write from one setting to another makes the cycle remove. `share`: the last measured share; `model`: what the
    /// settings hold; without it all stale keys may be removed.
    pub fn of(
        share: Option<f64>,
        model: Option<&Model<'_>>,
        cost: CycleCost,
        keys: u64,
        from: CycleSetting,
        to: CycleSetting,
    ) -> Self {
        let held = |setting| model.map_or(0.0, |model| model.share(setting));
        let (before, after) = (held(from).max(share.unwrap_or(0.0)), held(to));
        let removed = (before - after).max(0.0) * keys as f64;
        Self { left: GRAVE * cost.load(removed, (before + after) / 2.0) }
    }

    /// Takes what a write explains off a load that was measured for some seconds. `expected`: the load in steady state.
    fn take_off(&mut self, load: f64, expected: f64, seconds: f64) -> f64 {
        let explained = ((load - expected) * seconds).clamp(0.0, self.left);
        self.left -= explained;
        load - explained / seconds
    }
}

impl Controller {
    /// Returns a limit that the cycle breaks with other settings than the server's own, and counts how often in a row. While the
    /// share follows a change, only what exceeds a limit by far.
    pub(super) fn broken_limit(
        &mut self,
        now: f64,
        signals: &Signals,
        model: Option<&Model<'_>>,
        baseline: CycleSetting,
        found: CycleSetting,
    ) -> Option<Broken> {
        let is_measured = self.history.range().is_some() || self.history.has_field_ttls;
        let is_whole = self.history.seconds >= WHOLE * self.policy.interval().as_secs_f64();
        if signals.is_scanning || !is_measured || !is_whole {
            return None;
        }
        let load = self.history.load?;
        let broken = self.broken_by(signals, model, baseline, load).filter(|_| found != baseline);
        if now < self.settle_until {
            // Either more keys expire, or the write explains it.
            let unexplained = self.unexplained(signals, model, baseline, found, load);
            let least = broken.zip(unexplained).map(|(one, other)| if one.factor < other.factor { one } else { other });
            return least.filter(Broken::is_grave);
        }
        self.broken = if broken.is_some() { self.broken + 1 } else { 0 };
        broken
    }

    /// Returns the limit that a load breaks beside what the last write explains. The keys that this has removed count as expired, so
    /// that the lower of the last two rates is that of the keys that expire.
    fn unexplained(
        &mut self,
        signals: &Signals,
        model: Option<&Model<'_>>,
        baseline: CycleSetting,
        found: CycleSetting,
        load: f64,
    ) -> Option<Broken> {
        let rate = self.history.range().map_or(0.0, |(low, _)| low);
        let workload = Workload::split(rate, &signals.databases, signals.configured_databases);
        let model = model.map(|model| Model { workload: &workload, ..model.clone() });
        let expected = model.as_ref().map_or(0.0, |model| model.cpu(found));
        let load = self.surge.take_off(load, expected, self.history.seconds);
        self.broken_by(signals, model.as_ref(), baseline, load)
    }

    fn broken_by(
        &self,
        signals: &Signals,
        model: Option<&Model<'_>>,
        baseline: CycleSetting,
        load: f64,
    ) -> Option<Broken> {
        broken_limit(&self.policy, model, baseline, signals.hz?, load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_explains_what_it_makes_the_cycle_remove_and_no_more() {
        let workload = Workload::split(10_000.0, &[(10_000_000, 10_000_000, None)], 16);
        let cost = CycleCost::default();
        let model = Model { workload: &workload, cost, offset: 0.0, hz_factor: 1.0, is_capped: false };
        let at = |effort| CycleSetting { effort, hz: 10 };
        let surge = |from, to| Surge::of(Some(0.2), Some(&model), cost, 10_000_000, at(from), at(to));
        let raised = surge(1, 4);
        assert!((0.5..10.0).contains(&raised.left), "seconds of a core: {raised:?}");
        assert!(surge(1, 10).left > raised.left && surge(4, 1).left < surge(4, 7).left);
        let (mut left, steady) = (raised, model.cpu(at(4)));
        let judged = left.take_off(steady + raised.left / 10.0, steady, 5.0);
        assert!((judged - steady).abs() < 1e-9 && (left.left - raised.left / 2.0).abs() < 1e-9, "{left:?}");
        let judged = left.take_off(steady + raised.left, steady, 5.0);
        assert!((judged - steady - raised.left * 0.9).abs() < 1e-9, "{judged}: it is not removed again");
        assert_eq!((left.left, Surge::default().take_off(0.02, 0.0, 5.0)), (0.0, 0.02));
    }
}

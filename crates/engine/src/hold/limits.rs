//! Which limit the cycle breaks by what was measured, from the first observation after a write on.

use super::{
    alarms::{Broken, broken_limit},
    ceiling::{Ceiling, Seen},
    controller::Controller,
    model::Model,
    signals::Signals,
};
use crate::stale::{CycleSetting, Workload};

/// Part of an interval from which on an observation says what the cycle takes.
const WHOLE: f64 = 0.5;

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

    /// Returns the highest effort that keeps a broken limit. The server's own setting counts as dear as the stronger one: where its cost
    /// is unknown, it is measured first, before an effort is given up for long.
    pub(super) fn ceiling_below(
        &self,
        broken: &Broken,
        signals: &Signals,
        model: Option<&Model<'_>>,
        baseline: CycleSetting,
        found: CycleSetting,
        seen: Seen,
    ) -> Option<Ceiling> {
        let model = model.map(|model| Model { own_factor: 1.0, ..model.clone() });
        let certain = self.broken_by(signals, model.as_ref(), baseline, self.history.load?)?;
        let least = if certain.factor < broken.factor { &certain } else { broken };
        Some(least.ceiling(model.as_ref(), baseline, found, seen))
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

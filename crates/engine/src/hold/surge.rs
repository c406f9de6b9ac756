//! What a write makes the cycle remove once: the keys that the weaker setting had left. The seconds that this takes break no limit.

use super::model::Model;
use crate::stale::{CycleCost, CycleSetting};

/// Factor by which the seconds may exceed the predicted ones.
const GRAVE: f64 = 2.0;

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
    pub fn take_off(&mut self, load: f64, expected: f64, seconds: f64) -> f64 {
        let explained = ((load - expected) * seconds).clamp(0.0, self.left);
        self.left -= explained;
        load - explained / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stale::Workload;

    #[test]
    fn a_write_explains_what_it_makes_the_cycle_remove_and_no_more() {
        let workload = Workload::split(10_000.0, &[(10_000_000, 10_000_000, None)], 16);
        let cost = CycleCost::default();
        let model = Model::lawful(&workload);
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

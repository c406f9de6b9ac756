//! Which setting holds a target within an operator's limits, and the next single write towards it.

use super::{baseline::Parameter, model::Model, policy::Policy};
use crate::stale::{CycleSetting, HZ_STEP, LIMIT_PART, MARGIN, MAX_ADVISED_HZ, MAX_EFFORT, next_hz};

/// Part of a limit from which on the effort is raised by one at a time.
const NEAR: f64 = 0.8;
/// Most steps of the effort in one write.
const MAX_STEP: u8 = 3;
/// Difference of the share from which on a stronger setting is better.
const WORTH: f64 = 1e-3;

/// Limits of a search for a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Highest effort.
    pub max_effort: u8,
    /// Highest hz; `None`: hz stays.
    pub max_hz: Option<u32>,
    /// Longest additional stall of one cycle, seconds.
    pub added_stall: f64,
    /// Additional share of the main thread.
    pub added_cpu: f64,
}

/// The weakest setting that holds a target, or the best there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// The setting.
    pub setting: CycleSetting,
    /// Whether it holds the target with a margin.
    pub reaches: bool,
}

/// A search for a setting.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// The limits.
    pub limits: Limits,
    /// What settings hold.
    pub share: &'a Model<'a>,
    /// What settings cost.
    pub load: &'a Model<'a>,
    /// The server's own settings.
    pub baseline: CycleSetting,
    /// Share of all keys below which the stale keys are held.
    pub target: f64,
}

impl Limits {
    /// Returns the limits of a policy.
    pub fn of(policy: &Policy) -> Self {
        Self {
            max_effort: policy.max_effort,
            max_hz: policy.max_hz,
            added_stall: policy.max_added_stall_ms / 1e3,
            added_cpu: policy.max_added_cpu,
        }
    }

    /// Returns the limits that a server survives, whatever an operator allows.
    pub fn of_server() -> Self {
        Self {
            max_effort: MAX_EFFORT,
            max_hz: Some(MAX_ADVISED_HZ),
            added_stall: f64::INFINITY,
            added_cpu: f64::INFINITY,
        }
    }
}

impl Search<'_> {
    /// Returns the weakest setting at or above the current one that holds the target within the limits: the lowest hz, then the
    /// lowest effort. If none does, the one with the lowest share.
    pub fn goal(&self, current: CycleSetting) -> Goal {
        let mut best = (current, self.share.share(current));
        for hz in rates(current.hz, self.limits.max_hz) {
            for effort in current.effort..=self.limits.max_effort.max(current.effort) {
                let setting = CycleSetting { effort, hz };
                if setting != current && !self.is_within(setting) {
                    continue;
                }
                let share = self.share.share(setting);
                if share <= self.target * MARGIN {
                    return Goal { setting, reaches: true };
                }
                if share < best.1 - WORTH {
                    best = (setting, share);
                }
            }
        }
        Goal { setting: best.0, reaches: false }
    }

    /// Returns the next write towards a goal: hz first, since it shortens cycles, then at most three efforts, or one near a
    /// limit. `None`: the goal is reached, or no single write towards it is within the limits.
    pub fn next(&self, current: CycleSetting, goal: CycleSetting) -> Option<(Parameter, u32)> {
        if goal.hz > current.hz {
            let faster = CycleSetting { hz: goal.hz, ..current };
            return self.is_within(faster).then_some((Parameter::Hz, goal.hz));
        }
        let steps = (current.effort + 1..=goal.effort.min(current.effort + MAX_STEP)).rev();
        let setting =
            steps.map(|effort| CycleSetting { effort, ..current }).find(|setting| self.is_within(*setting))?;
        let is_near = self.part(setting) > NEAR;
        Some((Parameter::Effort, u32::from(if is_near { current.effort + 1 } else { setting.effort })))
    }

    /// Returns the write that lowers the current setting by one step towards the baseline, if the target is held then.
    pub fn lower(&self, current: CycleSetting) -> Option<(Parameter, u32)> {
        let holds = |setting: CycleSetting| self.share.share(setting) <= self.target * MARGIN;
        let weaker = CycleSetting { effort: current.effort.saturating_sub(1), ..current };
        if current.effort > self.baseline.effort && holds(weaker) {
            return Some((Parameter::Effort, u32::from(weaker.effort)));
        }
        let rarer = CycleSetting { hz: current.hz.saturating_sub(HZ_STEP).max(self.baseline.hz), ..current };
        let may = current.hz > self.baseline.hz && holds(rarer) && (rarer == self.baseline || self.is_within(rarer));
        may.then_some((Parameter::Hz, rarer.hz))
    }

    /// Whether a setting is within the limits, by what it would cost.
    pub fn is_within(&self, setting: CycleSetting) -> bool {
        self.part(setting) <= 1.0
    }

    /// Returns the part of the nearest limit that a setting takes: above 1 it must not be written.
    fn part(&self, setting: CycleSetting) -> f64 {
        let Self { limits, load, baseline, .. } = *self;
        let (taken, own) = (load.taken(setting), load.own(baseline));
        let added_stall = (taken.stall - own.stall) / limits.added_stall;
        let added_cpu = (taken.cpu - own.cpu) / limits.added_cpu;
        added_stall.max(added_cpu).max(taken.stall / (LIMIT_PART * load.cycle_limit(setting)))
    }
}

/// Returns the values of hz from the current one up to a limit.
fn rates(current: u32, max: Option<u32>) -> impl Iterator<Item = u32> {
    let first = next_hz(current);
    let last = max.filter(|max| *max > current);
    let steps = last.map(|max| (first..max).step_by(HZ_STEP as usize).chain([max]));
    std::iter::once(current).chain(steps.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stale::Workload;

    const E1: CycleSetting = CycleSetting { effort: 1, hz: 10 };

    fn workload(rate: f64) -> Workload {
        Workload::split(rate, &[(500_000, 500_000, None)], 16)
    }

    fn model(workload: &Workload) -> Model<'_> {
        Model::lawful(workload)
    }

    fn search<'a>(model: &'a Model<'a>, max_effort: u8, max_hz: Option<u32>) -> Search<'a> {
        let limits = Limits::of(&Policy { max_effort, max_hz, ..Policy::default() });
        Search { limits, share: model, load: model, baseline: E1, target: 0.08 }
    }

    #[test]
    fn the_weakest_effort_is_reached_in_steps_of_three() {
        let workload = workload(1_000.0);
        let model = model(&workload);
        let search = search(&model, 10, None);
        let goal = search.goal(E1);
        assert!(goal.reaches && goal.setting.hz == 10 && (6..=7).contains(&goal.setting.effort), "{goal:?}");
        assert_eq!(search.next(E1, goal.setting), Some((Parameter::Effort, 4)));
        let at = CycleSetting { effort: goal.setting.effort - 1, hz: 10 };
        assert_eq!(search.next(at, goal.setting), Some((Parameter::Effort, u32::from(goal.setting.effort))));
        assert_eq!(search.next(goal.setting, goal.setting), None);
    }

    #[test]
    fn hz_is_raised_only_with_consent_and_before_the_effort_that_would_stall() {
        let workload = workload(10_000.0);
        let model = model(&workload);
        let without = search(&model, 9, None).goal(E1);
        assert!(!without.reaches && without.setting.hz == 10, "{without:?}");
        assert!(model.taken(without.setting).stall - model.taken(E1).stall <= 0.001, "{without:?}");
        let with = search(&model, 9, Some(30));
        let goal = with.goal(E1);
        assert!(goal.reaches && goal.setting.hz > 10, "{goal:?}");
        assert_eq!(with.next(E1, goal.setting), Some((Parameter::Hz, goal.setting.hz)));
    }

    #[test]
    fn the_effort_is_raised_by_one_near_a_limit() {
        let workload = workload(10_000.0);
        let model = model(&workload);
        let at = |effort| model.taken(CycleSetting { effort, hz: 10 }).stall - model.taken(E1).stall;
        let next = |added_stall| {
            let limits = Limits { added_stall, ..search(&model, 10, None).limits };
            Search { limits, ..search(&model, 10, None) }.next(E1, CycleSetting { effort: 4, hz: 10 })
        };
        assert_eq!(next(at(4) * 1.1), Some((Parameter::Effort, 2)));
        assert_eq!(next(at(4) * 2.0), Some((Parameter::Effort, 4)));
    }

    #[test]
    fn a_setting_is_lowered_towards_the_baseline_and_never_below() {
        let workload = workload(10.0);
        let model = model(&workload);
        let search =
            Search { baseline: CycleSetting { effort: 3, hz: 20 }, target: 0.2, ..search(&model, 10, Some(50)) };
        let lower = |effort, hz| search.lower(CycleSetting { effort, hz });
        assert_eq!(lower(5, 50), Some((Parameter::Effort, 4)));
        assert_eq!(lower(3, 50), Some((Parameter::Hz, 40)));
        assert_eq!(lower(3, 25), Some((Parameter::Hz, 20)));
        assert_eq!(lower(3, 20), None);
    }

    #[test]
    fn values_of_hz_end_at_the_limit() {
        let values = |current, max| rates(current, max).collect::<Vec<_>>();
        assert_eq!(values(10, None), [10]);
        assert_eq!(values(10, Some(10)), [10]);
        assert_eq!(values(10, Some(35)), [10, 20, 30, 35]);
        assert_eq!(values(15, Some(20)), [15, 20]);
        assert_eq!(values(50, Some(20)), [50]);
    }

    #[test]
    fn a_repaired_fast_cycle_caps_the_share() {
        let workload = workload(10_000.0);
        let capped = Model { is_capped: true, ..model(&workload) };
        assert!((capped.share(E1) - 0.1).abs() < 1e-9 && model(&workload).share(E1) > 0.2);
    }
}

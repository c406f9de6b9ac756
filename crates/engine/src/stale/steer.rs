//! The weakest setting of the expiry cycle that holds a target.

use super::{
    cost::CycleCost,
    law::{CycleSetting, EFFORTS, MAX_EFFORT},
    workload::Workload,
};

/// Highest hz that is advised. The servers accept up to 500, and their manuals advise against more than 100.
pub const MAX_ADVISED_HZ: u32 = 100;
/// Longest cycle that is accepted before more, shorter cycles are advised, seconds.
pub const MAX_STALL: f64 = 0.002;
/// Values of hz that are advised are multiples of this.
pub(crate) const HZ_STEP: u32 = 10;
/// Part of its time limit that a cycle may take: beyond the limit the server adds fast cycles of up to half a core.
pub(crate) const LIMIT_PART: f64 = 0.5;

/// Returns the weakest setting at or above the current one, but not the current one itself, that holds `target` (a share of
/// all keys) in steady state: the lowest effort at the current hz, and a higher hz only to shorten cycles beyond
/// [`MAX_STALL`], or where the highest effort is not enough. `None`: none does.
pub fn weakest_setting(
    workload: &Workload,
    current: CycleSetting,
    target: f64,
    cost: CycleCost,
) -> Option<CycleSetting> {
    let holds = |setting: &CycleSetting| {
        *setting != current && workload.held_share(*setting) <= target && is_safe(workload, *setting, cost)
    };
    let is_short = |setting: &CycleSetting| workload.stall(*setting, cost) <= MAX_STALL;
    let at_current = EFFORTS
        .filter(|effort| *effort >= current.effort)
        .map(|effort| CycleSetting { effort, ..current })
        .find(|setting| workload.held_share(*setting) <= target && *setting != current);
    match at_current {
        Some(setting) if is_short(&setting) && is_safe(workload, setting, cost) => Some(setting),
        Some(setting) => faster(setting).find(|faster| holds(faster) && is_short(faster)),
        None => faster(CycleSetting { effort: MAX_EFFORT, ..current }).find(|setting| holds(setting)),
    }
}

/// Returns the lowest share of all keys that a setting which may be advised holds.
pub(super) fn best_share(workload: &Workload, current: CycleSetting, cost: CycleCost) -> f64 {
    let efforts = EFFORTS.filter(|effort| *effort >= current.effort);
    efforts
        .flat_map(|effort| {
            [CycleSetting { effort, ..current }].into_iter().chain(faster(CycleSetting { effort, ..current }))
        })
        .filter(|setting| is_safe(workload, *setting, cost))
        .map(|setting| workload.held_share(setting))
        .fold(workload.held_share(current), f64::min)
}

/// Returns the settings with the same effort and a higher hz, the lowest first.
fn faster(setting: CycleSetting) -> impl Iterator<Item = CycleSetting> {
    (next_hz(setting.hz)..=MAX_ADVISED_HZ).step_by(HZ_STEP as usize).map(move |hz| CycleSetting { hz, ..setting })
}

/// Returns the lowest hz above the current one that is advised.
pub(crate) fn next_hz(current: u32) -> u32 {
    (current / HZ_STEP + 1) * HZ_STEP
}

fn is_safe(workload: &Workload, setting: CycleSetting, cost: CycleCost) -> bool {
    workload.stall(setting, cost) <= LIMIT_PART * setting.cycle_limit()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The table of levers, which has no safety margin. `None`: no setting that may be advised holds the target.
    #[rstest]
    #[case(100.0, 0.05, Some((4, 10)))]
    #[case(100.0, 0.02, Some((10, 10)))]
    #[case(100.0, 0.01, Some((10, 50)))]
    #[case(1_000.0, 0.10, Some((4, 10)))]
    #[case(1_000.0, 0.05, Some((8, 10)))]
    #[case(1_000.0, 0.01, None)]
    #[case(10_000.0, 0.10, Some((6, 10)))]
    #[case(10_000.0, 0.05, Some((10, 30)))]
    #[case(10_000.0, 0.02, None)]
    #[case(10_000.0, 0.01, None)]
    #[case(10.0, 0.02, Some((2, 10)))]
    fn the_weakest_lever_is_that_of_the_table(
        #[case] rate: f64,
        #[case] target: f64,
        #[case] expected: Option<(u8, u32)>,
    ) {
        let workload = Workload::split(rate, &[(500_000, 500_000, None)], 16);
        let found = weakest_setting(&workload, CycleSetting::default(), target, CycleCost::default());
        let near = |one: u32, other: u32| one.abs_diff(other) <= 20;
        match (found, expected) {
            (Some(found), Some((effort, hz))) => {
                assert!(found.effort.abs_diff(effort) <= 1 && near(found.hz, hz), "{found:?} instead of {expected:?}");
                assert!(workload.held_share(found) <= target);
            }
            (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_advice_is_stronger_than_what_is_set() {
        let workload = Workload::split(1_000.0, &[(500_000, 500_000, None)], 16);
        let next =
            |effort, hz, target| weakest_setting(&workload, CycleSetting { effort, hz }, target, CycleCost::default());
        assert_eq!(next(5, 10, 0.5), Some(CycleSetting { effort: 6, hz: 10 }));
        assert_eq!(next(10, 10, 0.5), Some(CycleSetting { effort: 10, hz: 20 }));
        assert_eq!(next(10, 100, 0.5), None);
        assert_eq!(next(10, 95, 0.5), Some(CycleSetting { effort: 10, hz: 100 }));
    }

    #[test]
    fn a_cycle_near_its_time_limit_is_not_raised() {
        let workload = Workload::split(10_000.0, &[(500_000, 500_000, None)], 16);
        let slow = CycleCost { visit: 10e-6, removal: 20e-6 };
        assert_eq!(weakest_setting(&workload, CycleSetting::default(), 0.05, slow), None);
        let best = best_share(&workload, CycleSetting::default(), slow);
        assert_eq!(best, workload.held_share(CycleSetting::default()), "nothing better is safe");
    }

    #[test]
    fn long_cycles_are_shortened_by_more_of_them() {
        let workload = Workload::split(10_000.0, &[(500_000, 500_000, None)], 16);
        let setting =
            weakest_setting(&workload, CycleSetting::default(), 0.06, CycleCost::default()).expect("a setting");
        assert!(setting.hz > 10 && workload.stall(setting, CycleCost::default()) <= MAX_STALL, "{setting:?}");
    }
}

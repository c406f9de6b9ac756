//! Sentences about holding a target, for people: what is done, why, and what would help.

use super::{
    action::Outcome,
    goal::{Goal, Limits, Search},
    model::Model,
    policy::{MAX_ADDED_CPU, MAX_ADDED_STALL_MS, Policy},
};
use crate::stale::{CycleSetting, Share, interval_from_rate, percent};

/// Formats a sample with its interval.
pub fn sampled(share: Share) -> String {
    format!("{} ({:.1} to {:.1} %) are stale", percent(share.share), share.low * 100.0, share.high * 100.0)
}

/// Formats a setting.
pub fn setting(setting: CycleSetting) -> String {
    format!("effort {} at hz {}", setting.effort, setting.hz)
}

/// Says that the server's own settings are restored, and why.
pub fn restoring(reason: &str, baseline: CycleSetting) -> String {
    format!("{reason}; the server's own settings, {}, are restored", setting(baseline))
}

/// Says that a setting of others is left.
pub fn left(found: CycleSetting) -> String {
    format!("{} was set by others and is left", setting(found))
}

/// Says what became of a restore for which this is the reason. `own`: the server's own settings. `remark`: for the operator.
pub fn restored(reason: String, outcome: &Outcome, own: Option<CycleSetting>, remark: &str) -> String {
    match outcome {
        Outcome::Done(found) if own.is_some_and(|own| own != *found) => left(*found) + remark,
        Outcome::Done(_) => reason + remark,
        Outcome::Failed(cause) | Outcome::PutBack(cause) => {
            format!("the server's own settings are not restored: {cause}")
        }
        Outcome::Unknown => "the server's own settings may not be restored yet: the connection broke".to_owned(),
    }
}

/// Says what would hold a target that is not held within the limits of a policy.
pub fn remedy(model: &Model<'_>, policy: &Policy, baseline: CycleSetting, current: CycleSetting) -> String {
    let search = Search { limits: Limits::of_server(), share: model, load: model, baseline, target: policy.below };
    let Goal { setting: best, reaches } = search.goal(current);
    if !reaches {
        let scans = interval_from_rate(policy.below, model.workload.keys(), model.workload.rate());
        let scans = scans
            .map(|seconds| format!("; scans every {} would, if each takes a quarter of it at most", time(seconds)));
        return format!("no setting holds it, the best is {}{}", percent(model.share(best)), scans.unwrap_or_default());
    }
    let mut limits = Vec::new();
    if best.effort > policy.max_effort {
        limits.push(format!("max_effort {}", best.effort));
    }
    if best.hz > current.hz.max(policy.max_hz.unwrap_or(0)) {
        limits.push(format!("max_hz {}", best.hz));
    }
    let (taken, own) = (model.taken(best), model.own(baseline));
    let (stall, cpu) = (taken.stall - own.stall, taken.cpu - own.cpu);
    if stall * 1e3 > policy.max_added_stall_ms {
        limits.push(stall_limit(stall));
    }
    if cpu > policy.max_added_cpu {
        limits.push(cpu_limit(cpu));
    }
    let allow = if limits.is_empty() { String::new() } else { format!("; it takes {}", limits.join(", ")) };
    format!("{} would hold {}{allow}", setting(best), percent(model.share(best)))
}

/// Names the limit that allows an additional stall of so many seconds.
pub fn stall_limit(seconds: f64) -> String {
    limit("max_added_stall", seconds * 1e3, "ms", MAX_ADDED_STALL_MS)
}

/// Names the limit that allows an additional share of the main thread.
pub fn cpu_limit(share: f64) -> String {
    limit("max_added_cpu", share * 1e2, "%", MAX_ADDED_CPU * 1e2)
}

/// Names a limit with its value, rounded up, and the most that a policy may have where that is less.
fn limit(name: &str, needed: f64, unit: &str, most: f64) -> String {
    let needed = (needed * 10.0).ceil() / 10.0;
    let beyond = if needed > most { format!(" (at most {most} {unit} can be set)") } else { String::new() };
    format!("{name} {needed:.1} {unit}{beyond}")
}

/// Formats seconds in whole minutes or hours, rounded down.
fn time(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 3_600, seconds / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, _) => format!("{hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stale::Workload;

    const E1: CycleSetting = CycleSetting { effort: 1, hz: 10 };

    fn remedy_at(rate: f64, below: f64) -> String {
        let workload = Workload::split(rate, &[(500_000, 500_000, None)], 16);
        let model = Model::lawful(&workload);
        remedy(&model, &Policy { below, ..Policy::default() }, E1, CycleSetting { effort: 4, hz: 10 })
    }

    #[test]
    fn what_would_hold_the_target_is_named_with_the_limits_that_it_takes() {
        let sentence = remedy_at(20_000.0, 0.1);
        assert!(
            sentence.starts_with("effort 9 at hz 10 would hold") && sentence.contains("max_effort 9"),
            "{sentence}"
        );
        assert!(sentence.contains("max_added_stall 2."), "{sentence}");
    }

    #[test]
    fn a_limit_that_no_policy_can_have_is_said_to_be_one() {
        assert_eq!(stall_limit(0.00123), "max_added_stall 1.3 ms");
        assert_eq!(stall_limit(0.0123), "max_added_stall 12.3 ms (at most 10 ms can be set)");
        assert_eq!(cpu_limit(0.2), "max_added_cpu 20.0 %");
        assert_eq!(cpu_limit(0.25), "max_added_cpu 25.0 % (at most 20 % can be set)");
    }

    #[test]
    fn where_no_setting_holds_it_scans_are_named() {
        let sentence = remedy_at(50_000.0, 0.02);
        assert!(
            sentence.contains("no setting holds it, the best is") && sentence.contains("scans every"),
            "{sentence}"
        );
    }
}

//! How a controller decides in steady state: by the law, or by samples where there is none.

use super::{
    action::{Action, Decision},
    baseline::Parameter,
    ceiling::Ceiling,
    controller::{Controller, SCANS_A_DAY},
    goal::{Limits, Search},
    model::Model,
    sentences::{remedy, restoring, sampled, setting as shown},
    signals::Signals,
    state::HoldState,
};
use crate::stale::{CycleSetting, LIMIT_PART, MIN_SAMPLED_KEYS, Share, Workload, is_batch, percent};

/// Intervals after which the first measurement of the cost is not waited upon.
const RECENT: f64 = 1.5;
/// Part of the target above which the expected share is lowered.
const TRIGGER: f64 = 0.95;
/// Keys with a TTL below which nothing is worth holding.
const MIN_HELD: u64 = 3_000;
/// Seconds without a law after which a raised setting is restored where there are no samples either.
const LAWLESS: f64 = 3_600.0;
/// Factor by which one step of the effort raises the load where no law predicts it, at most.
const STEP_LOAD: f64 = 1.5;

/// What a decision in steady state rests on.
pub struct Basis<'a> {
    /// The time, seconds.
    pub now: f64,
    /// The observation.
    pub signals: &'a Signals,
    /// The settings that were found.
    pub found: CycleSetting,
    /// The server's own settings.
    pub baseline: CycleSetting,
    /// The last sample, if nothing was changed since.
    pub fresh: Option<Share>,
}

/// Says that more is stale than the cycle would leave.
fn exceeding(share: Share, expected: f64) -> String {
    format!("{}, and the cycle would hold {}", sampled(share), percent(expected))
}

/// Decides to scan: raised on a backlog, the cycle would block clients for long.
fn batch(share: Share, expected: f64) -> Decision {
    let sentence = format!("{}: a batch has expired", exceeding(share, expected));
    Decision { action: Action::Scan, ..Decision::stay(HoldState::Scanning, sentence) }
}

/// Says that no scan is left for a batch. Nothing is raised on it either.
fn used_up(share: Share, expected: f64) -> Decision {
    let sentence = format!("{}; {SCANS_A_DAY} scans a day are used up", exceeding(share, expected));
    Decision::stay(HoldState::CannotHold, sentence)
}

impl Controller {
    /// Decides by the law.
    pub(super) fn by_law(&mut self, basis: &Basis<'_>, model: &Model<'_>) -> Decision {
        let Basis { now, signals, found, baseline, fresh } = *basis;
        self.lawless_since = None;
        let (below, expected) = (self.policy.below, model.share(found));
        let Some((low, high)) = self.history.range() else {
            return Decision::stay(HoldState::Measuring, "how many keys expire a second is being measured");
        };
        if !self.has_sampled(signals) {
            return Decision::stay(HoldState::Measuring, self.no_sample());
        }
        if let Some(share) = fresh.filter(|share| share.share > below && is_batch(share.low, expected)) {
            return match self.may_scan(now) {
                true => batch(share, expected),
                false if self.has_scans_left(now) => Decision::stay(
                    HoldState::Measuring,
                    format!("{}; the last scan is too recent", exceeding(share, expected)),
                ),
                false => used_up(share, expected),
            };
        }
        let at = |rate: f64| Workload::split(rate, &signals.databases, signals.configured_databases);
        // Two rates have to agree: one spike of expiring keys changes nothing. The costs are those of the higher rate.
        let (fewer, more) = (at(low), at(high));
        let (fewer, more) = (Model { workload: &fewer, ..model.clone() }, Model { workload: &more, ..model.clone() });
        let limits = Limits { max_effort: self.max_effort(now, found), ..Limits::of(&self.policy) };
        let search = |share| Search { limits, share, load: &more, baseline, target: below };
        if fewer.share(found) > below * TRIGGER {
            let search = search(&fewer);
            if let Some(write) = search.next(found, search.goal(found).setting) {
                // A cycle that takes too little to be measured again delays nothing.
                if self.learned.is_new(now - RECENT * self.policy.interval().as_secs_f64()) {
                    return Decision::stay(HoldState::Measuring, "what the cycle takes is measured once more");
                }
                let next = write.0.with(found, write.1);
                let reason = format!(
                    "{low:.0} keys expire a second: {} holds {}, {} would hold {}",
                    shown(found),
                    percent(expected),
                    shown(next),
                    percent(fewer.share(next))
                );
                return Decision::write(found, write, reason);
            }
        } else if more.share(found) < below / 2.0
            && fresh.is_none_or(|share| share.high < below / 2.0)
            && let Some(write) = search(&more).lower(found)
        {
            let next = write.0.with(found, write.1);
            let reason = format!(
                "about {} are stale, below half of the target: {} holds {}",
                percent(more.share(found)),
                shown(next),
                percent(more.share(next))
            );
            return Decision::write(found, write, reason);
        }
        self.stay(basis, model, expected)
    }

    /// Keeps the setting: the target is held, or the limits are reached.
    fn stay(&mut self, basis: &Basis<'_>, model: &Model<'_>, expected: f64) -> Decision {
        let Basis { now, found, baseline, fresh, .. } = *basis;
        let below = self.policy.below;
        let share = fresh.map_or_else(|| format!("about {} are stale", percent(expected)), sampled);
        if fresh.map_or(expected, |share| share.share) <= below {
            self.held();
            let without = match found == baseline {
                true => String::new(),
                false => format!("; it would be {} at {}", percent(model.share(baseline)), shown(baseline)),
            };
            let sentence = format!("{share}, below {}, at {}{without}", percent(below), shown(found));
            return Decision::stay(HoldState::Holding, sentence);
        }
        let sentence = format!("{share}, above {}, at {}", percent(below), shown(found));
        if !self.missed(now) {
            return Decision::stay(HoldState::Measuring, sentence);
        }
        let remedy = remedy(model, &self.policy, baseline, found);
        let seen =
            self.standing_ceiling(now, found).map(|ceiling| format!("; {}", ceiling.sentence)).unwrap_or_default();
        Decision::stay(HoldState::CannotHold, format!("{sentence}: the limits are reached; {remedy}{seen}"))
    }

    /// Returns the effort that is not exceeded, if a limit was broken above it.
    fn standing_ceiling(&self, now: f64, found: CycleSetting) -> Option<&Ceiling> {
        let (_, rate) = self.history.range()?;
        self.ceiling.as_ref().filter(|ceiling| ceiling.stands(now, found.hz, rate))
    }

    /// Returns the highest effort that may be written.
    fn max_effort(&self, now: f64, found: CycleSetting) -> u8 {
        let ceiling = self.standing_ceiling(now, found).map_or(u8::MAX, |ceiling| ceiling.effort);
        self.policy.max_effort.min(ceiling)
    }

    /// Decides where no law predicts the share: in steps of one, by what samples say. `model`: where what the cycle takes is
    /// predicted nevertheless.
    pub(super) fn by_measurement(&mut self, basis: &Basis<'_>, model: Option<&Model<'_>>) -> Decision {
        let Basis { now, signals, found, baseline, fresh } = *basis;
        let (below, (keys, with_ttl)) = (self.policy.below, signals.keys());
        // Bursts of keys that expire come and go, and with them the law.
        let lawless_since = *self.lawless_since.get_or_insert(now);
        let few = match (with_ttl < MIN_HELD, keys < MIN_SAMPLED_KEYS) {
            (true, _) => Some((format!("{with_ttl} keys with a TTL are too few to matter"), true)),
            (false, true) => {
                let sentence = format!("no law predicts the share here, and {keys} keys are too few for samples");
                Some((sentence, now - lawless_since >= LAWLESS))
            }
            (false, false) => None,
        };
        if let Some((sentence, is_lasting)) = few {
            return match (found == baseline, is_lasting) {
                (true, _) => Decision::stay(HoldState::Holding, sentence),
                (false, false) => Decision::stay(HoldState::Measuring, sentence),
                // Without samples the settings would never be lowered.
                (false, true) => Decision::restore(HoldState::Restoring, restoring(&sentence, baseline)),
            };
        }
        let Some(share) = fresh else {
            let sentence = format!("how the share follows the settings is unknown here, and {}", self.no_sample());
            return Decision::stay(HoldState::Measuring, sentence);
        };
        let expected = model.map(|model| model.share(found)).filter(|expected| is_batch(share.low, *expected));
        match expected.filter(|_| share.share > below) {
            Some(expected) if self.may_scan(now) => return batch(share, expected),
            Some(expected) if !self.has_scans_left(now) => return used_up(share, expected),
            _ => {}
        }
        let step = |effort: u8, why: &str| {
            let next = CycleSetting { effort, ..found };
            let reason = format!("{}, {why}, where no law holds: one step to {}", sampled(share), shown(next));
            Decision::write(found, (Parameter::Effort, u32::from(effort)), reason)
        };
        let max_effort = self.max_effort(now, found);
        let may_raise = found.effort < max_effort && self.is_step_light(basis, model);
        // One sample scatters, several in a row do not.
        if (share.low > below || (share.share > below && self.missed(now))) && may_raise {
            return step(found.effort + 1, "above the target");
        }
        if share.high < below / 2.0
            && found.effort > baseline.effort
            && self.share.is_some_and(|(at, _)| self.has_followed(at, signals))
        {
            return step(found.effort - 1, "below half of the target");
        }
        if share.share <= below {
            self.held();
            let sentence = format!("{}, below {}, at {}", sampled(share), percent(below), shown(found));
            return Decision::stay(HoldState::Holding, sentence);
        }
        let state = if self.missed(now) { HoldState::CannotHold } else { HoldState::Measuring };
        if may_raise {
            let sentence = format!("{}, about {}: the next sample decides", sampled(share), percent(below));
            return Decision::stay(HoldState::Measuring, sentence);
        }
        let remedy = match found.effort < max_effort {
            true => "the next effort takes a higher max_added_stall or max_added_cpu".to_owned(),
            false => format!("effort {max_effort} is the highest that they allow"),
        };
        Decision::stay(state, format!("{}, above {}: the limits are reached; {remedy}", sampled(share), percent(below)))
    }

    /// Whether an effort higher by one keeps the limits. Without a model of the cost all that the cycle takes counts.
    fn is_step_light(&self, basis: &Basis<'_>, model: Option<&Model<'_>>) -> bool {
        let Basis { signals, found, baseline, .. } = *basis;
        let next = CycleSetting { effort: found.effort.saturating_add(1), ..found };
        let Some(model) = model else {
            let load = self.history.load.unwrap_or(f64::INFINITY) * STEP_LOAD;
            let stall = load / f64::from(signals.hz.unwrap_or(10));
            return stall * 1e3 <= self.policy.max_added_stall_ms
                && load <= self.policy.max_added_cpu
                && stall <= LIMIT_PART * next.cycle_limit();
        };
        let Some((_, rate)) = self.history.range() else { return false };
        let workload = Workload::split(rate, &signals.databases, signals.configured_databases);
        let load = Model { workload: &workload, ..model.clone() };
        let limits = Limits::of(&self.policy);
        Search { limits, share: &load, load: &load, baseline, target: self.policy.below }.is_within(next)
    }
}

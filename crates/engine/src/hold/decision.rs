//! How a controller decides: first whether anything may be held now, then how.

use super::{
    action::{Action, Decision, Scan},
    alarms::{Broken, REPEATED},
    baseline::{Baseline, Parameter},
    ceiling::{Ceiling, Seen},
    controller::Controller,
    model::Model,
    policy::Level,
    sentences::{left, restoring, sampled, setting as shown},
    signals::Signals,
    state::HoldState,
    steady::Basis,
    times::{DAY, within_a_day},
};
use crate::stale::{CycleSetting, HZ_STEP};

/// Seconds with the server's own settings after a limit was broken.
const BACK_OFF: f64 = 600.0;
/// Settings that are raised or lowered a day, at most.
const WRITES_A_DAY: usize = 12;

impl Controller {
    /// Decides what to do now.
    pub(super) fn decide(&mut self, now: f64, signals: &Signals, model: Option<&Model<'_>>) -> Decision {
        let Some(found) = signals.configured else {
            let sentence = "active-expire-effort or hz cannot be read; grant +config|get, on Redis 6.0 or later";
            return Decision::stay(HoldState::Measuring, sentence);
        };
        let baseline = self.baseline.as_ref().map_or(found, Baseline::setting);
        let differs = found != baseline;
        let is_off = self.policy.level == Level::Observe;
        let restore = |state, reason: &str| {
            let sentence = restoring(reason, baseline);
            match signals.may_write {
                true => Decision::restore(state, sentence),
                false => Decision::stay(state, format!("{sentence} once changes can be recorded")),
            }
        };
        match (is_off, differs) {
            (true, true) if self.has_left || self.is_restored => {
                return Decision::stay(HoldState::Off, left(found));
            }
            (true, true) => return restore(HoldState::Restoring, "holding ends"),
            // A server that was restarted has its own settings again, and its record is to say so: what an operator sets later is
            // not what keysweep left.
            (true, false) if self.has_to_restore() && signals.may_write => {
                return Decision::restore(HoldState::Off, "nothing is held");
            }
            (true, false) => return Decision::stay(HoldState::Off, "nothing is held"),
            (false, _) if self.is_foreign => {
                let sentence = format!(
                    "{} was found, which is neither the server's own setting nor what keysweep wrote last; nothing is written \
                     until the settings are restored",
                    shown(found)
                );
                return Decision::stay(HoldState::Foreign, sentence);
            }
            (false, _) if !signals.is_informed() => {
                let sentence = "INFO is refused; grant +info";
                return match differs {
                    true => restore(HoldState::Restoring, sentence),
                    false => Decision::stay(HoldState::Measuring, sentence),
                };
            }
            (false, true) if !signals.is_primary => {
                return restore(HoldState::Restoring, "the node is no longer a primary");
            }
            (false, false) if !signals.is_primary => {
                return Decision::stay(HoldState::Measuring, "the node is a replica, where nothing expires");
            }
            _ => {}
        }
        if !signals.may_write && self.policy.level == Level::Hold {
            let sentence = "changes cannot be recorded now, so that nothing is written";
            return Decision::stay(HoldState::Measuring, sentence);
        }
        let no_write = match (self.policy.level, self.learned.misfits(now)) {
            (Level::Hold, false) => None,
            (Level::Hold, true) => Some("the model does not fit this server"),
            _ => Some("the level is advise"),
        };
        if let Some(reason) = no_write.filter(|_| differs) {
            return restore(HoldState::Restoring, reason);
        }
        let model = model.filter(|model| self.has_cost(model.workload));
        let broken = self.broken_limit(now, signals, model, baseline, found);
        let is_settling = now < self.settle_until;
        // One interval a little above a limit is chance, or a rise of the load that a higher hz spreads.
        let is_repeated = !is_settling && self.broken >= REPEATED;
        let grave = broken.as_ref().filter(|broken| is_repeated || broken.is_grave());
        // What a write makes the cycle remove counts as expired.
        let rate = match is_settling {
            true => self.history.range().map(|(low, _)| low),
            false => self.history.rate(),
        };
        let seen = Seen::now(now, rate.unwrap_or(0.0), &self.policy);
        let below = grave.and_then(|broken| self.ceiling_below(broken, signals, model, baseline, found, seen));
        let is_capped = differs && self.history.capped >= REPEATED;
        let capped = is_capped.then(|| Ceiling::below_time_limit(baseline, found, seen));
        self.ceiling = below.or(capped).or(self.ceiling.take());
        let grave = grave.map(|broken| broken.sentence.clone());
        let alarm = self.alarms.check(signals, &self.history, differs).or(grave);
        if let Some(reason) = alarm.clone().filter(|_| differs) {
            self.back_off = Some((now + BACK_OFF, reason));
        }
        if let Some((until, reason)) = self.back_off.clone() {
            if differs {
                return restore(HoldState::BackingOff, &reason);
            }
            if now < until {
                let sentence = format!("{reason}; the server keeps its own settings for {:.0} s more", until - now);
                return Decision::stay(HoldState::BackingOff, sentence);
            }
            self.back_off = None;
        }
        if let Some(write) = self.beyond_policy(now, found, baseline) {
            let reason = "the policy allows less than was written".to_owned();
            return match self.has_writes_left(now, 0) {
                true => Decision::write(found, write, reason),
                false => restore(HoldState::Restoring, &reason),
            };
        }
        match self.scan {
            Scan::Asked(_) => {
                let sentence = "a batch has expired, and its scan waits for its turn; nothing is raised meanwhile";
                return Decision::stay(HoldState::Scanning, sentence);
            }
            Scan::Running => {
                return Decision::stay(HoldState::Scanning, "a scan runs, after which the share is sampled");
            }
            Scan::None | Scan::Ended(_) => {}
        }
        if is_settling {
            let sentence = format!("the share follows a change for {:.0} s more", self.settle_until - now);
            return Decision::stay(HoldState::Settling, self.failure.clone().unwrap_or(sentence));
        }
        if let Some(relief) = broken.as_ref().and_then(|broken| self.relief(found, broken)) {
            return self.allowed(now, relief, no_write);
        }
        let fresh = self.fresh_share(now, signals);
        if let Some(reason) = alarm {
            let sentence = format!("{reason}; nothing is raised meanwhile");
            // What does not pass keeps the share above the target.
            return match fresh.filter(|share| share.low > self.policy.below) {
                Some(share) if self.missed(now) => {
                    Decision::stay(HoldState::CannotHold, format!("{}: {sentence}", sampled(share)))
                }
                _ => Decision::stay(HoldState::Measuring, sentence),
            };
        }
        let basis = Basis { now, signals, found, baseline, fresh };
        let decision = match model {
            Some(model) if self.has_law(model.workload) => self.by_law(&basis, model),
            Some(model) => self.by_measurement(&basis, Some(model)),
            None if self.history.rate().is_none() && !self.history.has_field_ttls => {
                Decision::stay(HoldState::Measuring, "how many keys expire a second is being measured")
            }
            None => self.by_measurement(&basis, None),
        };
        self.allowed(now, decision, no_write)
    }

    /// Returns the write that shortens cycles which block clients for too long: a higher hz, where the operator consents to it.
    fn relief(&self, found: CycleSetting, broken: &Broken) -> Option<Decision> {
        let needed = (f64::from(found.hz) * broken.relieving?).ceil() as u32;
        let hz = needed.next_multiple_of(HZ_STEP).min(self.policy.max_hz?);
        let faster = CycleSetting { hz, ..found };
        let reason = format!("{}: {} makes it shorter", broken.sentence, shown(faster));
        (hz > found.hz).then(|| Decision::write(found, (Parameter::Hz, hz), reason))
    }

    /// Returns the write that brings a setting within a policy that allows less than was written, once an earlier write has
    /// taken effect.
    fn beyond_policy(&self, now: f64, found: CycleSetting, baseline: CycleSetting) -> Option<(Parameter, u32)> {
        let max_effort = self.policy.max_effort.max(baseline.effort);
        let max_hz = self.policy.max_hz.unwrap_or(0).max(baseline.hz);
        // A write that failed is not tried again at once either.
        let has_failed = self.failure.is_some() && now < self.settle_until;
        // An earlier holder may have written last.
        let changed_at = self.writes.back().map_or(self.changed_at, |written_at| written_at.max(self.changed_at));
        if found == baseline || has_failed || now - changed_at < self.floor() {
            return None;
        }
        match (found.effort > max_effort, found.hz > max_hz) {
            (true, _) => Some((Parameter::Effort, u32::from(max_effort))),
            (false, true) => Some((Parameter::Hz, max_hz)),
            (false, false) => None,
        }
    }

    /// Whether more than so many of the changes of a day are left.
    fn has_writes_left(&self, now: f64, reserve: usize) -> bool {
        within_a_day(&self.writes, now) + reserve < WRITES_A_DAY
    }

    /// Turns what may not be done into advice.
    fn allowed(&mut self, now: f64, decision: Decision, no_write: Option<&str>) -> Decision {
        let advice = |state, why: String| Decision {
            state,
            sentence: format!("{}; not done, since {why}", decision.sentence),
            action: Action::None,
            advised: decision.advised,
        };
        // The last one is kept for a setting that turns out to break a limit.
        let is_raise =
            matches!(decision.action, Action::Write { parameter, from, value } if value > parameter.of(from));
        match (&decision.action, no_write) {
            (Action::Write { .. } | Action::Scan, Some(why)) => advice(HoldState::Advising, why.to_owned()),
            (Action::Write { .. }, None) if !self.has_writes_left(now, usize::from(is_raise)) => {
                // The target is held where it would be lowered.
                let state = if is_raise { HoldState::CannotHold } else { HoldState::Holding };
                advice(state, format!("{WRITES_A_DAY} changes a day are used up"))
            }
            (Action::Scan, None) => {
                self.scan = Scan::Asked(now);
                self.scans.retain(|at| now - at < DAY);
                self.scans.push_back(now);
                self.history.await_scan();
                decision
            }
            _ => decision,
        }
    }
}

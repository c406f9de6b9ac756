//! Decides, from one observation to the next, what to do about one primary. Pure: signals and times in, decisions out.

use std::collections::VecDeque;

use super::{
    action::{Action, Decision, Intention, Scan},
    alarms::Alarms,
    baseline::Baseline,
    ceiling::Ceiling,
    history::History,
    learned::Learned,
    model::Model,
    policy::{Level, Policy},
    signals::Signals,
    state::HoldStatus,
    surge::Surge,
    times::{Times, within_a_day},
};
use crate::stale::{CycleSetting, MIN_CYCLE_SECONDS, MIN_SAMPLED_KEYS, Share, Workload, is_batch, reversion_seconds};

/// Seconds between two scans of batches.
const SCAN_INTERVAL: f64 = 600.0;
/// A share has followed a change after so many time constants.
pub(super) const FOLLOWED: f64 = 3.0;
/// Scans of batches that are asked for a day, at most: where the share comes back behind each, they would go on for ever.
pub(super) const SCANS_A_DAY: usize = 24;
/// Settled samples above the target after which it cannot be held.
const MISSED: u32 = 2;

/// Holds one primary below a target.
#[derive(Debug, Clone)]
pub struct Controller {
    pub(super) policy: Policy,
    pub(super) history: History,
    pub(super) run_id: Option<String>,
    pub(super) baseline: Option<Baseline>,
    pub(super) learned: Learned,
    pub(super) alarms: Alarms,
    pub(super) share: Option<(f64, Share)>,
    /// A sample that was taken for the next step.
    pub(super) sample: Option<Share>,
    pub(super) sampled_at: Option<f64>,
    /// When and why the server refused to be sampled last, if that is newer than the last sample.
    pub(super) unsampled: Option<(f64, String)>,
    pub(super) changed_at: f64,
    pub(super) settle_until: f64,
    pub(super) back_off: Option<(f64, String)>,
    /// Successive quiet intervals in which a limit was broken.
    pub(super) broken: u32,
    /// What the last write makes the cycle remove once.
    pub(super) surge: Surge,
    /// Highest effort that keeps the limits, learned from one that broke them.
    pub(super) ceiling: Option<Ceiling>,
    /// When something was written, within the last day, by this holder or an earlier one.
    pub(super) writes: VecDeque<f64>,
    /// What is being written: the last of these times counts it already.
    pub(super) intended: Option<Intention>,
    pub(super) scan: Scan,
    /// When scans were asked for within the last day.
    pub(super) scans: VecDeque<f64>,
    /// Settled samples above the target while no write would help, and the time of the last.
    pub(super) missed: (u32, f64),
    /// Since when no law has predicted the share.
    pub(super) lawless_since: Option<f64>,
    /// Why the last write failed.
    pub(super) failure: Option<String>,
    pub(super) is_foreign: bool,
    /// Whether a restore has left a value of someone else.
    pub(super) has_left: bool,
    /// Whether the settings to be found follow a finished restore, so that what keysweep never wrote is the server's own.
    pub(super) is_finished: bool,
    /// Whether the settings to be found are those that a new process of the server began with.
    pub(super) is_new_process: bool,
    /// Whether nothing is left to restore: what is found was set by others.
    pub(super) is_restored: bool,
    /// The server process that an earlier holder wrote to last.
    pub(super) recorded_run: String,
}

impl Controller {
    /// Returns a controller that has seen nothing yet. `baseline`: as recorded by an earlier holder; `is_finished`: which has
    /// restored it, or left values of others.
    pub fn new(policy: Policy, baseline: Option<Baseline>, is_finished: bool) -> Self {
        Self {
            policy,
            history: History::default(),
            run_id: None,
            baseline,
            learned: Learned::default(),
            alarms: Alarms::default(),
            share: None,
            sample: None,
            sampled_at: None,
            unsampled: None,
            changed_at: f64::NEG_INFINITY,
            settle_until: f64::NEG_INFINITY,
            back_off: None,
            broken: 0,
            surge: Surge::default(),
            ceiling: None,
            writes: VecDeque::new(),
            intended: None,
            scan: Scan::None,
            scans: VecDeque::new(),
            missed: (0, f64::NEG_INFINITY),
            lawless_since: None,
            failure: None,
            is_foreign: false,
            has_left: false,
            is_finished,
            is_new_process: false,
            is_restored: is_finished,
            recorded_run: String::new(),
        }
    }

    /// Continues with the times of an earlier holder, which wrote to this process of the server last.
    pub fn after(mut self, times: Times, run_id: &str) -> Self {
        let Times { writes, settle_until, back_off_until, ceiling, cost } = times;
        self.learned = Learned::recalled(cost);
        self.recorded_run = run_id.to_owned();
        self.ceiling = ceiling.filter(|ceiling| ceiling.is_of(&self.policy));
        (self.writes, self.settle_until) = (writes, settle_until);
        self.back_off = Some((back_off_until, "an earlier holder has backed off".into()));
        self
    }

    /// Returns the times with which the next holder continues.
    pub fn times(&self) -> Times {
        Times {
            writes: self.writes.clone(),
            settle_until: self.settle_until,
            back_off_until: self.back_off.as_ref().map_or(f64::NEG_INFINITY, |(until, _)| *until),
            ceiling: self.ceiling.clone(),
            cost: self.learned.own_cost(),
        }
    }

    /// Replaces the policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        // Other limits, other efforts.
        (self.ceiling, self.broken) = (None, 0);
        if self.has_left && policy.level != Level::Observe {
            (self.has_left, self.is_finished) = (false, true);
        }
        self.held();
    }

    /// Returns the baseline with what was written over it; `None`: nothing was read yet.
    pub fn baseline(&self) -> Option<&Baseline> {
        self.baseline.as_ref()
    }

    /// Decides.
    pub fn step(&mut self, now: f64, signals: &Signals) -> (HoldStatus, Action) {
        let signals = signals.clone().sane();
        if self.run_id.as_ref() != Some(&signals.run_id) {
            self.begin(now, &signals);
        }
        self.history.observe(now, &signals);
        self.follow_scan(now, &signals);
        self.compare(&signals);
        let workload =
            self.history.rate().map(|rate| Workload::split(rate, &signals.databases, signals.configured_databases));
        self.learn(now, &signals, workload.as_ref());
        // With its own settings no limit can be broken, and what the cycle takes is known before the first raise.
        let has_own = signals.configured == self.baseline.as_ref().map(Baseline::setting);
        if has_own {
            self.calibrate(now, &signals, workload.as_ref());
        }
        let model = workload.as_ref().map(|workload| self.model(&signals, workload));
        let baseline = self.baseline.as_ref().map(Baseline::setting);
        let law = model.as_ref().filter(|model| self.has_law(model.workload));
        let share_at = |setting: Option<CycleSetting>| Some(law?.share(setting?));
        let (expected, without) = (share_at(signals.configured), share_at(baseline));
        let Decision { state, sentence, action, advised } = self.decide(now, &signals, model.as_ref());
        if let Action::Write { parameter, from, value } = action {
            let to = parameter.with(from, value);
            let share = self.share.map(|(_, share)| share.share);
            self.surge = Surge::of(share, model.as_ref(), self.learned.cost, self.history.keys, from, to);
        }
        // What breaks a limit must not count as usual before it is seen.
        if !has_own {
            self.calibrate(now, &signals, workload.as_ref());
        }
        let status = HoldStatus {
            state,
            sentence,
            share: self.share.map(|(_, share)| share),
            share_seconds: self.share.map(|(at, _)| now - at),
            expected,
            without,
            rate: self.history.rate(),
            setting: signals.configured,
            baseline,
            advised: advised.filter(|_| action == Action::None),
            stall_seconds: self.history.load.zip(signals.hz).map(|(load, hz)| load / f64::from(hz)),
            cycle_cpu: self.history.load,
        };
        (status, action)
    }

    /// Begins with a new server process: nothing that was measured holds for it but what its cycle costs with its own settings.
    fn begin(&mut self, now: f64, signals: &Signals) {
        // The settings of an earlier holder may have been written just now.
        let is_adopted = self.baseline.as_ref().is_some_and(|own| Some(own.setting()) != signals.configured);
        // Another process of the server follows nothing, and another holder waits for what it follows.
        match self.run_id {
            Some(_) => self.settle_until = now + self.floor(),
            None if is_adopted => self.settle_until = self.settle_until.max(now + self.floor()),
            None => {}
        }
        // A value may have come back from the configuration file of the server.
        let before = self.run_id.as_ref().unwrap_or(&self.recorded_run);
        let is_same = *before == signals.run_id;
        if !is_same {
            self.learned = Learned::recalled(self.learned.own_cost());
        }
        self.is_finished |= self.is_restored && !is_same;
        self.is_new_process |= !is_same;
        self.is_restored &= is_same;
        self.ceiling = self.ceiling.take().filter(|_| is_same);
        self.back_off = self.back_off.take().filter(|(until, _)| self.run_id.is_none() && *until > now);
        self.run_id = Some(signals.run_id.clone());
        (self.history, self.alarms) = (History::default(), Alarms::new(signals.replicas));
        (self.share, self.sample, self.sampled_at, self.unsampled) = (None, None, None, None);
        (self.scan, self.lawless_since) = (Scan::None, None);
        (self.is_foreign, self.broken, self.surge) = (false, 0, Surge::default());
        self.held();
    }

    /// Compares the settings that were found with those that were left, and adopts what an earlier holder wrote.
    fn compare(&mut self, signals: &Signals) {
        let Some(found) = signals.configured else { return };
        let (is_finished, is_new) = (std::mem::take(&mut self.is_finished), std::mem::take(&mut self.is_new_process));
        if let Some(baseline) = &mut self.baseline {
            if is_finished {
                baseline.follow(found);
            }
            if is_new {
                baseline.come_back(found);
            }
        }
        let Some(baseline) = self.baseline.as_mut().filter(|baseline| baseline.is_written()) else {
            // Nothing was written: what is found is the server's own.
            self.baseline = Some(Baseline::of(found));
            return;
        };
        // Other values that keysweep once wrote may have come back from a configuration file, or be set by others.
        self.is_foreign = !baseline.may_be_left(found);
        if !self.is_foreign {
            baseline.find(found);
        }
    }

    fn follow_scan(&mut self, now: f64, signals: &Signals) {
        self.scan = match (self.scan, signals.is_scanning) {
            (_, true) => Scan::Running,
            (Scan::Asked(at), false) if now <= at || signals.is_scan_queued => self.scan,
            // One that was asked for has ended within the interval, or could not begin.
            (Scan::Running | Scan::Asked(_), false) => {
                // What the scan has left is known at once.
                (self.changed_at, self.settle_until) = (now, self.settle_until.max(now + self.floor()));
                self.sampled_at = None;
                self.held();
                Scan::Ended(now)
            }
            (scan, false) => scan,
        };
    }

    pub(super) fn model<'a>(&self, signals: &Signals, workload: &'a Workload) -> Model<'a> {
        let factor = signals.hz.zip(signals.configured).map(|(hz, set)| f64::from(hz) / f64::from(set.hz));
        Model {
            workload,
            cost: self.learned.cost,
            offset: self.learned.offset,
            hz_factor: factor.unwrap_or(1.0),
            own_factor: self.learned.own_factor(),
            is_capped: signals.is_capped,
        }
    }

    /// Takes in the last sample, in steady state.
    fn learn(&mut self, now: f64, signals: &Signals, workload: Option<&Workload>) {
        let sample = self.sample.take();
        if let Some(share) = sample {
            self.share = Some((now, share));
        }
        let (Some(workload), Some(setting)) = (workload, signals.configured) else { return };
        if !self.has_law(workload) || !self.is_steady(now, signals) {
            return;
        }
        let model = self.model(signals, workload);
        let law = model.law(setting);
        // A batch says nothing about the law, unless a scan has just removed it, or would be one too many.
        if let Some(share) = sample.filter(|share| !is_batch(share.low, law) || !self.may_scan(now)) {
            self.learned.add(now, share, law);
        }
    }

    /// Takes in what the cycle takes, in steady state. How many keys it visits for each that it removes depends on what is stale, which
    /// is less than the law says for long behind a scan.
    fn calibrate(&mut self, now: f64, signals: &Signals, workload: Option<&Workload>) {
        let (Some(workload), Some(setting), Some(load)) = (workload, signals.configured, self.history.load) else {
            return;
        };
        let is_measured = load * self.policy.interval().as_secs_f64() >= MIN_CYCLE_SECONDS;
        let may_sample = signals.keys().0 >= MIN_SAMPLED_KEYS;
        let has_sampled = self.sampled_at.is_some_and(|at| self.has_followed(at, signals));
        if is_measured && self.has_cost(workload) && self.is_steady(now, signals) && (has_sampled || !may_sample) {
            let sample = self.share.filter(|(at, _)| self.has_followed(*at, signals)).map(|(_, share)| share);
            let expected = self.model(signals, workload).cpu_at(setting, sample);
            let is_own = self.baseline.as_ref().is_some_and(|own| own.setting() == setting);
            self.learned.calibrate(now, load, expected, is_own);
        }
    }

    /// Returns the seconds for which the share follows a write.
    pub(super) fn settling(&self) -> f64 {
        let share = self.share.map_or(self.policy.below, |(_, share)| share.share);
        let rate = self.history.rate().unwrap_or(0.0);
        let follow = reversion_seconds(share, self.history.keys, rate).unwrap_or(0.0);
        self.floor().max(FOLLOWED * follow)
    }

    /// Begins to wait until the share has followed a write.
    pub fn settle(&mut self, now: f64) {
        (self.changed_at, self.settle_until) = (now, self.settle_until.max(now + self.settling()));
        self.broken = 0;
        self.held();
    }

    /// Forgets samples above the target.
    pub(super) fn held(&mut self) {
        self.missed = (0, f64::NEG_INFINITY);
    }

    /// Counts a settled sample above the target, or an observation in each settling time where there are no samples. Returns
    /// whether there are enough to say that the target cannot be held.
    pub(super) fn missed(&mut self, now: f64) -> bool {
        let (count, last) = self.missed;
        let is_new = self.share.is_none_or(|(at, _)| at > last) && now - last >= self.floor();
        if is_new {
            self.missed = (count + 1, now);
        }
        self.missed.0 >= MISSED
    }

    pub(super) fn floor(&self) -> f64 {
        self.policy.settle_floor_seconds as f64
    }

    pub(super) fn last_change(&self) -> f64 {
        self.changed_at.max(self.history.shifted_at.unwrap_or(f64::NEG_INFINITY))
    }

    /// Whether the share has followed the last change of settings and rate.
    pub(super) fn is_steady(&self, now: f64, signals: &Signals) -> bool {
        now >= self.settle_until && self.has_followed(now, signals) && self.history.range().is_some()
    }

    pub(super) fn may_scan(&self, now: f64) -> bool {
        self.has_scans_left(now) && !matches!(self.scan, Scan::Ended(at) if now - at < SCAN_INTERVAL)
    }

    pub(super) fn has_scans_left(&self, now: f64) -> bool {
        within_a_day(&self.scans, now) < SCANS_A_DAY
    }

    /// Whether the law predicts what the cycle takes.
    pub(super) fn has_cost(&self, workload: &Workload) -> bool {
        workload.follows_the_law() && !self.history.has_field_ttls && !self.history.is_bursty()
    }

    /// Whether the law predicts the stale share. How many keys expire in each of several databases is an estimate, from which
    /// the share of none follows.
    pub(super) fn has_law(&self, workload: &Workload) -> bool {
        self.has_cost(workload) && workload.has_main_database()
    }
}

#[cfg(test)]
mod tests;

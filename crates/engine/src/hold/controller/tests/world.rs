//! A simulated server with the controller that holds it, with a second one that would, and with what operators and crashes do to
//! them. Every write is checked against the promises of the policy, and what the server's cycles take in truth against its limits.

use std::collections::VecDeque;

use crate::hold::{
    action::{Action, Outcome},
    baseline::{Baseline, Parameter},
    controller::Controller,
    model::Model,
    policy::{Level, Policy},
    signals::Signals,
    simulated::Server,
    state::HoldState,
    times::{DAY, Times},
};
use crate::stale::{CycleSetting, Share, Workload};

/// Factor by which a raise may exceed a limit, by the costs that the simulated server really has.
const SCATTER: f64 = 1.25;

/// Writes a day, at most.
const WRITES_A_DAY: usize = 12;

/// Factor of a limit that cycles may not exceed in truth, also where stronger settings alone cost more than the law says, and intervals
/// after which that must have ended: two that are chance, and those in which a controller measures first.
const BROKEN: f64 = 2.5;
const BROKEN_STEEP: f64 = 3.5;
const MAX_BROKEN: u32 = 6;

/// What outlives a controller.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub baseline: Baseline,
    pub times: Times,
    pub is_restored: bool,
    /// The server process that was written to last.
    pub run_id: String,
}

/// A controller with the server that it holds, and the record that outlives both.
pub struct World {
    pub server: Server,
    pub controller: Controller,
    pub policy: Policy,
    pub record: Option<Record>,
    pub random: fastrand::Rng,
    pub now: f64,
    /// Whether the store takes records.
    pub stores: bool,
    /// Whether the next write loses its reply: `Some(true)` after it was applied.
    pub loses_reply: Option<bool>,
    /// Whether fields of hashes expire, so that there is no law.
    pub has_field_ttls: bool,
    /// Whether every number of the next observation is none.
    pub is_insane: bool,
    /// Whether scans wait for their turn until the test starts them.
    pub queues: bool,
    /// Whether scans cannot begin.
    pub fails_scans: bool,
    /// Scans that were asked for.
    pub scans: u32,
    /// Whether the server refuses the next write.
    pub refuses: bool,
    /// Whether the server makes something else of the next write.
    pub clamps: bool,
    /// Records that cannot be saved, of the next ones.
    pub unsaved: u32,
    /// Whether the controller knows what was left from a record alone.
    is_successor: bool,
    /// Whether the next restore fails: `Some(true)` after a part of it.
    pub fails_restore: Option<bool>,
    /// Another holder of the server, which may not write, with the record that it began with.
    pub second: Option<(Controller, Option<Record>)>,
    /// The settings that were found last.
    seen: CycleSetting,
    /// The record that the first one began with; `None`: it has reserved the server.
    pub unreserved: Option<Option<Record>>,
    /// Successive intervals in which a limit was exceeded in truth, while the controller could end it.
    exceeded: u32,
    pub restores: u32,
    pub last_write: f64,
    /// Seconds from then on in which the share follows, and the server process that it does in.
    pub settling: (f64, u32),
    /// What the last write or restore left.
    pub left: CycleSetting,
    pub writes: u32,
    day: VecDeque<f64>,
    pub state: HoldState,
    pub sentence: String,
}

impl World {
    pub fn new(policy: Policy, server: Server, seed: u64) -> Self {
        let policy = Policy { level: Level::Hold, ..policy }.validated().expect("a valid policy");
        Self {
            controller: Controller::new(policy, None, false),
            policy,
            record: None,
            random: fastrand::Rng::with_seed(seed),
            now: 0.0,
            stores: true,
            loses_reply: None,
            has_field_ttls: false,
            is_insane: false,
            queues: false,
            fails_scans: false,
            scans: 0,
            refuses: false,
            clamps: false,
            unsaved: 0,
            is_successor: false,
            fails_restore: None,
            second: None,
            seen: server.setting,
            unreserved: None,
            exceeded: 0,
            restores: 0,
            last_write: f64::NEG_INFINITY,
            settling: (0.0, 0),
            left: server.setting,
            writes: 0,
            day: VecDeque::new(),
            server,
            state: HoldState::Off,
            sentence: String::new(),
        }
    }

    /// One interval.
    pub fn step(&mut self) {
        let interval = self.policy.interval().as_secs_f64();
        self.server.advance(interval);
        self.now += interval;
        let mut signals = self.server.signals(self.now);
        signals.may_write = self.stores;
        if let Some(reading) = signals.reading.as_mut().filter(|_| self.has_field_ttls) {
            reading.expired_fields = self.now as u64;
        }
        if std::mem::take(&mut self.is_insane) {
            signals.cycle_seconds = Some(f64::NAN);
            signals.probe = Some(f64::INFINITY);
            signals.reading = signals.reading.map(|reading| crate::stale::Reading { at: f64::NAN, ..reading });
            signals.hz = Some(0);
        }
        self.check_stall(&signals);
        if self.server.setting != self.seen {
            self.follow();
        }
        self.seen = self.server.setting;
        if self.controller.wants_sample(self.now, &signals) {
            let share = self.server.sample(&mut self.random);
            let share = if self.random.u8(0..20) == 0 { Share { share: f64::NAN, ..share } } else { share };
            self.controller.sampled(self.now, Some(share));
        }
        let (status, action) = self.controller.step(self.now, &signals);
        (self.state, self.sentence) = (status.state, status.sentence);
        let is_reserved = !matches!(action, Action::Write { .. }) || self.reserve();
        self.scans += u32::from(action == Action::Scan);
        match action {
            Action::Scan if self.fails_scans => {}
            Action::Write { .. } if !is_reserved => {}
            Action::None => {}
            Action::Scan if self.queues => self.server.is_scan_queued = true,
            Action::Scan => self.server.scan(),
            Action::Write { parameter, from, value } => self.write(from, parameter, value),
            Action::Restore => {
                let baseline = self.controller.baseline().expect("a baseline").clone();
                assert!(self.stores, "nothing is written while changes cannot be recorded");
                if let Some(is_partial) = self.fails_restore.take() {
                    if is_partial && baseline.knows(Parameter::Effort, u32::from(self.server.setting.effort)) {
                        self.server.setting.effort = baseline.setting().effort;
                    }
                    self.controller.restored(self.now, Outcome::Unknown);
                } else {
                    let outcome = self.server.restore(&baseline);
                    (self.left, self.restores) = (self.server.setting, self.restores + 1);
                    self.controller.restored(self.now, outcome);
                    self.save(true);
                }
            }
        }
        self.step_second(&signals);
    }

    /// Returns the holder that goes on with the record.
    pub fn successor(&self) -> Controller {
        match self.record.clone() {
            Some(Record { baseline, times, is_restored, run_id }) => {
                Controller::new(self.policy, Some(baseline), is_restored).after(times, &run_id)
            }
            None => Controller::new(self.policy, None, false),
        }
    }

    /// What was measured before says nothing: controllers measure anew.
    pub fn unsettle(&mut self) {
        self.exceeded = 0;
    }

    /// Returns the server's own settings.
    fn own(&self) -> CycleSetting {
        self.record.as_ref().map_or(self.server.file, |record| record.baseline.setting())
    }

    /// Returns the seconds for which a cycle blocked clients beyond the server's own settings, in the last interval.
    pub fn true_stall(&self) -> f64 {
        let (hz, own) = (f64::from(self.server.setting.hz), self.own());
        self.server.load / hz - self.server.usual_load(own) / f64::from(own.hz)
    }

    /// Whether keysweep wrote what the server has, as far as is recorded. The cost of other values is an operator's to bear.
    fn is_written(&self) -> bool {
        let knows = |record: &Record, one: Parameter| record.baseline.knows(one, one.of(self.server.setting));
        self.record.as_ref().is_some_and(|record| Parameter::ALL.into_iter().all(|one| knows(record, one)))
    }

    /// A limit that cycles exceed by far in truth is noticed within some intervals, and the server has its own settings then.
    fn check_stall(&mut self, signals: &Signals) {
        let can_end = self.stores
            && signals.is_primary
            && !signals.is_scanning
            && self.state != HoldState::Foreign
            && self.server.setting != self.own()
            && self.is_written();
        let factor = if self.server.steep.is_some() { BROKEN_STEEP } else { BROKEN };
        let is_broken = can_end && self.true_stall() * 1e3 > factor * self.policy.max_added_stall_ms;
        self.exceeded = if is_broken { self.exceeded + 1 } else { 0 };
        assert!(
            self.exceeded <= MAX_BROKEN,
            "a cycle blocks clients for {:.1} ms more in {} intervals in a row: {:?}: {}",
            self.true_stall() * 1e3,
            self.exceeded,
            self.state,
            self.sentence
        );
    }

    fn write(&mut self, from: CycleSetting, parameter: Parameter, value: u32) {
        assert!(self.stores, "nothing is written while changes cannot be recorded");
        let since = self.now - self.last_write;
        let floor = self.policy.settle_floor_seconds as f64;
        assert!(since >= floor, "{since} s after the last write, and the share takes {floor} s at least");
        let is_narrowed = self.sentence.contains("the policy allows less");
        let (settling, run) = self.settling;
        let has_settled = since >= settling || run != self.server.run || is_narrowed;
        assert!(
            has_settled,
            "{since} s after the last write, which the share follows for {settling} s: {}",
            self.sentence
        );
        let to = parameter.with(from, value);
        assert!(to.effort <= self.policy.max_effort.max(self.server.file.effort), "{to:?}: {}", self.sentence);
        assert!(to.hz <= self.policy.max_hz.unwrap_or(0).max(from.hz), "{to:?}: {}", self.sentence);
        assert!(to.effort <= from.effort + 3, "{from:?} to {to:?}");
        if value > parameter.of(from) {
            self.check_cost(to);
        }
        let own = self.controller.baseline().expect("a baseline").setting();
        // A holder that goes on with a record adopts what that says was left, also where the last one could not be saved.
        if self.is_successor && self.record.as_ref().is_some_and(|record| record.baseline.may_be_left(from)) {
            self.left = from;
        }
        for parameter in Parameter::ALL {
            let value = parameter.of(from);
            if self.has_come_back(parameter, value) {
                self.left = parameter.with(self.left, value);
            }
            let known = [own, self.left].map(|setting| parameter.of(setting));
            assert!(known.contains(&value), "{from:?}: neither {own:?} nor left, {:?}", self.left);
        }
        let (known, settling) = (self.controller.baseline().cloned(), self.settling_time());
        self.controller.intend(self.now, parameter, value);
        if !self.save(false) {
            self.controller.written(self.now, Outcome::Failed("the change cannot be recorded".into()));
            assert_eq!(self.controller.baseline(), known.as_ref(), "nothing was written");
            return;
        }
        if std::mem::take(&mut self.refuses) {
            self.controller.written(self.now, Outcome::Failed("refused".into()));
            assert_eq!(self.controller.baseline(), known.as_ref(), "nothing was written");
            // Nothing but the server's own settings is in the record then, or what was written before.
            self.save(!known.is_some_and(|known| known.is_written()));
            return;
        }
        self.count();
        self.settling = (settling, self.server.run);
        if std::mem::take(&mut self.clamps) {
            // What the server made of it is recorded before it is put back.
            self.controller.intend(self.now, parameter, value.div_ceil(2));
            self.save(false);
            self.controller.written(self.now, Outcome::PutBack("the server made half of it".into()));
            self.save(false);
            return;
        }
        if self.loses_reply == Some(false) {
            self.loses_reply = None;
            return self.controller.written(self.now, Outcome::Unknown);
        }
        let outcome = self.server.write(from, parameter, value, || true);
        self.left = self.server.setting;
        if self.loses_reply.take().is_some() {
            return self.controller.written(self.now, Outcome::Unknown);
        }
        self.controller.written(self.now, outcome);
        self.save(false);
    }

    /// Whether the server began with a value that keysweep wrote to an earlier process of it.
    fn has_come_back(&self, parameter: Parameter, value: u32) -> bool {
        let is_last = |record: &Record| record.baseline.values(parameter).written.last() == Some(&value);
        self.record.as_ref().is_some_and(|record| record.run_id != self.server.run.to_string() && is_last(record))
    }

    /// Three time constants of the measured share, or the floor.
    fn settling_time(&self) -> f64 {
        let share = self.controller.share.map_or(self.policy.below, |(_, share)| share.share);
        let rate = self.controller.history.rate().unwrap_or(0.0);
        let constant = if rate > 0.0 { 2.0 * share * self.controller.history.keys as f64 / rate } else { 0.0 };
        (3.0 * constant).max(self.policy.settle_floor_seconds as f64)
    }

    /// Records what the next controller has to know. Returns whether it could.
    fn save(&mut self, is_restored: bool) -> bool {
        if self.unsaved > 0 {
            self.unsaved -= 1;
            return false;
        }
        let baseline = self.controller.baseline().expect("a baseline").clone();
        let run_id = self.server.run.to_string();
        self.record = Some(Record { baseline, times: self.controller.times(), is_restored, run_id });
        true
    }

    /// Counts a write: at most twelve a day, whatever has crashed meanwhile.
    fn count(&mut self) {
        (self.last_write, self.writes) = (self.now, self.writes + 1);
        self.is_successor = false;
        self.day.push_back(self.now);
        self.day.retain(|at| self.now - at < DAY);
        assert!(self.day.len() <= WRITES_A_DAY, "{} writes a day", self.day.len());
    }

    /// A raise keeps the limits by what the law says of the server, as long as it is a server of the law.
    fn check_cost(&self, to: CycleSetting) {
        let history = &self.controller.history;
        let Some((_, rate)) = history.range().filter(|_| !history.is_bursty()) else { return };
        if self.server.slowness != 1.0 || self.server.steep.is_some() || self.server.is_capped {
            return;
        }
        let databases = self.server.databases;
        let keys = self.server.keys as u64 / u64::from(databases);
        let workload = Workload::split(rate, &vec![(keys, keys, None); databases as usize], 16);
        let model = Model::lawful(&workload);
        let own = self.controller.baseline().expect("a baseline").setting();
        let (taken, own) = (model.taken(to), model.taken(own));
        let (stall, cpu) = (taken.stall - own.stall, taken.cpu - own.cpu);
        // Costs are learned from loads that scatter.
        assert!(stall * 1e3 <= self.policy.max_added_stall_ms * SCATTER, "{stall} s at {to:?}: {}", self.sentence);
        assert!(cpu <= self.policy.max_added_cpu * SCATTER, "{cpu} at {to:?}: {}", self.sentence);
    }

    /// The operator changes the limits.
    pub fn allow(&mut self, policy: Policy) {
        self.policy = Policy { level: Level::Hold, ..policy };
        self.set_policy(self.policy);
    }

    fn set_policy(&mut self, policy: Policy) {
        self.controller.set_policy(policy);
        if let Some((second, _)) = &mut self.second {
            second.set_policy(policy);
        }
    }

    /// The operator ends it. A holder that has written nothing restores what a dead one has.
    pub fn end(&mut self) {
        if self.unreserved.take().is_some() {
            self.controller = self.successor();
        }
        self.set_policy(Policy { level: Level::Observe, ..self.policy });
    }

    pub fn steps(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// The process dies; the next one finds the record, or a second one, which waits for the server, goes on.
    pub fn crash(&mut self) {
        (self.controller, self.unreserved) = match self.second.take() {
            Some((second, known)) => (second, Some(known)),
            None => (self.successor(), None),
        };
        (self.exceeded, self.is_successor) = (0, true);
        (self.server.scan_left, self.server.is_scan_queued) = (None, false);
    }
}

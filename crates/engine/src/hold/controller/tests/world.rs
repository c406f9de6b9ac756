//! A simulated server with the controller that holds it, and with what operators and crashes do to both. Every write is
//! checked against the promises of the policy.

use crate::hold::{
    action::{Action, Outcome},
    baseline::{Baseline, Parameter},
    controller::Controller,
    model::Model,
    policy::{Level, Policy},
    simulated::Server,
    state::HoldState,
};
use crate::stale::{CycleCost, CycleSetting, Share, Workload};

/// Factor by which a raise may exceed a limit, by the costs that the simulated server really has.
const SCATTER: f64 = 1.25;

/// A controller with the server that it holds, and the record that outlives both.
pub struct World {
    pub server: Server,
    pub controller: Controller,
    pub policy: Policy,
    pub record: Option<Baseline>,
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
    pub last_write: f64,
    pub writes: u32,
    pub state: HoldState,
    pub sentence: String,
}

impl World {
    pub fn new(policy: Policy, server: Server, seed: u64) -> Self {
        let policy = Policy { level: Level::Hold, ..policy }.validated().expect("a valid policy");
        Self {
            server,
            controller: Controller::new(policy, None, false),
            policy,
            record: None,
            random: fastrand::Rng::with_seed(seed),
            now: 0.0,
            stores: true,
            loses_reply: None,
            has_field_ttls: false,
            is_insane: false,
            last_write: f64::NEG_INFINITY,
            writes: 0,
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
        if self.controller.wants_sample(self.now, &signals) {
            let share = self.server.sample(&mut self.random);
            let share = if self.random.u8(0..20) == 0 { Share { share: f64::NAN, ..share } } else { share };
            self.controller.sampled(self.now, Some(share));
        }
        let (status, action) = self.controller.step(self.now, &signals);
        (self.state, self.sentence) = (status.state, status.sentence);
        match action {
            Action::None => {}
            Action::Scan => self.server.scan(),
            Action::Write { parameter, from, value } => self.write(from, parameter, value),
            Action::Restore => {
                let baseline = self.controller.baseline().expect("a baseline").clone();
                let outcome = self.server.restore(&baseline);
                self.controller.restored(self.now, outcome);
            }
        }
    }

    fn write(&mut self, from: CycleSetting, parameter: Parameter, value: u32) {
        assert!(self.stores, "nothing is written while changes cannot be recorded");
        let since = self.now - self.last_write;
        let floor = self.policy.settle_floor_seconds as f64;
        assert!(since >= floor, "{since} s after the last write, and the share takes {floor} s at least");
        let to = parameter.with(from, value);
        assert!(to.effort <= self.policy.max_effort.max(self.server.file.effort), "{to:?}: {}", self.sentence);
        assert!(to.hz <= self.policy.max_hz.unwrap_or(0).max(from.hz), "{to:?}: {}", self.sentence);
        assert!(to.effort <= from.effort + 3, "{from:?} to {to:?}");
        if value > parameter.of(from) {
            self.check_cost(to);
        }
        let baseline = self.controller.intend(parameter, value).expect("a baseline").clone();
        if self.loses_reply == Some(false) {
            (self.loses_reply, self.record) = (None, Some(baseline));
            return self.controller.written(self.now, Outcome::Unknown);
        }
        let record = &mut self.record;
        let outcome = self.server.write(from, parameter, value, || {
            *record = Some(baseline);
            true
        });
        if matches!(outcome, Outcome::Done(_)) {
            self.last_write = self.now;
            self.writes += 1;
        }
        let outcome = if self.loses_reply.take().is_some() { Outcome::Unknown } else { outcome };
        self.controller.written(self.now, outcome);
    }

    /// A raise keeps the limits by what the law says of the server, as long as it is a server of the law.
    fn check_cost(&self, to: CycleSetting) {
        let history = &self.controller.history;
        let Some((_, rate)) = history.range().filter(|_| !history.is_bursty()) else { return };
        if self.server.slowness != 1.0 || self.server.steep.is_some() || self.server.is_capped {
            return;
        }
        let keys = self.server.keys as u64;
        let workload = Workload::split(rate, &[(keys, keys, None)], 16);
        let model =
            Model { workload: &workload, cost: CycleCost::default(), offset: 0.0, hz_factor: 1.0, is_capped: false };
        let own = self.controller.baseline().expect("a baseline").setting();
        let (stall, cpu) = (model.stall(to) - model.stall(own), model.cpu(to) - model.cpu(own));
        // Costs are learned from loads that scatter.
        assert!(stall * 1e3 <= self.policy.max_added_stall_ms * SCATTER, "{stall} s at {to:?}: {}", self.sentence);
        assert!(cpu <= self.policy.max_added_cpu * SCATTER, "{cpu} at {to:?}: {}", self.sentence);
    }

    /// The operator changes the limits.
    pub fn allow(&mut self, policy: Policy) {
        self.policy = Policy { level: Level::Hold, ..policy };
        self.controller.set_policy(self.policy);
    }

    /// The operator ends it.
    pub fn end(&mut self) {
        self.controller.set_policy(Policy { level: Level::Observe, ..self.policy });
    }

    pub fn steps(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// The process dies; the next one finds the record.
    pub fn crash(&mut self) {
        self.controller = Controller::new(self.policy, self.record.clone(), false);
        self.server.scan_left = None;
        // A new holder knows nothing of the last write.
        self.last_write = f64::NEG_INFINITY;
    }
}

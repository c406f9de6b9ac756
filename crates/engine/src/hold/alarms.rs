//! Why a server must have its own settings now, whatever its stale share is.

use super::{
    ceiling::{Ceiling, Seen},
    history::History,
    model::Model,
    policy::Policy,
    sentences::{cpu_limit, stall_limit},
    signals::Signals,
};
use crate::stale::{CycleSetting, percent};

/// Rise of the latency probe that counts as a broken limit, seconds.
const PROBE_RISE: f64 = 0.005;
/// Weight of a new probe in the running average.
const WEIGHT: f64 = 0.3;
/// Factor by which a measured stall or load may exceed its limit: both scatter.
const SCATTER: f64 = 1.25;
/// Factor by which it may not, not even once.
const GRAVE: f64 = 2.0;
/// Successive intervals in which a signal has to be seen that chance can cause once.
pub const REPEATED: u32 = 2;

/// Signals that are compared with earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Alarms {
    replicas: usize,
    probe: Option<f64>,
    slow_probes: u32,
}

impl Alarms {
    /// Returns alarms that know nothing but the replicas.
    pub fn new(replicas: usize) -> Self {
        Self { replicas, ..Self::default() }
    }

    /// Returns what is wrong. `differs`: the server has other settings than its own; what is wrong without them is taken as
    /// usual afterwards.
    pub fn check(&mut self, signals: &Signals, history: &History, differs: bool) -> Option<String> {
        let is_slow = matches!((signals.probe, self.probe), (Some(probe), Some(usual)) if probe > usual + PROBE_RISE);
        self.slow_probes = if is_slow { self.slow_probes + 1 } else { 0 };
        if let Some(probe) = signals.probe.filter(|_| !is_slow || !differs) {
            self.probe = Some(self.probe.map_or(probe, |usual| usual + WEIGHT * (probe - usual)));
        }
        let is_missing = self.replicas > signals.replicas;
        if !is_missing || !differs {
            self.replicas = signals.replicas;
        }
        for (is_raised, sentence) in [
            (signals.is_saving, "a background save runs"),
            (signals.is_resyncing, "a replica receives a full copy"),
            (signals.is_paused, "expiry is paused"),
            (is_missing, "a replica is missing"),
            (history.capped >= REPEATED, "the cycle reaches its own time limit"),
            (self.slow_probes >= REPEATED, "the latency has risen by more than 5 ms"),
        ] {
            if is_raised {
                return Some(sentence.into());
            }
        }
        None
    }
}

/// A limit of a policy that the cycle breaks by what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// What was measured, as a factor of the limit.
    pub factor: f64,
    /// The factor of hz at which the same load would keep the limit of the stall; `None`: the limit of the CPU is broken, too.
    pub relieving: Option<f64>,
    /// What is wrong.
    pub sentence: String,
    /// The limit that would allow it.
    pub needed: String,
}

impl Broken {
    /// Whether the server must have its own settings at once.
    pub fn is_grave(&self) -> bool {
        self.factor > GRAVE
    }

    /// Returns the highest effort that keeps the limit, if the loads of two efforts have the ratio that the model predicts; without
    /// a model one effort lower.
    pub fn ceiling(
        &self,
        model: Option<&Model<'_>>,
        baseline: CycleSetting,
        found: CycleSetting,
        seen: Seen,
    ) -> Ceiling {
        let keeps = |effort: &u8| {
            let added =
                |model: &Model<'_>, effort| model.cpu(CycleSetting { effort, ..found }) - model.own(baseline).cpu;
            model.is_none_or(|model| added(model, *effort) <= added(model, found.effort) / self.factor)
        };
        let effort = (baseline.effort + 1..found.effort).rev().find(keeps);
        let broken = format!("{}; it takes {}", self.sentence, self.needed);
        Ceiling::new(effort.unwrap_or(baseline.effort), found, &broken, seen)
    }
}

/// Returns which limit of a policy the cycle breaks by what was measured. `model`: what it would take with the server's own
/// settings; without one all that it takes counts.
pub fn broken_limit(
    policy: &Policy,
    model: Option<&Model<'_>>,
    baseline: CycleSetting,
    hz: u32,
    load: f64,
) -> Option<Broken> {
    let own = model.map(|model| model.own(baseline)).unwrap_or_default();
    let (stall, cpu) = (load / f64::from(hz.max(1)) - own.stall, load - own.cpu);
    let max_stall = policy.max_added_stall_ms / 1e3;
    let (by_stall, by_cpu) = (stall / max_stall, cpu / policy.max_added_cpu);
    let factor = by_stall.max(by_cpu);
    let (sentence, needed) = match by_cpu > by_stall {
        true => (format!("the cycle takes {} of a core more", percent(cpu)), cpu_limit(cpu)),
        false => (format!("a cycle blocks clients for {:.1} ms more", stall * 1e3), stall_limit(stall)),
    };
    // A higher hz takes no less of the core.
    let relieving = (model.is_some() && by_cpu <= 1.0).then(|| (own.stall + stall) / (own.stall + max_stall));
    (factor > SCATTER).then_some(Broken { factor, relieving, sentence, needed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stale::Workload;

    fn check(alarms: &mut Alarms, signals: &Signals, differs: bool) -> Option<String> {
        alarms.check(signals, &History::default(), differs)
    }

    #[test]
    fn a_replica_that_goes_is_missed_while_settings_are_raised_and_accepted_without() {
        let with = |replicas| Signals { replicas, ..Signals::default() };
        let mut alarms = Alarms::new(2);
        assert_eq!(check(&mut alarms, &with(1), true).as_deref(), Some("a replica is missing"));
        assert!(check(&mut alarms, &with(1), true).is_some(), "still missing");
        assert!(check(&mut alarms, &with(1), false).is_some());
        assert_eq!(check(&mut alarms, &with(1), true), None);
    }

    #[test]
    fn one_slow_probe_is_chance_and_two_are_not() {
        let with = |millis: f64| Signals { probe: Some(millis / 1e3), ..Signals::default() };
        let mut alarms = Alarms::default();
        assert_eq!(check(&mut alarms, &with(1.0), true), None);
        assert_eq!(check(&mut alarms, &with(9.0), true), None);
        assert!(check(&mut alarms, &with(9.0), true).is_some_and(|sentence| sentence.contains("latency")));
        assert_eq!(check(&mut alarms, &with(1.0), true), None);
    }

    #[test]
    fn a_measured_stall_or_load_above_its_limit_is_named() {
        let workload = Workload::split(1_000.0, &[(100_000, 100_000, None)], 16);
        let model = Model::lawful(&workload);
        let broken = |hz, load| broken_limit(&Policy::default(), Some(&model), CycleSetting::default(), hz, load);
        assert_eq!(broken(10, 0.01), None);
        let stall = broken(10, 0.02).expect("broken");
        assert!(stall.sentence.contains("ms more") && !stall.is_grave(), "{stall:?}");
        assert!(stall.relieving.is_some_and(|factor| (1.0..2.0).contains(&factor)), "{stall:?}");
        assert!(broken(10, 0.04).is_some_and(|stall| stall.is_grave()));
        // More cycles would take more of the core, whose limit is reached.
        assert!(broken(10, 0.035).is_some_and(|stall| stall.sentence.contains("ms more") && stall.relieving.is_none()));
        let cpu = broken(100, 0.05).expect("broken");
        assert!(cpu.sentence.contains("of a core more") && cpu.relieving.is_none(), "{cpu:?}");
    }

    #[test]
    fn the_further_a_limit_is_exceeded_the_lower_the_ceiling() {
        let workload = Workload::split(10_000.0, &[(500_000, 500_000, None)], 16);
        let model = Model::lawful(&workload);
        let below = |factor, effort| {
            let (sentence, needed) = ("a cycle blocks clients for 1.5 ms more".into(), "max_added_stall 1.5 ms".into());
            let broken = Broken { factor, relieving: None, sentence, needed };
            let seen = Seen::now(0.0, 10_000.0, &Policy::default());
            broken.ceiling(Some(&model), CycleSetting::default(), CycleSetting { effort, hz: 10 }, seen)
        };
        let efforts = [1.3, 1.6, 1.9].map(|factor| below(factor, 8).effort);
        assert!(efforts.is_sorted_by(|higher, lower| higher >= lower) && efforts[0] > efforts[2], "{efforts:?}");
        assert!(efforts.iter().all(|effort| (2..8).contains(effort)), "{efforts:?}");
        assert_eq!(below(1.5, 2).effort, 1, "nothing lies between it and the server's own");
        let sentence = below(1.3, 8).sentence;
        assert!(sentence.starts_with("at effort 8, a cycle blocks") && sentence.ends_with("1.5 ms"), "{sentence}");
    }
}

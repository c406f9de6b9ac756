//! The server's own settings, recorded before the first write, and every value that keysweep wrote since. A value that keysweep
//! wrote never becomes a baseline: Sentinels rewrite configuration files, so that a temporary value may outlive its process.

use serde::{Deserialize, Serialize};

use super::times::RecordedTimes;
use crate::{estimate::ServerProcess, stale::CycleSetting, target::Address};

/// A setting that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// `active-expire-effort`.
    Effort,
    /// `hz`.
    Hz,
}

impl Parameter {
    /// Both parameters. No other one is ever written.
    pub const ALL: [Self; 2] = [Self::Effort, Self::Hz];

    /// Returns the name in CONFIG SET.
    pub fn directive(self) -> &'static str {
        match self {
            Self::Effort => "active-expire-effort",
            Self::Hz => "hz",
        }
    }

    /// Returns the value in a setting.
    pub fn of(self, setting: CycleSetting) -> u32 {
        match self {
            Self::Effort => u32::from(setting.effort),
            Self::Hz => setting.hz,
        }
    }

    /// Returns the setting with another value of this parameter.
    pub fn with(self, setting: CycleSetting, value: u32) -> CycleSetting {
        match self {
            Self::Effort => CycleSetting { effort: u8::try_from(value).unwrap_or(u8::MAX), ..setting },
            Self::Hz => CycleSetting { hz: value, ..setting },
        }
    }
}

/// Values of one parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// The server's own value.
    pub baseline: u32,
    /// Values that keysweep wrote or was about to write, the last one last. Restoring replaces any of them.
    pub written: Vec<u32>,
    /// Values that keysweep may have left: one, or those before and after a write whose outcome is unknown. Holding goes on with
    /// no others. Empty in old records, where it is the last one written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<u32>,
}

impl Values {
    /// Whether a value is the server's own, or may be what keysweep left.
    fn may_be_left(&self, value: u32) -> bool {
        let is_left = match self.left.is_empty() {
            true => self.written.last() == Some(&value),
            false => self.left.contains(&value),
        };
        value == self.baseline || is_left
    }
}

/// The server's own settings, and what was written over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Of `active-expire-effort`.
    pub effort: Values,
    /// Of `hz`.
    pub hz: Values,
}

impl Baseline {
    /// Returns the baseline of a server that nothing was written to.
    pub fn of(setting: CycleSetting) -> Self {
        let own =
            |parameter: Parameter| Values { baseline: parameter.of(setting), written: Vec::new(), left: Vec::new() };
        Self { effort: own(Parameter::Effort), hz: own(Parameter::Hz) }
    }

    /// Returns the server's own settings.
    pub fn setting(&self) -> CycleSetting {
        CycleSetting { effort: u8::try_from(self.effort.baseline).unwrap_or(1), hz: self.hz.baseline }
    }

    /// Returns the values of a parameter.
    pub fn values(&self, parameter: Parameter) -> &Values {
        match parameter {
            Parameter::Effort => &self.effort,
            Parameter::Hz => &self.hz,
        }
    }

    fn values_mut(&mut self, parameter: Parameter) -> &mut Values {
        match parameter {
            Parameter::Effort => &mut self.effort,
            Parameter::Hz => &mut self.hz,
        }
    }

    /// Adds a value that is about to be written. Until the outcome is known, the value before may be found as well.
    pub fn add(&mut self, parameter: Parameter, value: u32) {
        let values = self.values_mut(parameter);
        if values.left.is_empty() {
            values.left.push(values.written.last().copied().unwrap_or(values.baseline));
        }
        values.written.retain(|written| *written != value);
        values.written.push(value);
        values.left.retain(|left| *left != value);
        values.left.push(value);
    }

    /// Takes in what was found: where it is the server's own value, or what keysweep may have left, nothing else is left.
    pub fn find(&mut self, found: CycleSetting) {
        for parameter in Parameter::ALL {
            let (values, value) = (self.values_mut(parameter), parameter.of(found));
            if value == values.baseline || values.left.contains(&value) {
                values.left = vec![value];
            }
        }
    }

    /// Takes in what a new process of the server began with: the value that keysweep wrote last may have come back from the
    /// configuration file, and counts as left.
    pub fn come_back(&mut self, found: CycleSetting) {
        for parameter in Parameter::ALL {
            let (values, value) = (self.values_mut(parameter), parameter.of(found));
            if values.written.last() == Some(&value) {
                values.left = vec![value];
            }
        }
    }

    /// Takes back what was put back after a write. Restoring still replaces it.
    pub fn withdraw(&mut self, parameter: Parameter) {
        self.values_mut(parameter).left.truncate(1);
    }

    /// Returns the baseline that knows as written only what keysweep may have left: restoring replaces nothing else.
    pub fn left_only(&self) -> Self {
        let mut baseline = self.clone();
        for parameter in Parameter::ALL {
            let values = baseline.values_mut(parameter);
            if !values.left.is_empty() {
                values.written = values.left.clone();
            }
        }
        baseline
    }

    /// Keeps the baselines of an earlier record where these are values that keysweep wrote: another process has taken one of
    /// them for the server's own.
    pub fn keep(&mut self, earlier: &Self) {
        for parameter in Parameter::ALL {
            let (values, before) = (self.values_mut(parameter), earlier.values(parameter));
            if values.baseline != before.baseline && before.written.contains(&values.baseline) {
                let taken = std::mem::replace(&mut values.baseline, before.baseline);
                if !values.written.contains(&taken) {
                    values.written.insert(0, taken);
                }
            }
        }
    }

    /// Sets what keysweep has left, now that it is known.
    pub fn leave(&mut self, setting: CycleSetting) {
        for parameter in Parameter::ALL {
            self.values_mut(parameter).left = vec![parameter.of(setting)];
        }
    }

    /// Whether each value of a setting is the server's own, or may be what keysweep left.
    pub fn may_be_left(&self, setting: CycleSetting) -> bool {
        Parameter::ALL.into_iter().all(|parameter| self.values(parameter).may_be_left(parameter.of(setting)))
    }

    /// Takes over values that keysweep never wrote as the server's own: an operator has set them after a finished restore.
    pub fn follow(&mut self, found: CycleSetting) {
        for parameter in Parameter::ALL {
            let value = parameter.of(found);
            if !self.knows(parameter, value) {
                self.values_mut(parameter).baseline = value;
            }
        }
    }

    /// Whether a value is the server's own or one that keysweep wrote.
    pub fn knows(&self, parameter: Parameter, value: u32) -> bool {
        let values = self.values(parameter);
        values.baseline == value || values.written.contains(&value)
    }

    /// Whether anything was ever written.
    pub fn is_written(&self) -> bool {
        Parameter::ALL.iter().any(|parameter| !self.values(*parameter).written.is_empty())
    }
}

/// The baseline of one server, as it is recorded. Contains no credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineRecord {
    /// The target through which the server was found, without credentials.
    pub target: String,
    /// Address of the server.
    pub address: Address,
    /// Identity of the server process at the last write.
    pub run_id: String,
    /// Whether the server has its own settings again, or values of others that were left. The record stays: a value that was
    /// written may come back from the server's configuration file.
    #[serde(default)]
    pub is_restored: bool,
    /// When it was written to, and until when nothing may be written.
    #[serde(default, skip_serializing_if = "RecordedTimes::is_unknown")]
    pub times: RecordedTimes,
    /// The settings.
    #[serde(flatten)]
    pub baseline: Baseline,
}

impl BaselineRecord {
    /// Returns the server process that was written to last.
    pub fn process(&self) -> ServerProcess {
        ServerProcess { address: self.address.to_string(), run_id: self.run_id.clone() }
    }

    /// Returns the record with what another one of the same server knows: two processes may have recorded in different places.
    /// Settings and times are those of the later one, and every value counts as written that one of them has.
    pub fn merged(self, other: Self) -> Self {
        let (mut later, earlier) = match other.times.recorded_at > self.times.recorded_at {
            true => (other, self),
            false => (self, other),
        };
        later.baseline.keep(&earlier.baseline);
        for parameter in Parameter::ALL {
            let values = later.baseline.values_mut(parameter);
            if values.left.is_empty() {
                values.left.extend(values.written.last().copied());
            }
            let more = earlier.baseline.values(parameter).written.iter();
            let more: Vec<u32> = more.copied().filter(|value| !values.written.contains(value)).collect();
            values.written.splice(..0, more);
        }
        later
    }
}

/// Records baselines so that they survive crashes. A write returns when the record is durable.
pub trait BaselineRegistry: Send + Sync {
    /// Returns the record of a server; `None`: there is none.
    ///
    /// # Errors
    /// The cause, for a sentence: the records cannot be read.
    fn find(&self, address: &Address) -> Result<Option<BaselineRecord>, String>;

    /// Returns the records of the servers of a target that may have other settings than their own.
    ///
    /// # Errors
    /// The cause: the records cannot be read.
    fn unrestored(&self, target: &str) -> Result<Vec<BaselineRecord>, String>;

    /// Adds or replaces the record of a server.
    ///
    /// # Errors
    /// The cause: nothing may be written to the server then.
    fn save(&self, record: &BaselineRecord) -> Result<(), String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_knows_its_own_value_and_all_that_were_written() {
        let mut baseline = Baseline::of(CycleSetting { effort: 2, hz: 10 });
        assert!(!baseline.is_written());
        for value in [4, 7, 4] {
            baseline.add(Parameter::Effort, value);
        }
        assert_eq!(baseline.effort, Values { baseline: 2, written: vec![7, 4], left: vec![2, 7, 4] });
        assert!([2, 4, 7].iter().all(|value| baseline.knows(Parameter::Effort, *value)));
        assert!(!baseline.knows(Parameter::Effort, 5) && !baseline.knows(Parameter::Hz, 4));
        assert_eq!(baseline.setting(), CycleSetting { effort: 2, hz: 10 });
    }

    #[test]
    fn a_value_that_keysweep_never_wrote_becomes_the_servers_own_and_one_that_it_wrote_does_not() {
        let mut baseline = Baseline::of(CycleSetting { effort: 2, hz: 10 });
        baseline.add(Parameter::Effort, 4);
        baseline.follow(CycleSetting { effort: 4, hz: 20 });
        assert_eq!(baseline.setting(), CycleSetting { effort: 2, hz: 20 });
        baseline.follow(CycleSetting { effort: 5, hz: 20 });
        assert_eq!(
            (baseline.setting(), baseline.knows(Parameter::Effort, 4)),
            (CycleSetting { effort: 5, hz: 20 }, true)
        );
    }

    #[test]
    fn a_holder_goes_on_with_the_last_written_value_and_while_an_outcome_is_unknown_with_that_before() {
        let at = |effort| CycleSetting { effort, hz: 10 };
        let mut baseline = Baseline::of(at(2));
        let found =
            |baseline: &Baseline| (1..=10).filter(|effort| baseline.may_be_left(at(*effort))).collect::<Vec<_>>();
        assert_eq!(found(&baseline), [2]);
        baseline.add(Parameter::Effort, 4);
        baseline.leave(at(4));
        baseline.add(Parameter::Effort, 7);
        assert_eq!(found(&baseline), [2, 4, 7], "the reply may be lost");
        baseline.leave(at(7));
        assert_eq!(found(&baseline), [2, 7], "4 is neither the server's own nor the last one");
        assert!(!baseline.may_be_left(CycleSetting { effort: 7, hz: 20 }) && baseline.knows(Parameter::Effort, 4));
        baseline.effort.left.clear();
        assert_eq!(found(&baseline), [2, 7], "an old record");
    }

    #[test]
    fn of_two_records_of_a_server_the_later_one_decides_and_both_know_written_values() {
        let record = |recorded_at, written: &[u32], is_restored| {
            let mut baseline = Baseline::of(CycleSetting { effort: 1, hz: 10 });
            written.iter().for_each(|value| baseline.add(Parameter::Effort, *value));
            baseline.leave(CycleSetting { effort: *written.last().expect("one") as u8, hz: 10 });
            BaselineRecord {
                target: "redis://one:6379".into(),
                address: Address::tcp("one", 6379),
                run_id: "abc".into(),
                is_restored,
                times: RecordedTimes { recorded_at, ..RecordedTimes::default() },
                baseline,
            }
        };
        let (restored, held) = (record(5, &[3, 4], true), record(9, &[7], false));
        for merged in [restored.clone().merged(held.clone()), held.merged(restored)] {
            assert_eq!((merged.is_restored, merged.times.recorded_at), (false, 9));
            assert_eq!(merged.baseline.effort, Values { baseline: 1, written: vec![3, 4, 7], left: vec![7] });
        }
    }

    #[test]
    fn a_written_value_that_another_process_took_for_the_servers_own_becomes_no_baseline() {
        let mut first = Baseline::of(CycleSetting { effort: 1, hz: 10 });
        first.add(Parameter::Effort, 4);
        let mut second = Baseline::of(CycleSetting { effort: 4, hz: 20 });
        second.add(Parameter::Effort, 7);
        second.keep(&first);
        assert_eq!((second.effort.baseline, &second.effort.written), (1, &vec![4, 7]));
        assert_eq!(second.hz.baseline, 20, "never written: an operator has set it");
    }

    #[test]
    fn a_record_is_json_that_an_operator_can_read() {
        let record = BaselineRecord {
            target: "redis://one:6379".into(),
            address: Address::tcp("one", 6379),
            run_id: "abc".into(),
            is_restored: false,
            times: RecordedTimes::default(),
            baseline: Baseline::of(CycleSetting { effort: 1, hz: 10 }),
        };
        let text = serde_json::to_string(&record).expect("JSON");
        let expected = r#"{"target":"redis://one:6379","address":"one:6379","run_id":"abc","is_restored":false,"effort":{"baseline":1,"written":[]},"hz":{"baseline":10,"written":[]}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<BaselineRecord>(&text).expect("a record"), record);
    }
}

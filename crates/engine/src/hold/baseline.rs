//! The server's own settings, recorded before the first write, and every value that keysweep wrote since. A value that keysweep
//! wrote never becomes a baseline: Sentinels rewrite configuration files, so that a temporary value may outlive its process.

use serde::{Deserialize, Serialize};

use crate::{stale::CycleSetting, target::Address};

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
    /// Values that keysweep wrote or was about to write, the last one last.
    pub written: Vec<u32>,
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
        let own = |parameter: Parameter| Values { baseline: parameter.of(setting), written: Vec::new() };
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

    /// Adds a value that is about to be written.
    pub fn add(&mut self, parameter: Parameter, value: u32) {
        let values = match parameter {
            Parameter::Effort => &mut self.effort,
            Parameter::Hz => &mut self.hz,
        };
        values.written.retain(|written| *written != value);
        values.written.push(value);
    }

    /// Takes over values that keysweep never wrote as the server's own: an operator has set them after a finished restore.
    pub fn follow(&mut self, found: CycleSetting) {
        for parameter in Parameter::ALL {
            let value = parameter.of(found);
            if !self.knows(parameter, value) {
                match parameter {
                    Parameter::Effort => self.effort.baseline = value,
                    Parameter::Hz => self.hz.baseline = value,
                }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The settings.
    #[serde(flatten)]
    pub baseline: Baseline,
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
        assert_eq!(baseline.effort, Values { baseline: 2, written: vec![7, 4] });
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
    fn a_record_is_json_that_an_operator_can_read() {
        let record = BaselineRecord {
            target: "redis://one:6379".into(),
            address: Address::tcp("one", 6379),
            run_id: "abc".into(),
            is_restored: false,
            baseline: Baseline::of(CycleSetting { effort: 1, hz: 10 }),
        };
        let text = serde_json::to_string(&record).expect("JSON");
        let expected = r#"{"target":"redis://one:6379","address":"one:6379","run_id":"abc","is_restored":false,"effort":{"baseline":1,"written":[]},"hz":{"baseline":10,"written":[]}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<BaselineRecord>(&text).expect("a record"), record);
    }
}

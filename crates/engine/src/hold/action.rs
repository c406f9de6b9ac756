//! What a controller decides, and what became of it.

use super::{
    baseline::{Baseline, Parameter},
    policy::Level,
    state::{HoldState, HoldStatus},
};
use crate::stale::CycleSetting;

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing.
    None,
    /// Scan the primary: a batch has expired.
    Scan,
    /// Write one value.
    Write {
        /// Which setting.
        parameter: Parameter,
        /// The settings that must be found before.
        from: CycleSetting,
        /// The value.
        value: u32,
    },
    /// Restore the server's own settings.
    Restore,
}

/// Scan of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scan {
    /// There was none.
    None,
    /// Asked for at this time.
    Asked(f64),
    /// It runs.
    Running,
    /// It ended at this time.
    Ended(f64),
}

/// A write whose outcome is not known yet, and what was known before it.
#[derive(Debug, Clone)]
pub struct Intention {
    /// Which setting.
    pub parameter: Parameter,
    /// The server's own settings, with what was written over them.
    pub baseline: Option<Baseline>,
    /// When the share would have followed the write before.
    pub settle_until: f64,
    /// Whether nothing was to be restored.
    pub is_restored: bool,
}

/// Outcome of a write or of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The settings are these now.
    Done(CycleSetting),
    /// Nothing was written, for this cause.
    Failed(String),
    /// The server made something else of what was written, and it was put back.
    PutBack(String),
    /// Whether anything was written is unknown: the connection broke.
    Unknown,
}

/// A decision with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The state from now on.
    pub state: HoldState,
    /// Why, one sentence.
    pub sentence: String,
    /// What to do.
    pub action: Action,
    /// The setting that would be written next.
    pub advised: Option<CycleSetting>,
}

impl Decision {
    /// Returns a decision to do nothing.
    pub fn stay(state: HoldState, sentence: impl Into<String>) -> Self {
        Self { state, sentence: sentence.into(), action: Action::None, advised: None }
    }

    /// Returns a decision to restore the server's own settings.
    pub fn restore(state: HoldState, sentence: impl Into<String>) -> Self {
        Self { action: Action::Restore, ..Self::stay(state, sentence) }
    }

    /// Returns a decision to write one value.
    pub fn write(from: CycleSetting, (parameter, value): (Parameter, u32), sentence: String) -> Self {
        let action = Action::Write { parameter, from, value };
        Self { state: HoldState::Settling, sentence, action, advised: Some(parameter.with(from, value)) }
    }
}

/// Returns the state of a server after a restore; an outcome of `None`: another holder has the server, and restores it. A server that
/// keeps raised settings is restoring, whatever the reason to restore them, and one that has its own again is not.
pub fn after_restore(status: &HoldStatus, level: Level, outcome: Option<&Outcome>) -> HoldState {
    match (matches!(outcome, Some(Outcome::Done(_))), level) {
        (true, Level::Observe) => HoldState::Off,
        (true, _) if status.state == HoldState::Restoring => HoldState::Measuring,
        (false, _) if status.differs() && outcome.is_some() => HoldState::Restoring,
        _ => status.state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_restoring_until_it_has_its_own_settings_whatever_the_reason() {
        let setting = |effort| CycleSetting { effort, hz: 10 };
        let (own, raised) = (setting(1), setting(7));
        let (done, failed) = (|| Some(Outcome::Done(own)), || Some(Outcome::Failed("refused".into())));
        for (level, state, found, outcome, expected) in [
            (Level::Hold, HoldState::BackingOff, raised, failed(), HoldState::Restoring),
            (Level::Hold, HoldState::BackingOff, raised, None, HoldState::BackingOff),
            (Level::Hold, HoldState::BackingOff, raised, done(), HoldState::BackingOff),
            (Level::Advise, HoldState::Restoring, raised, Some(Outcome::Unknown), HoldState::Restoring),
            (Level::Advise, HoldState::Restoring, raised, done(), HoldState::Measuring),
            (Level::Observe, HoldState::Restoring, raised, done(), HoldState::Off),
            (Level::Observe, HoldState::Off, own, None, HoldState::Off),
        ] {
            let status = HoldStatus { state, setting: Some(found), baseline: Some(own), ..HoldStatus::default() };
            assert_eq!(after_restore(&status, level, outcome.as_ref()), expected, "{level:?}, {state:?}");
        }
    }
}

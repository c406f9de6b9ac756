//! The part of an instance's page that says how its stale share is held, and the form that sets it.

use keysweep_engine::{HoldLevel, HoldPolicy, HoldState};

use super::fields::Fields;
use crate::{
    model::{HeldInstance, HeldServer},
    units,
};

/// The form as shown: with typed or with saved values.
#[derive(Debug, Clone, Default)]
pub(super) struct HoldForm {
    pub(super) level: String,
    /// Percent.
    pub(super) below: String,
    pub(super) max_effort: String,
    /// Empty: hz is not written.
    pub(super) max_hz: String,
    pub(super) error: String,
}

/// How the stale share of an instance is held.
pub(super) struct HoldPart {
    pub(super) form: HoldForm,
    /// The saved level, also where the form shows another one that was typed and not saved.
    pub(super) level: HoldLevel,
    pub(super) levels: [&'static str; 3],
    pub(super) servers: Vec<HeldServerView>,
    pub(super) changed: bool,
}

/// What is known of one server.
pub(super) struct HeldServerView {
    pub(super) address: String,
    pub(super) state: &'static str,
    pub(super) is_bad: bool,
    pub(super) sentence: String,
    /// What the server's own setting would hold.
    pub(super) without: Option<String>,
}

impl HoldForm {
    fn saved(policy: &HoldPolicy) -> Self {
        Self {
            level: policy.level.to_string(),
            below: ((policy.below * 1e4).round() / 100.0).to_string(),
            max_effort: policy.max_effort.to_string(),
            max_hz: policy.max_hz.map_or_else(String::new, |hz| hz.to_string()),
            error: String::new(),
        }
    }

    pub(super) fn typed(form: &Fields) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        Self {
            level: text("hold_level"),
            below: text("hold_below"),
            max_effort: text("hold_max_effort"),
            max_hz: text("hold_max_hz"),
            error: String::new(),
        }
    }

    /// Returns the policy that the form asks for; what it has no field for stays as it was.
    pub(super) fn policy(&self, before: HoldPolicy) -> Result<HoldPolicy, String> {
        let number = |text: &str, what: &str| text.parse().map_err(|_| format!("Give a whole number as the {what}."));
        let below = units::percent(&self.below).ok_or("Give the target in percent, from 2 to 30.")?;
        let effort: u32 = number(&self.max_effort, "highest effort")?;
        let policy = HoldPolicy {
            level: self.level.parse()?,
            below,
            max_effort: u8::try_from(effort).unwrap_or(u8::MAX),
            max_hz: match self.max_hz.as_str() {
                "" => None,
                text => Some(number(text, "highest hz")?),
            },
            ..before
        };
        policy.validated().map_err(|error| format!("{error}."))
    }
}

impl HoldPart {
    /// Returns the part with saved values, or with typed ones that were not saved.
    pub(super) fn new(hold: HeldInstance, typed: Option<HoldForm>) -> Self {
        let is_shown = hold.policy.level != HoldLevel::Observe || hold.changed;
        let servers = if is_shown { hold.servers } else { Vec::new() };
        let mut form = typed.unwrap_or_else(|| HoldForm::saved(&hold.policy));
        // The list cannot show an unknown level. Preselecting the saved one keeps a second save from changing it.
        if form.level.parse::<HoldLevel>().is_err() {
            form.level = hold.policy.level.to_string();
        }
        Self {
            level: hold.policy.level,
            form,
            levels: HoldLevel::ALL.map(HoldLevel::as_str),
            servers: servers.into_iter().map(HeldServerView::from).collect(),
            changed: hold.changed,
        }
    }
}

impl From<HeldServer> for HeldServerView {
    fn from(HeldServer { address, status }: HeldServer) -> Self {
        let differs = status.differs();
        let own = status.baseline.map_or_else(String::new, |own| format!(" at effort {}", own.effort));
        Self {
            address: address.to_string(),
            state: status.state.as_str(),
            is_bad: matches!(status.state, HoldState::CannotHold | HoldState::Foreign | HoldState::BackingOff),
            sentence: status.sentence,
            without: status
                .without
                .filter(|_| differs)
                .map(|share| format!("Without it {:.1} % would be stale{own}.", share * 100.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(level: &str, below: &str, max_effort: &str, max_hz: &str) -> HoldForm {
        let own = str::to_owned;
        HoldForm {
            level: own(level),
            below: own(below),
            max_effort: own(max_effort),
            max_hz: own(max_hz),
            error: String::new(),
        }
    }

    #[test]
    fn a_form_is_read_in_percent_and_says_what_is_wrong() {
        let policy = form("hold", "8,5 %", "9", "30").policy(HoldPolicy::default()).expect("a policy");
        assert_eq!((policy.level, policy.max_effort, policy.max_hz), (HoldLevel::Hold, 9, Some(30)));
        assert!((policy.below - 0.085).abs() < 1e-9);
        assert_eq!(form("hold", "8", "9", "").policy(policy).map(|policy| policy.max_hz), Ok(None));
        for (wrong, part) in [
            (form("hold", "much", "9", ""), "in percent"),
            (form("hold", "1", "9", ""), "invalid below 0.01"),
            (form("hold", "8", "eleven", ""), "highest effort"),
            (form("hold", "8", "400", ""), "invalid max_effort"),
            (form("on", "8", "7", ""), "expected observe, advise or hold"),
        ] {
            let error = wrong.policy(HoldPolicy::default()).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }
}

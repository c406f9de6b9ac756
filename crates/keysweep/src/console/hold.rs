//! The part of an instance's page that says how its stale share is held, and the form that sets it.

use jiff::Timestamp;
use keysweep_engine::{HoldLevel, HoldPolicy, HoldState};

use super::{
    fields::Fields,
    format::{self, RelativeTime},
    hold_limits::LimitField,
};
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
    /// The limits in the folded part.
    pub(super) limits: Vec<LimitField>,
    pub(super) level_error: String,
    pub(super) below_error: String,
    pub(super) max_effort_error: String,
    pub(super) max_hz_error: String,
}

/// How the stale share of an instance is held.
pub(super) struct HoldPart {
    pub(super) form: HoldForm,
    /// The saved level, also where the form shows another one that was typed and not saved.
    pub(super) level: HoldLevel,
    pub(super) levels: [&'static str; 3],
    pub(super) servers: Vec<HeldServerView>,
    pub(super) changed: bool,
    /// Why the last round did not find or observe all servers, a sentence.
    pub(super) failure: Option<String>,
    /// When a worker has reported last; `None`: not yet, or nothing is held.
    pub(super) reported: Option<RelativeTime>,
    /// Whether no worker has reported for a long time: nothing watches the limits.
    pub(super) is_overdue: bool,
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
            below: format::typed_percent(policy.below),
            max_effort: policy.max_effort.to_string(),
            max_hz: policy.max_hz.map_or_else(String::new, |hz| hz.to_string()),
            limits: LimitField::saved(policy),
            ..Self::default()
        }
    }

    pub(super) fn typed(form: &Fields) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        Self {
            level: text("hold_level"),
            below: text("hold_below"),
            max_effort: text("hold_max_effort"),
            max_hz: text("hold_max_hz"),
            limits: LimitField::typed(form),
            ..Self::default()
        }
    }

    /// Returns the policy that the form asks for, or the form with an error beside each invalid field.
    pub(super) fn policy(mut self, before: HoldPolicy) -> Result<HoldPolicy, Box<Self>> {
        let number = |text: &str, what: &str| text.parse().map_err(|_| format!("Give a whole number as the {what}."));
        let level =
            kept(self.level.parse::<HoldLevel>().map_err(|error| format::sentence(&error)), &mut self.level_error);
        let below = units::percent(&self.below).ok_or("Give the target in percent, from 2 to 30.".to_owned());
        // Each value is checked beside saved ones, which are valid, so that every invalid one is found.
        let below = kept(below.and_then(|below| valid(HoldPolicy { below, ..before })), &mut self.below_error);
        let effort = number(&self.max_effort, "highest effort").and_then(|effort: u32| {
            valid(HoldPolicy { max_effort: u8::try_from(effort).unwrap_or(u8::MAX), ..before })
        });
        let effort = kept(effort, &mut self.max_effort_error);
        let max_hz = match self.max_hz.as_str() {
            "" => Ok(None),
            text => number(text, "highest hz").map(Some),
        };
        let hz = kept(max_hz.and_then(|max_hz| valid(HoldPolicy { max_hz, ..before })), &mut self.max_hz_error);
        let limits = LimitField::apply(&mut self.limits, before);
        match (level, below, effort, hz, limits) {
            (
                Some(level),
                Some(HoldPolicy { below, .. }),
                Some(HoldPolicy { max_effort, .. }),
                Some(hz),
                Some(limits),
            ) => Ok(HoldPolicy { level, below, max_effort, max_hz: hz.max_hz, ..limits }),
            _ => Err(Box::new(self)),
        }
    }

    /// Returns the name of the first field with an error, which takes the focus; empty: none has one.
    pub(super) fn first_fault(&self) -> &'static str {
        let fields = [
            ("hold_level", &self.level_error),
            ("hold_below", &self.below_error),
            ("hold_max_effort", &self.max_effort_error),
            ("hold_max_hz", &self.max_hz_error),
        ];
        let limits = self.limits.iter().map(|field| (field.limit.name(), &field.error));
        fields.into_iter().chain(limits).find(|(_, error)| !error.is_empty()).map_or("", |(field, _)| field)
    }

    /// Whether a limit in the folded part has an error, so that it must be unfolded.
    pub(super) fn has_limit_fault(&self) -> bool {
        self.limits.iter().any(|field| !field.error.is_empty())
    }
}

/// Returns a value, or puts its error beside its field.
fn kept<T>(value: Result<T, String>, error: &mut String) -> Option<T> {
    value.map_err(|cause| *error = cause).ok()
}

fn valid(policy: HoldPolicy) -> Result<HoldPolicy, String> {
    policy.validated().map_err(|error| format::sentence(&error.to_string()))
}

impl HoldPart {
    /// Returns the part with saved values, or with typed ones that were not saved.
    pub(super) fn new(hold: HeldInstance, typed: Option<HoldForm>, is_paused: bool, now: Timestamp) -> Self {
        let is_shown = hold.policy.level != HoldLevel::Observe || hold.changed;
        let is_due = hold.changed || is_shown && !is_paused;
        let is_overdue = is_due && hold.is_overdue(now);
        let reported = hold.reported_at.filter(|_| is_shown).map(|at| RelativeTime::new(at, now));
        let failure = hold.failure.filter(|_| is_shown).map(|cause| format!("Not all servers are watched: {cause}."));
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
            failure,
            reported,
            is_overdue,
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
    use jiff::SignedDuration;

    use super::*;

    fn form(level: &str, below: &str, max_effort: &str, max_hz: &str) -> HoldForm {
        let own = str::to_owned;
        HoldForm {
            level: own(level),
            below: own(below),
            max_effort: own(max_effort),
            max_hz: own(max_hz),
            ..HoldForm::default()
        }
    }

    #[test]
    fn a_form_is_read_in_percent_and_every_invalid_field_has_an_error() {
        let policy = form("hold", "8,5 %", "9", "30").policy(HoldPolicy::default()).expect("a policy");
        assert_eq!((policy.level, policy.max_effort, policy.max_hz), (HoldLevel::Hold, 9, Some(30)));
        assert!((policy.below - 0.085).abs() < 1e-9);
        assert_eq!(form("hold", "8", "9", "").policy(policy).expect("a policy").max_hz, None);
        for (wrong, first, parts) in [
            (form("hold", "much", "9", ""), "hold_below", ["", "in percent", "", ""]),
            (form("hold", "1", "eleven", ""), "hold_below", ["", "Invalid below 0.01", "highest effort", ""]),
            (form("hold", "8", "400", "500"), "hold_max_effort", ["", "", "Invalid max_effort", "Invalid max_hz 500"]),
            (form("on", "8", "7", "x"), "hold_level", ["expected observe, advise or hold", "", "", "highest hz"]),
        ] {
            let found = wrong.policy(HoldPolicy::default()).expect_err(first);
            assert_eq!(found.first_fault(), first);
            let HoldForm { level_error, below_error, max_effort_error, max_hz_error, .. } = *found;
            let errors = [level_error, below_error, max_effort_error, max_hz_error];
            for (error, part) in errors.iter().zip(parts) {
                assert!(error.contains(part) && error.is_empty() == part.is_empty(), "{first}: {error:?}");
            }
        }
    }

    #[test]
    fn a_hold_without_a_worker_is_overdue_after_three_intervals_unless_nothing_is_to_be_held() {
        let now = Timestamp::UNIX_EPOCH;
        let held = |level, changed, seconds| HeldInstance {
            instance_id: "a".into(),
            policy: HoldPolicy { level, ..HoldPolicy::default() },
            updated_at: now - SignedDuration::from_hours(9),
            changed,
            servers: Vec::new(),
            failure: None,
            reported_at: Some(now - SignedDuration::from_secs(seconds)),
        };
        for (hold, is_paused, is_overdue) in [
            (held(HoldLevel::Hold, true, 239), false, false),
            (held(HoldLevel::Hold, true, 241), false, true),
            (held(HoldLevel::Advise, false, 241), false, true),
            (held(HoldLevel::Hold, false, 241), true, false),
            (held(HoldLevel::Observe, true, 241), true, true),
            (held(HoldLevel::Observe, false, 241), false, false),
        ] {
            let sentence = format!("{hold:?}, {is_paused}");
            assert_eq!(HoldPart::new(hold, None, is_paused, now).is_overdue, is_overdue, "{sentence}");
        }
        let recent = HeldInstance { updated_at: now, ..held(HoldLevel::Hold, false, 9_999) };
        assert!(!HoldPart::new(recent, None, false, now).is_overdue, "its policy was set just now");
    }
}

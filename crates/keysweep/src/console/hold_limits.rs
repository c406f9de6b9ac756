//! The limits of holding that few operators change, as fields of the form.

use keysweep_engine::HoldPolicy;

use super::{fields::Fields, format};
use crate::units;

/// A limit that has a field in the folded part of the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    AddedStall,
    AddedCpu,
    Interval,
    SettleFloor,
}

/// The field of a limit, with a saved or a typed value.
#[derive(Debug, Clone)]
pub(super) struct LimitField {
    pub(super) limit: Limit,
    pub(super) value: String,
    pub(super) error: String,
}

impl Limit {
    const ALL: [Self; 4] = [Self::AddedStall, Self::AddedCpu, Self::Interval, Self::SettleFloor];

    /// Returns the name of the field, which is also its id.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AddedStall => "hold_max_added_stall",
            Self::AddedCpu => "hold_max_added_cpu",
            Self::Interval => "hold_interval",
            Self::SettleFloor => "hold_settle_floor",
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::AddedStall => "Longest added stall, milliseconds",
            Self::AddedCpu => "Highest added CPU, percent of a core",
            Self::Interval => "Time between observations",
            Self::SettleFloor => "Shortest time between writes",
        }
    }

    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::AddedStall => "for which a cycle may block clients beyond the server's own settings, 0.1 to 10",
            Self::AddedCpu => "that the cycle may take beyond the server's own settings, 0.1 to 20",
            Self::Interval => "1s to 1h",
            Self::SettleFloor => "1s to 1h, longer where the share takes longer to follow",
        }
    }

    fn shown(self, policy: &HoldPolicy) -> String {
        match self {
            Self::AddedStall => policy.max_added_stall_ms.to_string(),
            Self::AddedCpu => format::typed_percent(policy.max_added_cpu),
            Self::Interval => format!("{}s", policy.interval_seconds),
            Self::SettleFloor => format!("{}s", policy.settle_floor_seconds),
        }
    }

    /// Returns a policy with the limit as typed.
    fn set(self, text: &str, policy: HoldPolicy) -> Result<HoldPolicy, String> {
        let time = || units::seconds(text).map_err(|error| format::sentence(&error));
        let policy = match self {
            Self::AddedStall => {
                let number = text.strip_suffix("ms").unwrap_or(text).trim_end().replace(',', ".");
                let max_added_stall_ms = number.parse().map_err(|_| "Give the stall in milliseconds.".to_owned())?;
                HoldPolicy { max_added_stall_ms, ..policy }
            }
            Self::AddedCpu => {
                let max_added_cpu = units::percent(text).ok_or("Give the CPU in percent of a core.".to_owned())?;
                HoldPolicy { max_added_cpu, ..policy }
            }
            Self::Interval => HoldPolicy { interval_seconds: time()?, ..policy },
            Self::SettleFloor => HoldPolicy { settle_floor_seconds: time()?, ..policy },
        };
        policy.validated().map_err(|error| format::sentence(&error.to_string()))
    }
}

impl LimitField {
    /// Returns the fields with the saved limits.
    pub(super) fn saved(policy: &HoldPolicy) -> Vec<Self> {
        let field = |limit: Limit| Self { limit, value: limit.shown(policy), error: String::new() };
        Limit::ALL.map(field).into()
    }

    /// Returns the fields as typed.
    pub(super) fn typed(form: &Fields) -> Vec<Self> {
        let field = |limit: Limit| Self { limit, value: form.text(limit.name()).to_owned(), error: String::new() };
        Limit::ALL.map(field).into()
    }

    /// Returns the policy with the typed limits, an empty field's as it was; `None`: each invalid field has its error now.
    pub(super) fn apply(fields: &mut [Self], before: HoldPolicy) -> Option<HoldPolicy> {
        let mut policy = before;
        for Self { limit, value, error } in fields.iter_mut().filter(|field| !field.value.is_empty()) {
            match limit.set(value, policy) {
                Ok(set) => policy = set,
                Err(cause) => *error = cause,
            }
        }
        fields.iter().all(|field| field.error.is_empty()).then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(values: [&str; 4]) -> Vec<LimitField> {
        let mut fields = LimitField::saved(&HoldPolicy::default());
        fields.iter_mut().zip(values).for_each(|(field, value)| value.clone_into(&mut field.value));
        fields
    }

    #[test]
    fn limits_are_shown_as_they_are_typed_and_an_empty_field_changes_nothing() {
        let default = HoldPolicy::default();
        let shown: Vec<_> = LimitField::saved(&default).into_iter().map(|field| field.value).collect();
        assert_eq!(shown, ["1", "3", "60s", "60s"]);
        let policy = LimitField::apply(&mut fields(["0,5 ms", "2.5 %", "5", "1m 30s"]), default).expect("a policy");
        let expected = HoldPolicy {
            max_added_stall_ms: 0.5,
            max_added_cpu: 0.025,
            interval_seconds: 5,
            settle_floor_seconds: 90,
            ..default
        };
        assert_eq!(policy, expected);
        assert_eq!(LimitField::apply(&mut LimitField::saved(&expected), default), Some(expected));
        assert_eq!(LimitField::apply(&mut fields([""; 4]), expected), Some(expected));
    }

    #[test]
    fn every_invalid_limit_has_an_error() {
        let mut wrong = fields(["much", "50", "2h", "soon"]);
        assert_eq!(LimitField::apply(&mut wrong, HoldPolicy::default()), None);
        let parts = ["in milliseconds", "Invalid max_added_cpu 0.5", "Invalid interval_seconds 7200", "duration"];
        for (field, part) in wrong.iter().zip(parts) {
            assert!(field.error.contains(part), "{field:?}");
        }
    }
}

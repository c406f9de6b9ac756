//! The types of the product: projects, users, instances, tasks, leases. No I/O and no rules of an operation.
//!
//! Rows are decoded into these types by the store. A column with a fixed set of values becomes an enum; a text that an
//! operator or another version wrote becomes a [`Stored`] value, which may be unreadable without making its row so.

mod adaptive;
mod audit;
mod auto_scan;
mod credential;
mod estimate;
mod hold;
mod host;
mod id;
mod instance;
mod labels;
mod last_scan;
mod poll;
mod project;
mod remedy;
mod stats;
mod stored;
mod survey;
mod task;
mod user;
mod window;

use jiff::Timestamp;

pub use self::{
    adaptive::{Adaptive, Gathering, Hold, TargetShare},
    audit::{AUDIT_FIELDS, AuditEntry, AuditEvent, COMMAND_LINE, HOLD, audit_csv},
    auto_scan::AutoScan,
    credential::{AccessKey, KeyHolder, Sealed, Token, TokenHolder},
    estimate::{
        DEFAULT_TARGET, EstimatePoint, EstimateTotal, EstimatedPrimary, InstanceEstimate, LatestEstimate, Mark,
        MarkKind, PrimaryPoint, Sampling, SettingChange,
    },
    hold::{HeldInstance, HeldServer, HoldLease, HoldReport},
    host::hosts,
    id::{InvalidField, check_id, check_name, is_id, is_name, other_form},
    instance::{Instance, UnreadableField},
    labels::{Label, Labels},
    last_scan::{LastScan, LatestShare, is_recent},
    poll::{PollCode, PollFailure},
    project::Project,
    stats::{InstanceStats, exact_document, exact_in_json},
    stored::Stored,
    survey::{Survey, SurveyOrder, SurveyRow, SurveyStatus},
    task::{LazyFreeHold, Lease, NewTask, Reason, ScanType, Status, Task, TaskDetail},
    user::{Grant, Role, User, UserRoles},
    window::{Window, WindowError, closed_until},
};

/// Returns the time in the resolution that the store keeps, so that a returned value equals the one that is read later.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// A stored or typed name that this version does not know.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("unknown {what} {value:?}: expected {known}")]
pub struct UnknownName {
    /// The kind of name, for example `task status`.
    pub what: &'static str,
    /// The text that was read.
    pub value: String,
    /// The known names, separated by commas.
    pub known: String,
}

/// Gives an enum of unit variants its one spelling in the database, in JSON and on the command line.
macro_rules! named {
    ($type:ident, $what:literal, { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the spelling of this value in the database, in JSON and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(value: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|known| known.as_str() == value).ok_or_else(|| UnknownName {
                    what: $what,
                    value: value.to_owned(),
                    known: [$($name),+].join(", "),
                })
            }
        }
    };
}
pub(crate) use named;

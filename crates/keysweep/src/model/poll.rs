//! Failed polls: a code for programs and pages, and a sentence for people.

use std::{fmt, str::FromStr};

use keysweep_engine::{ConnectFault, Failure, FailureKind};

use super::{UnknownName, named};

/// Kind of a failed poll. Each has a next step of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PollCode {
    /// The server refuses the user or the password, or requires one.
    Authentication,
    /// The user, or this client, may not run a command that a poll needs.
    Permission,
    /// No encrypted connection.
    Tls,
    /// No connection, or no answer in time.
    #[default]
    Unreachable,
    /// The server cannot be scanned.
    Unsupported,
    /// The stored connection settings cannot be used.
    Settings,
    /// The server answers in a way that no scan can use.
    Refused,
}

named!(PollCode, "code of a failed poll", {
    Authentication = "authentication",
    Permission = "permission",
    Tls = "tls",
    Unreachable = "unreachable",
    Unsupported = "unsupported",
    Settings = "settings",
    Refused = "refused",
});

/// Why the last poll of an instance failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollFailure {
    /// The kind.
    pub code: PollCode,
    /// The cause with its remedy, a sentence without secrets.
    pub cause: String,
}

impl PollFailure {
    /// Returns a failure of this kind.
    pub fn new(code: PollCode, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into() }
    }
}

impl From<&Failure> for PollFailure {
    fn from(failure: &Failure) -> Self {
        let code = match (failure.fault, failure.kind) {
            (Some(ConnectFault::Authentication), _) => PollCode::Authentication,
            (Some(ConnectFault::Permission), _) | (None, FailureKind::Denied) => PollCode::Permission,
            (Some(ConnectFault::Tls), _) => PollCode::Tls,
            (None, FailureKind::Unsupported) => PollCode::Unsupported,
            (Some(ConnectFault::Memory), _) | (None, FailureKind::Unreachable | FailureKind::Timeout) => {
                PollCode::Unreachable
            }
            (None, _) => PollCode::Refused,
        };
        Self::new(code, failure.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(FailureKind::Denied, Some(ConnectFault::Authentication), "authentication")]
    #[case(FailureKind::Denied, None, "permission")]
    #[case(FailureKind::Unreachable, Some(ConnectFault::Tls), "tls")]
    #[case(FailureKind::Unreachable, None, "unreachable")]
    #[case(FailureKind::Unsupported, None, "unsupported")]
    #[case(FailureKind::Refused, None, "refused")]
    fn the_code_follows_from_the_type_of_the_failure(
        #[case] kind: FailureKind,
        #[case] fault: Option<ConnectFault>,
        #[case] code: &str,
    ) {
        let failure = Failure { fault, ..Failure::new(kind, "why") };
        let PollFailure { code: found, cause } = PollFailure::from(&failure);
        assert_eq!((found.as_str(), cause.as_str()), (code, "why"));
    }
}

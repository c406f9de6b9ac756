//! Exit codes, by name. Scripts rely on them: add, never renumber.

use std::process::ExitCode;

use keysweep_engine::{FailureKind, Report};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// It was not, for a reason that has no code of its own.
    Failed = 1,
    /// The command line or an input is wrong (clap exits with the same code).
    Usage = 2,
    /// The server cannot be reached, or stayed away.
    CannotConnect = 3,
    /// Wrong password, or a right is missing.
    Denied = 4,
    /// Not a Redis, or something that is not supported.
    Unsupported = 5,
    /// The time was used up.
    Timeout = 6,
    /// Stopped by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<FailureKind> for Exit {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Unreachable => Self::CannotConnect,
            FailureKind::Denied => Self::Denied,
            FailureKind::Unsupported => Self::Unsupported,
            FailureKind::Timeout => Self::Timeout,
            FailureKind::Interrupted => Self::Interrupted,
            FailureKind::Refused | FailureKind::Internal => Self::Failed,
        }
    }
}

impl From<&Report> for Exit {
    fn from(report: &Report) -> Self {
        report.reason.map_or(Self::Done, Self::from)
    }
}

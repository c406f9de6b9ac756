//! Exit codes by name. Scripts rely on them: add codes, never renumber.

use std::process::ExitCode;

use keysweep_engine::{FailureKind, Report};

/// Exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// Failure without a code of its own.
    Failed = 1,
    /// Invalid command line or input (clap exits with the same code).
    Usage = 2,
    /// The server cannot be reached, or stayed unreachable.
    CannotConnect = 3,
    /// Wrong password or missing permission.
    Denied = 4,
    /// Not a Redis or Valkey server, or an unsupported one.
    Unsupported = 5,
    /// Timed out.
    Timeout = 6,
    /// The scan left keys out, or came to no end.
    Incomplete = 7,
    /// Interrupted by Ctrl-C or SIGTERM.
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
            FailureKind::Incomplete => Self::Incomplete,
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

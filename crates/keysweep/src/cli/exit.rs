//! Exit codes by name. Scripts rely on them: add codes, never renumber.

use std::{error::Error, process::ExitCode};

use keysweep_engine::{FailureKind, PolicyError, Report};

use crate::{
    hold::HoldError,
    identity::IdentityError,
    instances::{InstanceError, RangeError},
    model::{InvalidField, UnknownName},
    tls::CertificateError,
};

/// Exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// Failure without a code of its own.
    Failed = 1,
    /// Invalid command line or input, an unknown name among it (clap exits with the same code).
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

/// An error of an option, a variable, the config file or an answer.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct InvalidInput(anyhow::Error);

impl InvalidInput {
    /// Marks an error as one of the input.
    pub fn mark(error: anyhow::Error) -> anyhow::Error {
        Self(error).into()
    }
}

impl From<&anyhow::Error> for Exit {
    fn from(error: &anyhow::Error) -> Self {
        match error.chain().any(is_of_input) {
            true => Self::Usage,
            false => Self::Failed,
        }
    }
}

/// Returns whether an error is about a value or a name that was typed.
fn is_of_input(cause: &(dyn Error + 'static)) -> bool {
    let of_instance = |error: &InstanceError| {
        use InstanceError::{Connection, Invalid, Unknown, Url};
        matches!(error, Invalid(_) | Url(_) | Connection(_) | Unknown { .. })
    };
    if let Some(error) = cause.downcast_ref::<IdentityError>() {
        return matches!(error, IdentityError::Invalid(_) | IdentityError::Unknown { .. } | IdentityError::Password);
    }
    if let Some(error) = cause.downcast_ref::<HoldError>() {
        return match error {
            HoldError::Policy(_) => true,
            HoldError::Instance(error) => of_instance(error),
            HoldError::File(_) => false,
        };
    }
    cause.downcast_ref::<InstanceError>().is_some_and(of_instance)
        || cause.is::<InvalidInput>()
        || cause.is::<InvalidField>()
        || cause.is::<UnknownName>()
        || cause.is::<PolicyError>()
        || cause.is::<RangeError>()
        || cause.is::<CertificateError>()
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_unknown_name_is_invalid_input_whatever_its_context() {
        let unknown = || IdentityError::Unknown { what: "user", value: "ada".into(), remedy: "add one" };
        assert_eq!(Exit::from(&anyhow::Error::from(unknown())), Exit::Usage);
        let wrapped = Err::<(), _>(unknown()).context("nothing was created").expect_err("an error");
        assert_eq!(Exit::from(&wrapped), Exit::Usage);
        let of_a_hold = HoldError::from(InstanceError::Unknown { what: "instance", value: "a".into(), remedy: "b" });
        assert_eq!(Exit::from(&anyhow::Error::from(of_a_hold)), Exit::Usage);
        let marked = InvalidInput::mark(anyhow!("no such file").context("--config c"));
        assert_eq!((Exit::from(&marked), format!("{marked:#}")), (Exit::Usage, "--config c: no such file".to_owned()));
        assert_eq!(Exit::from(&anyhow!("the disk is full")), Exit::Failed);
        assert_eq!(Exit::from(&anyhow::Error::from(InstanceError::InUse("a".into()))), Exit::Failed);
    }
}

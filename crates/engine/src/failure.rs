//! Why a sweep ended otherwise than done: a kind for programs, a sentence with its remedy for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    link::LinkError,
    target::{Address, TargetError},
};

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// No connection, or none for longer than the grace; also while the server loads its data set.
    Unreachable,
    /// A wrong password, or a right that is missing.
    Denied,
    /// Not a Redis, too old, or a mode that is not supported.
    Unsupported,
    /// A check refused to sweep or to go on.
    Refused,
    /// The time that the sweep was given is used up.
    Timeout,
    /// Somebody asked it to stop.
    Interrupted,
    /// The engine's own fault.
    Internal,
}

/// How the sentence ends where a server wants a password. How to give one depends on who sweeps: a command has options
/// for it, a service keeps it with the instance.
pub const WANTS_PASSWORD: &str = "wants a password, and none was given";

impl FailureKind {
    /// The reason code in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// A failure with its sentence, which names the cause and the remedy and carries no secret and no key name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The sentence.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::new(FailureKind::Refused, error.to_string())
    }
}

/// What an error on a link means for the shard behind it.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// The server is not there now and may come back.
    Away(Failure),
    /// Trying again would not help.
    Fatal(Failure),
    /// The node answers and is no primary (any more).
    Demoted,
    /// Nothing is left to sweep here: others have taken it over.
    Dissolved,
    /// The sweep was asked to stop, or its time is used up.
    Halted(FailureKind),
}

impl Trouble {
    /// Reads an error that came up at `address`.
    pub(crate) fn at(address: &Address, error: LinkError) -> Self {
        use FailureKind::{Denied, Refused, Unreachable, Unsupported};
        let away = |sentence: String| Self::Away(Failure::new(Unreachable, sentence));
        let fatal = |kind, sentence: String| Self::Fatal(Failure::new(kind, sentence));
        match error {
            LinkError::Stopped => Self::Halted(FailureKind::Interrupted),
            LinkError::Name(cause) => {
                away(format!("cannot resolve the host name of {address} ({cause}); check the name"))
            }
            LinkError::NotAllowed => fatal(
                FailureKind::Refused,
                format!(
                    "{address} is not among the allowed targets; the service's operator can add it to allowed_targets"
                ),
            ),
            LinkError::Connect(cause) => away(format!(
                "cannot connect to {address}: {cause}; check host, port and firewall, and that the server runs"
            )),
            LinkError::Closed => away(format!(
                "{address} closed the connection; it may be restarting, allow only other clients (protected mode, maxclients), or want TLS"
            )),
            LinkError::TimedOut(patience) => away(format!(
                "{address} did not answer within {} s; it may be overloaded or stopped, want TLS, or not be a Redis or Valkey server",
                patience.as_secs()
            )),
            LinkError::Tls(cause) => away(format!("no encrypted connection to {address}: {cause}")),
            LinkError::Io(cause) => away(format!("the connection to {address} failed: {cause}")),
            LinkError::Protocol(detail) => fatal(
                Unsupported,
                format!(
                    "{address} does not speak the Redis protocol ({detail}); check that the port is a Redis or Valkey server's and not one that wants TLS"
                ),
            ),
            LinkError::Server(error) => match error.code() {
                "LOADING" => away(format!("{address} is still loading its data set; try again when it has finished")),
                "MASTERDOWN" => {
                    away(format!("{address} is a replica that has lost its primary; sweep the primary itself"))
                }
                "NOAUTH" => fatal(Denied, format!("{address} {WANTS_PASSWORD}")),
                "NOPERM" => fatal(
                    Denied,
                    format!("{address} refuses a command ({error}); grant the user what docs/operations.md lists"),
                ),
                "DENIED" => fatal(
                    Denied,
                    format!(
                        "{address} is in protected mode and takes no remote clients; set a password or bind it as you mean to"
                    ),
                ),
                _ if error.is_of_needless_password() => fatal(
                    Denied,
                    format!("{address} has no password set, but one was given; leave it out, or set it on the server"),
                ),
                _ if error.is_denied() => {
                    fatal(Denied, format!("{address} refuses the user or the password; check both ({})", error.code()))
                }
                _ if error.is_away() => away(format!("{address} cannot serve us now ({error}); try again later")),
                _ if error.is_unknown_command() => fatal(
                    Unsupported,
                    format!(
                        "{address} lacks a command that sweeping needs ({error}); Redis 2.8 or later, or any Valkey, is needed"
                    ),
                ),
                _ => fatal(Refused, format!("{address} answered with an error: {error}")),
            },
        }
    }

    /// The failure that this amounts to when nothing more is tried.
    pub(crate) fn into_failure(self, address: &Address) -> Failure {
        match self {
            Self::Away(failure) | Self::Fatal(failure) => failure,
            Self::Demoted | Self::Dissolved => Failure::new(
                FailureKind::Unreachable,
                format!("{address} is not a primary and its primary cannot be found"),
            ),
            Self::Halted(FailureKind::Timeout) => Failure::new(
                FailureKind::Timeout,
                "the sweep used up its time before it was done; give it more, or a faster pace",
            ),
            Self::Halted(kind) => Failure::new(kind, "the sweep was stopped before it was done"),
        }
    }
}

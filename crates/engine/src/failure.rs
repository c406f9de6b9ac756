//! Failures of a sweep: a kind for programs, a sentence with its remedy for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    link::LinkError,
    stop::Cause,
    target::{Address, TargetError},
};

/// Kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// No connection within the reconnect timeout, or the server is loading its data set.
    Unreachable,
    /// A wrong password, or a missing permission.
    Denied,
    /// Not a Redis or Valkey server, too old, or an unsupported mode.
    Unsupported,
    /// A check refused the sweep.
    Refused,
    /// Keys were left out of the scan, or SCAN came to no end.
    Incomplete,
    /// The sweep timed out.
    Timeout,
    /// The stop was raised.
    Interrupted,
    /// A fault of the engine.
    Internal,
}

/// End of the sentence where a server requires a password. The caller adds how to give one: a command has options for it,
/// a service stores it with the instance.
pub const REQUIRES_PASSWORD: &str = "requires a password (NOAUTH)";

impl FailureKind {
    /// Returns the reason code in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Incomplete => "incomplete",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// What keeps a connection from being used, where the kind alone does not tell: each has a remedy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectFault {
    /// The server refuses the user or the password, or requires one.
    Authentication,
    /// The server accepts the user, and refuses a command or this client.
    Permission,
    /// No encrypted connection: the certificates, or a port that does not speak TLS.
    Tls,
    /// Nothing of the server: this process had no memory for its reply at that moment.
    Memory,
}

/// Failure of a sweep. Its sentence names the cause and the remedy, and contains no secret and no key name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// The sentence.
    pub message: String,
    /// What keeps a connection from being used, if that is the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ConnectFault>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// Returns a failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), fault: None }
    }

    /// Whether it says nothing about the server: this process had no memory for a reply.
    pub fn is_of_memory(&self) -> bool {
        self.fault == Some(ConnectFault::Memory)
    }

    /// Returns the same failure with what keeps the connection from being used.
    #[must_use]
    pub(crate) fn with_fault(self, fault: ConnectFault) -> Self {
        Self { fault: Some(fault), ..self }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::new(FailureKind::Refused, error.to_string())
    }
}

/// Error of a shard, by what the shard does next.
#[derive(Debug, Clone)]
pub(crate) enum ShardError {
    /// The server cannot be reached now; it is retried.
    Unreachable(Failure),
    /// Retrying would not help.
    Fatal(Failure),
    /// The node replies, but is not a primary (any more).
    Demoted,
    /// Other shards have taken over all slots of this one.
    Absorbed,
    /// The sweep was stopped or timed out.
    Stopped(FailureKind),
}

impl From<Failure> for ShardError {
    fn from(failure: Failure) -> Self {
        Self::Fatal(failure)
    }
}

impl From<Cause> for ShardError {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Requested => Self::Stopped(FailureKind::Interrupted),
            Cause::TimedOut => Self::Stopped(FailureKind::Timeout),
            // The topology thread cancels a shard whose node is no longer a primary.
            Cause::Cancelled => Self::Demoted,
        }
    }
}

impl ShardError {
    /// Classifies a link error at `address`.
    pub(crate) fn at(address: &Address, error: LinkError) -> Self {
        use ConnectFault::{Authentication, Permission, Tls};
        use FailureKind::{Denied, Refused, Unreachable, Unsupported};
        let unreachable = |sentence: String| Self::Unreachable(Failure::new(Unreachable, sentence));
        let fatal = |kind, sentence: String| Self::Fatal(Failure::new(kind, sentence));
        let denied = |fault, sentence: String| Self::Fatal(Failure::new(Denied, sentence).with_fault(fault));
        let no_tls = |sentence: String| Failure::new(Unreachable, sentence).with_fault(Tls);
        match error {
            LinkError::Stopped => Self::Stopped(FailureKind::Interrupted),
            LinkError::Name(cause) => {
                unreachable(format!("cannot resolve the host name of {address} ({cause}); check the name"))
            }
            LinkError::NotAllowed => fatal(
                FailureKind::Refused,
                format!(
                    "{address} is not among the allowed targets; the service's operator can add it to allowed_targets"
                ),
            ),
            LinkError::Connect(cause) if address.host().is_none() => unreachable(format!(
                "cannot connect to {address}: {cause}; check the path, its permissions, and that the server is running with this unixsocket"
            )),
            LinkError::Connect(cause) => unreachable(format!(
                "cannot connect to {address}: {cause}; check host, port and firewall, and that the server is running"
            )),
            LinkError::Closed => unreachable(format!(
                "{address} closed the connection; it may be restarting, refuse this client (protected mode, maxclients), or require TLS"
            )),
            LinkError::ClosedAt(command) => unreachable(format!(
                "{address} closed the connection at {command}, after it had answered PING; proxies that forward only some commands (twemproxy) do that: name the server behind it, or try again if the server was restarting"
            )),
            LinkError::TimedOut(timeout) => unreachable(format!(
                "{address} did not answer within {} s; it may be overloaded or stopped, require TLS, or not be a Redis or Valkey server",
                timeout.as_secs()
            )),
            LinkError::Tls(cause) => Self::Fatal(no_tls(format!("no encrypted connection to {address}: {cause}"))),
            LinkError::PlainPort => Self::Fatal(no_tls(format!(
                "no encrypted connection to {address}: the server does not speak TLS on this port; use the scheme without the second s"
            ))),
            LinkError::Handshake(cause) => {
                Self::Unreachable(no_tls(format!("no encrypted connection to {address}: {cause}")))
            }
            LinkError::Io(cause) => unreachable(format!("the connection to {address} failed: {cause}")),
            LinkError::Protocol(detail) => fatal(
                Unsupported,
                format!(
                    "{address} does not speak the Redis protocol ({detail}); check that the port belongs to a Redis or Valkey server and does not require TLS"
                ),
            ),
            LinkError::TooLarge { bytes, elements } => fatal(
                Unsupported,
                format!(
                    "{address} answers with more than {bytes} bytes or {elements} elements, more than a Redis or Valkey server sends for this command; check that the port belongs to one"
                ),
            ),
            LinkError::NoMemory => {
                let sentence = format!(
                    "the reply of {address} was not read: those of other servers take all memory that this process has for replies; try again when their scans, polls and estimates have finished"
                );
                Self::Unreachable(Failure::new(Unreachable, sentence).with_fault(ConnectFault::Memory))
            }
            LinkError::TooManyDatabases(most) => fatal(
                Refused,
                format!(
                    "{address} has keys in more than {most} databases, the most that are scanned at once; name one in the URL"
                ),
            ),
            LinkError::Server(error) => match error.code() {
                "LOADING" => {
                    unreachable(format!("{address} is still loading its data set; try again when it has finished"))
                }
                "MASTERDOWN" => {
                    unreachable(format!("{address} is a replica that has lost its primary; scan the primary itself"))
                }
                "NOAUTH" => denied(Authentication, format!("{address} {REQUIRES_PASSWORD}")),
                "NOPERM" => denied(
                    Permission,
                    format!("{address} refuses a command ({error}); grant the user what docs/servers.md lists"),
                ),
                "DENIED" => denied(
                    Permission,
                    format!(
                        "{address} is in protected mode and refuses remote clients; set a password or change its bind addresses"
                    ),
                ),
                _ if error.is_about_needless_password() => denied(
                    Authentication,
                    format!("{address} has no password set, but one was given; omit it, or set it on the server"),
                ),
                _ if error.is_denied() => denied(
                    Authentication,
                    format!("{address} refuses the user or the password; check both ({})", error.code()),
                ),
                _ if error.is_temporary() => {
                    unreachable(format!("{address} cannot serve requests now ({error}); try again later"))
                }
                _ if error.is_unknown_command() => fatal(
                    Unsupported,
                    format!(
                        "{address} lacks a command that a scan needs ({error}); Redis 2.8 or later, or any Valkey, is required"
                    ),
                ),
                _ => fatal(Refused, format!("{address} answered with an error: {error}")),
            },
        }
    }

    /// Returns the failure of a shard that is not retried.
    pub(crate) fn into_failure(self, address: &Address) -> Failure {
        match self {
            Self::Unreachable(failure) | Self::Fatal(failure) => failure,
            Self::Demoted | Self::Absorbed => Failure::new(
                FailureKind::Unreachable,
                format!("{address} is not a primary and its primary cannot be found"),
            ),
            Self::Stopped(FailureKind::Timeout) => Failure::new(
                FailureKind::Timeout,
                "the scan timed out before it was done; raise the timeout or use a faster pace",
            ),
            Self::Stopped(kind) => Failure::new(kind, "the scan was stopped before it was done"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::link::ServerError;

    fn refused(reply: &str) -> LinkError {
        LinkError::Server(ServerError(reply.into()))
    }

    #[rstest]
    #[case(refused("NOAUTH Authentication required."), Some(ConnectFault::Authentication))]
    #[case(refused("WRONGPASS invalid username-password pair"), Some(ConnectFault::Authentication))]
    #[case(refused("ERR invalid password"), Some(ConnectFault::Authentication))]
    #[case(refused("NOPERM this user has no permissions"), Some(ConnectFault::Permission))]
    #[case(refused("DENIED Redis is running in protected mode"), Some(ConnectFault::Permission))]
    #[case(LinkError::Tls("unknown issuer".into()), Some(ConnectFault::Tls))]
    #[case(LinkError::PlainPort, Some(ConnectFault::Tls))]
    #[case(LinkError::Handshake("closed".into()), Some(ConnectFault::Tls))]
    #[case(LinkError::Connect("connection refused".into()), None)]
    #[case(refused("LOADING Redis is loading the dataset in memory"), None)]
    fn a_failure_says_whether_credentials_permissions_or_tls_are_the_cause(
        #[case] error: LinkError,
        #[case] fault: Option<ConnectFault>,
    ) {
        let address = Address::tcp("cache.example", 6379);
        assert_eq!(ShardError::at(&address, error).into_failure(&address).fault, fault);
    }
}

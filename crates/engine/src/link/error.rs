//! What can go wrong on a connection to one node.

use std::{io, time::Duration};

/// A connection, or a call on it, failed. After anything but `Server` the connection is of no further use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The host's name has no address, or the look-up took too long.
    #[error("the name cannot be resolved: {0}")]
    Name(String),
    /// The name has addresses, but none that the caller allows.
    #[error("it is not among the allowed targets")]
    NotAllowed,
    /// Nobody accepted the connection.
    #[error("{0}")]
    Connect(String),
    /// The peer closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The peer did not answer within the deadline.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The operating system reported an error.
    #[error("{0}")]
    Io(String),
    /// No encrypted connection came about, or it was ended for a reason of TLS.
    #[error("{0}")]
    Tls(String),
    /// The peer does not speak RESP, or not as it should.
    #[error("not the Redis protocol: {0}")]
    Protocol(&'static str),
    /// The server answered with an error; the connection is still good.
    #[error("{0}")]
    Server(ServerError),
    /// The sweep was asked to stop while waiting for this answer.
    #[error("stopped")]
    Stopped,
}

impl LinkError {
    pub(crate) fn io(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => Self::Closed,
            _ => super::tls::refusal_in(error).unwrap_or_else(|| Self::Io(error.to_string())),
        }
    }
}

/// An error reply, for example `NOPERM this user has no permissions to run the 'scan' command`. It is shown without control
/// characters, which could drive a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.replace(char::is_control, ""))]
pub struct ServerError(pub String);

impl ServerError {
    /// The first word: `ERR`, `NOPERM`, `LOADING`, …
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// Whether the server asks to come back later rather than refusing.
    pub fn is_away(&self) -> bool {
        matches!(self.code(), "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN")
            || self.0.contains("max number of clients")
    }

    /// Whether a credential or a right is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self.code(), "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED")
            || self.0.contains("invalid password")
            || self.0.contains("invalid username-password")
            || self.is_of_needless_password()
    }

    /// Whether a password was given where none is set.
    pub fn is_of_needless_password(&self) -> bool {
        self.0.contains("without any password configured") || self.0.contains("no password is set")
    }

    /// Whether this server does not have the command at all.
    pub fn is_unknown_command(&self) -> bool {
        self.0.contains("unknown command") || self.0.contains("unknown subcommand")
    }
}

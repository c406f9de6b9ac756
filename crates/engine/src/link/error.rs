//! Errors of a connection to one node.

use std::time::Duration;

/// Error of a connection or of a call on it. After any but `Server` the connection is unusable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The host's name has no address, or its resolution took too long.
    #[error("the name cannot be resolved: {0}")]
    Name(String),
    /// The name has addresses, but the caller allows none of them.
    #[error("it is not among the allowed targets")]
    NotAllowed,
    /// The connection was not accepted.
    #[error("{0}")]
    Connect(String),
    /// The peer closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The peer answered PING and closed the connection at this command, as a proxy does that does not forward it.
    #[error("the connection was closed at {0}")]
    ClosedAt(&'static str),
    /// No reply came within the deadline.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The operating system reported an error.
    #[error("{0}")]
    Io(String),
    /// The two ends cannot speak TLS with each other, whatever is tried again.
    #[error("{0}")]
    Tls(String),
    /// The peer answers without TLS on a port that was dialled with it.
    #[error("the server does not speak TLS on this port")]
    PlainPort,
    /// The TLS handshake did not come to its end, or the TLS session was ended.
    #[error("{0}")]
    Handshake(String),
    /// The peer does not speak RESP, or sends invalid RESP.
    #[error("not the Redis protocol: {0}")]
    Protocol(&'static str),
    /// A reply has more bytes or elements than any server sends for this command.
    #[error("a reply of more than {bytes} bytes or {elements} elements")]
    TooLarge {
        /// Most bytes that it may have.
        bytes: usize,
        /// Most elements that it may have.
        elements: usize,
    },
    /// The replies of other servers take all memory that there is for replies.
    #[error("no memory for its reply: those of other servers take all that there is for replies")]
    NoMemory,
    /// INFO lists more databases than are scanned.
    #[error("more than {0} databases hold keys")]
    TooManyDatabases(usize),
    /// The server replied with an error; the connection stays usable.
    #[error("{0}")]
    Server(ServerError),
    /// The stop was raised while waiting for this reply.
    #[error("stopped")]
    Stopped,
}

/// An error reply, for example `NOPERM this user has no permissions to run the 'scan' command`. It is shown without control
/// characters, which could drive a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.replace(char::is_control, ""))]
pub struct ServerError(pub String);

impl ServerError {
    /// Returns the first word: `ERR`, `NOPERM`, `LOADING`, …
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// Whether the error is temporary, so that the command may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self.code(), "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN")
            || self.0.contains("max number of clients")
    }

    /// Whether the server does not accept a cursor. Redis and Valkey accept any number; a proxy may not.
    pub fn is_about_cursor(&self) -> bool {
        self.0.to_ascii_lowercase().contains("cursor")
    }

    /// Whether the server refuses the command, in whatever words: vendors have their own. A temporary error is no refusal.
    pub fn is_refusal(&self) -> bool {
        !self.is_temporary()
    }

    /// Whether the server is out of memory (used_memory above maxmemory).
    pub fn is_out_of_memory(&self) -> bool {
        self.code() == "OOM"
    }

    /// Whether SELECT named a database that the server does not have, or a number that none can have.
    pub fn is_about_absent_database(&self) -> bool {
        ["out of range", "invalid DB index", "not allowed in cluster mode"].iter().any(|part| self.0.contains(part))
    }

    /// Whether a credential or a permission is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self.code(), "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED")
            || self.0.contains("invalid password")
            || self.0.contains("invalid username-password")
            || self.is_about_needless_password()
    }

    /// Whether a password was given where none is set.
    pub fn is_about_needless_password(&self) -> bool {
        self.0.contains("without any password configured") || self.0.contains("no password is set")
    }

    /// Whether this server does not have the command.
    pub fn is_unknown_command(&self) -> bool {
        self.0.contains("unknown command") || self.0.contains("unknown subcommand")
    }
}

//! The nouns that every room shares: projects, users, instances, tasks, leases. No I/O, no rules.
//!
//! Rows decode into these types at the store's door, so that a state that cannot be does not get in.

mod host;
mod people;
mod window;

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::host::hosts;
pub use self::people::{AccessKey, AuditEntry, Grant, KeyHolder, Project, Role, Token, TokenHolder, User, UserRoles};
pub use self::window::{Window, WindowError, closed_until};

/// Bytes that are worthless without the master key (see `fleet::vault`). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// A value that was read is not one of those this version knows.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} is not a {what}; known are {known}")]
pub struct UnknownName {
    /// What was to be read, for example `task status`.
    pub what: &'static str,
    /// What stood there.
    pub value: String,
    /// The names that would have been accepted.
    pub known: String,
}

/// Gives an enum of unit variants its one spelling in the database, in JSON and on the command line.
macro_rules! named {
    ($type:ident, $what:literal, { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one spelling of this value, in the database, in JSON and on the command line.
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
use named;

/// A server, replication group or cluster that is swept as one.
///
/// Secrets stand in fields of their own, encrypted; `url` never carries one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// 32 hexadecimal digits, or a UUID as the caller gave it.
    pub id: String,
    /// The project that owns it.
    pub project_id: String,
    /// Unique in its project.
    pub name: String,
    /// Where it is, without user and password.
    pub url: String,
    /// User name on the data nodes (ACL); `None`: the default user.
    pub username: Option<String>,
    /// Password on the data nodes.
    pub password: Option<Sealed>,
    /// User name on the sentinels.
    pub sentinel_username: Option<String>,
    /// Password on the sentinels.
    pub sentinel_password: Option<Sealed>,
    /// Certificates of the authorities to trust, PEM; `None`: the system's.
    pub ca_pem: Option<String>,
    /// Client certificate, PEM.
    pub cert_pem: Option<String>,
    /// Client key, PEM, encrypted.
    pub client_key: Option<Sealed>,
    /// Name that the servers' certificates must carry; `None`: the host's.
    pub server_name: Option<String>,
    /// `announced=dialled` pairs, separated by commas; `None`: nodes are reached where they say.
    pub address_map: Option<String>,
    /// Name of the pace of manual scans (gentle, normal, fast, max).
    pub pace: String,
    /// Off-peak window, as `02:00-05:00 Europe/Paris`; `None`: any time.
    pub window: Option<String>,
    /// Whether the window binds manual scans too.
    pub window_binds_manual: bool,
    /// Whether sweeps may turn `lazyfree-lazy-expire` on while they run.
    pub manage_lazyfree: bool,
    /// A paused instance accepts no new task.
    pub paused: bool,
    /// What was last seen of the server, if anything.
    pub facts: Option<Facts>,
    /// Why nothing was seen of it at the last look, a sentence; `None`: it was seen, or nobody has looked yet.
    pub unreachable: Option<String>,
    /// When it was registered.
    pub created_at: Timestamp,
}

impl Instance {
    /// An instance with nothing but what it must have: reached as its URL says, pace normal, at any time.
    pub fn new(id: String, project_id: String, name: String, url: String, created_at: Timestamp) -> Self {
        Self {
            id,
            project_id,
            name,
            url,
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            ca_pem: None,
            cert_pem: None,
            client_key: None,
            server_name: None,
            address_map: None,
            pace: "normal".into(),
            window: None,
            window_binds_manual: false,
            manage_lazyfree: false,
            paused: false,
            facts: None,
            unreachable: None,
            created_at,
        }
    }
}

/// What a server said of itself the last time that it was asked. Stored as versioned JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `redis` or `valkey`.
    pub engine: String,
    /// For example `7.0.15`.
    pub engine_version: String,
    /// standalone, sentinel or cluster.
    pub mode: String,
    /// Keys in all databases, expired ones that are still held included.
    pub keys: u64,
    /// Keys that have a TTL.
    pub keys_with_ttl: u64,
    /// Keys that are probably dead, by the servers' own running average; `None` where they do not tell. Earlier versions
    /// did not keep it.
    #[serde(default)]
    pub dead_keys: Option<u64>,
    /// `used_memory` of all primaries, bytes.
    pub used_memory: u64,
    /// `maxmemory` of all primaries, bytes; 0: no limit.
    pub max_memory: u64,
    /// The hosts of the primaries, as keysweep reaches them. Earlier versions did not keep them.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The primaries as `host:port`, as keysweep reaches them; one for each shard. Earlier versions did not keep them.
    #[serde(default)]
    pub primaries: Vec<String>,
    /// When the server said so.
    pub seen_at: Timestamp,
}

/// When an instance is swept by itself, and how. At most one an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoScan {
    /// What is swept.
    pub instance_id: String,
    /// Whether it is.
    pub enabled: bool,
    /// When the first run is due; there whenever it is enabled.
    pub first_scan_at: Option<Timestamp>,
    /// From one due time to the next; zero: again after the last has ended.
    pub interval: Duration,
    /// Running time that each run may use.
    pub timeout: Duration,
    /// Keys every 5 ms.
    pub scan_keys_count: u32,
    /// When it was last set.
    pub updated_at: Timestamp,
}

/// Where a task stands. The reason code, beside it, says why it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, not started.
    Waiting,
    /// Started; stays so through restarts and takeovers.
    Running,
    /// Ended: every primary was swept.
    Success,
    /// Ended otherwise.
    Failed,
}
named!(Status, "task status", { Waiting = "waiting", Running = "running", Success = "success", Failed = "failed" });

impl Status {
    /// Whether a task in this state still holds its instance.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

/// Who asked for a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanType {
    /// A client of the API.
    Manual,
    /// The schedule.
    Auto,
}
named!(ScanType, "scan type", { Manual = "manual", Auto = "auto" });

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Reason {
    /// It used up its running time.
    Timeout,
    /// A user cancelled it.
    Cancelled,
    /// No connection, or none for longer than the reconnect timeout.
    Unreachable,
    /// Wrong password, or a permission is missing.
    Denied,
    /// Not a Redis, too old, or an unsupported mode.
    Unsupported,
    /// A check refused to scan or to continue.
    Refused,
    /// Five workers in a row died over it without progress.
    Crashed,
    /// keysweep's own fault; its log says more.
    Internal,
    /// A code that a later version wrote.
    Other(String),
}

impl Reason {
    /// Every reason that this version writes.
    pub const ALL: &'static [Self] = &[
        Self::Timeout,
        Self::Cancelled,
        Self::Unreachable,
        Self::Denied,
        Self::Unsupported,
        Self::Refused,
        Self::Crashed,
        Self::Internal,
    ];

    /// Returns the reason's code in the database, in JSON and on the command line.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Crashed => "crashed",
            Self::Internal => "internal",
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for Reason {
    fn from(code: String) -> Self {
        Self::ALL.iter().find(|known| known.as_str() == code).cloned().unwrap_or(Self::Other(code))
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

/// An expired key scan task, as far as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Grows strictly with creation; orders lists.
    pub seq: i64,
    /// 32 hexadecimal digits.
    pub id: String,
    /// The project of the instance.
    pub project_id: String,
    /// What is swept.
    pub instance_id: String,
    /// Where it stands.
    pub status: Status,
    /// Why it failed; only then.
    pub reason: Option<Reason>,
    /// The failure in a sentence, without secrets and key names.
    pub reason_detail: Option<String>,
    /// Who asked.
    pub scan_type: ScanType,
    /// Name of the user who asked; `None`: the schedule, or no authentication.
    pub requested_by: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was first claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the schedule wanted it; `None` for manual tasks.
    pub due_at: Option<Timestamp>,
    /// Whether it was asked to stop.
    pub cancel_requested: bool,
    /// Running time that it may use.
    pub timeout: Duration,
    /// Running time that it has used, over all its workers.
    pub used: Duration,
    /// Takeovers in a row that found no progress since the one before.
    pub attempts: u32,
    /// At most this many keys a second; `None`: as the pace allows.
    pub keys_per_second: Option<u64>,
    /// Expired keys released so far.
    pub released: u64,
    /// Keys looked at so far: returned plus released.
    pub scanned: u64,
    /// Whether `released` is exact.
    pub exact: bool,
}

/// A task with the versioned JSON documents beside its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDetail {
    /// The row.
    pub task: Task,
    /// Live progress, as JSON; `None` before the first beat.
    pub progress: Option<String>,
    /// Where each shard stands, as JSON.
    pub checkpoint: Option<String>,
    /// The engine's report, as JSON; `None` until it ends.
    pub report: Option<String>,
}

/// A task that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// 32 hexadecimal digits, unused so far.
    pub id: String,
    /// The project of the instance.
    pub project_id: String,
    /// What to sweep.
    pub instance_id: String,
    /// Who asks.
    pub scan_type: ScanType,
    /// Name of the user who asks.
    pub requested_by: Option<String>,
    /// Running time that it may use.
    pub timeout: Duration,
    /// At most this many keys a second.
    pub keys_per_second: Option<u64>,
    /// When the schedule wanted it.
    pub due_at: Option<Timestamp>,
    /// The hosts that its sweep burdens; none: not known, so that no limit holds.
    pub hosts: Vec<String>,
    /// Records of its kind that the instance keeps, this one included; the oldest are forgotten, those of active tasks never.
    pub records: u32,
}

/// The right to change a running task, until it expires or is given back.
///
/// `epoch` is the fence: a store verb that gets an older one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The instance that is swept: at most one sweep an instance.
    pub instance_id: String,
    /// The task that it was taken for.
    pub task_id: String,
    /// The worker.
    pub owner: String,
    /// Grows with every claim, across tasks.
    pub epoch: i64,
}

/// A sweep that counts on `lazyfree-lazy-expire` being on in a server process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LazyFreeHold {
    /// The server process.
    pub run_id: String,
    /// The task whose sweep it is.
    pub task_id: String,
    /// Where the process was reached, as `host:port`.
    pub address: String,
}

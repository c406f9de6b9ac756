//! Tasks, the leases under which they run, and what they hold on servers.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use keysweep_engine::{Progress, Report};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use utoipa::ToSchema;

use super::{UnknownName, named};

/// State of a task. The reason code, beside it, says why a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TaskStatus)]
pub enum Status {
    /// Created, not started.
    Waiting,
    /// Started; stays so through restarts and takeovers.
    Running,
    /// Finished: every primary was scanned.
    Success,
    /// Finished without scanning every primary.
    Failed,
}
named!(Status, "task status", { Waiting = "waiting", Running = "running", Success = "success", Failed = "failed" });

impl Status {
    /// Returns whether a task in this state still occupies its instance.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

/// What triggered a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScanType {
    /// A client of the API.
    Manual,
    /// The schedule.
    Auto,
}
named!(ScanType, "scan type", { Manual = "manual", Auto = "auto" });

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The task used up its running time.
    Timeout,
    /// A user cancelled the task.
    Cancelled,
    /// No connection, or none within the reconnect timeout.
    Unreachable,
    /// Wrong password, or a missing right.
    Denied,
    /// Not a Redis or Valkey, too old, or an unsupported topology.
    Unsupported,
    /// A pre-flight check or a guard refused the scan, or a stored setting of the instance cannot be read.
    Refused,
    /// The scan left keys out, or came to no end.
    Incomplete,
    /// Five workers in a row crashed over the task without getting any further.
    Crashed,
    /// keysweep's own fault; its log says more.
    Internal,
    /// A code of a later version, as it is stored.
    Other(String),
}

impl Reason {
    /// Every code of this version, in the order of declaration.
    pub const ALL: &'static [Self] = &[
        Self::Timeout,
        Self::Cancelled,
        Self::Unreachable,
        Self::Denied,
        Self::Unsupported,
        Self::Refused,
        Self::Incomplete,
        Self::Crashed,
        Self::Internal,
    ];

    /// Returns the code, as the database and JSON spell it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Incomplete => "incomplete",
            Self::Crashed => "crashed",
            Self::Internal => "internal",
            Self::Other(code) => code,
        }
    }
}

impl From<&str> for Reason {
    fn from(code: &str) -> Self {
        Self::ALL.iter().find(|known| known.as_str() == code).cloned().unwrap_or_else(|| Self::Other(code.to_owned()))
    }
}

impl From<String> for Reason {
    fn from(code: String) -> Self {
        Self::from(code.as_str())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An expired key scan task, with what lists show of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Grows strictly with creation; orders lists.
    pub seq: i64,
    /// 32 hexadecimal digits.
    pub id: String,
    /// Id of the instance's project.
    pub project_id: String,
    /// Id of the instance that is scanned.
    pub instance_id: String,
    /// Its state.
    pub status: Status,
    /// Why it failed; only then.
    pub reason: Option<Reason>,
    /// The failure in a sentence, without secrets and key names.
    pub reason_detail: Option<String>,
    /// What triggered it.
    pub scan_type: ScanType,
    /// Name of the user who triggered it; `None`: the schedule, or no authentication.
    pub triggered_by: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was first claimed.
    pub started_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
    /// When its scheduled run was due; `None` for manual tasks.
    pub due_at: Option<Timestamp>,
    /// Whether a user asked it to stop.
    pub cancel_requested: bool,
    /// Running time that it may use.
    pub timeout: Duration,
    /// Running time that it has used, over all its workers.
    pub used: Duration,
    /// Takeovers in a row that found no progress since the one before.
    pub attempts: u32,
    /// Keys scanned per second at most; `None`: as many as the pace allows.
    pub keys_per_second: Option<u64>,
    /// Expired keys reclaimed so far.
    pub reclaimed: u64,
    /// Keys scanned so far: returned plus reclaimed.
    pub scanned: u64,
    /// Whether `reclaimed` is exact.
    pub exact: bool,
}

/// A task with the versioned JSON documents beside its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDetail {
    /// The row.
    pub task: Task,
    /// Live progress, as JSON; `None` before the first heartbeat.
    pub progress: Option<String>,
    /// Checkpoint of the scan, as JSON.
    pub checkpoint: Option<String>,
    /// The engine's report, as JSON; `None` until the task finishes.
    pub report: Option<String>,
    /// Why the documents cannot be read, where another version of keysweep wrote them.
    pub documents_error: Option<String>,
}

impl TaskDetail {
    /// Returns the live progress, or a sentence that says why the stored one cannot be read.
    pub fn read_progress(&self) -> Result<Option<Progress>, String> {
        self.read("progress", self.progress.as_deref())
    }

    /// Returns the engine's report, or a sentence that says why the stored one cannot be read.
    pub fn read_report(&self) -> Result<Option<Report>, String> {
        self.read("report", self.report.as_deref())
    }

    /// Reads a document through the engine's type, which knows the names of earlier versions as well.
    fn read<T: DeserializeOwned>(&self, name: &str, text: Option<&str>) -> Result<Option<T>, String> {
        let problem = |cause: &str| format!("the stored {name} of the task cannot be read: {cause}");
        match (&self.documents_error, text) {
            (Some(cause), _) => Err(problem(cause)),
            (None, Some(text)) => serde_json::from_str(text).map(Some).map_err(|error| problem(&error.to_string())),
            (None, None) => Ok(None),
        }
    }
}

/// A task to be created.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// 32 hexadecimal digits, unused so far.
    pub id: String,
    /// Id of the instance's project.
    pub project_id: String,
    /// Id of the instance to scan.
    pub instance_id: String,
    /// What triggers it.
    pub scan_type: ScanType,
    /// Name of the user who triggers it.
    pub triggered_by: Option<String>,
    /// Running time that it may use.
    pub timeout: Duration,
    /// Keys scanned per second at most.
    pub keys_per_second: Option<u64>,
    /// When its scheduled run was due.
    pub due_at: Option<Timestamp>,
    /// The hosts that its scan runs on; none: not known, so that no per-host concurrency limit applies.
    pub hosts: Vec<String>,
    /// Task records of its kind that the instance keeps, this one included; older ones are deleted, active ones never.
    pub history_retention: u32,
}

/// The right to change a running task, until it expires or is released.
///
/// `epoch` is the fence: a store operation with an older one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Id of the instance that is scanned: at most one scan per instance.
    pub instance_id: String,
    /// Id of the task that the lease was acquired for.
    pub task_id: String,
    /// Id of the worker.
    pub owner: String,
    /// Grows with every claim, across tasks.
    pub epoch: i64,
}

/// A scan that needs `lazyfree-lazy-expire` turned on in a server process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LazyFreeHold {
    /// The server process.
    pub run_id: String,
    /// Id of the task.
    pub task_id: String,
    /// Address of the process, as `host:port`.
    pub address: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_code_of_a_later_version_is_kept_as_it_is() {
        for known in Reason::ALL {
            assert_eq!(Reason::from(known.as_str()), *known);
        }
        let later = Reason::from("preempted");
        assert_eq!(later, Reason::Other("preempted".into()));
        assert_eq!(serde_json::to_string(&later).expect("a code"), "\"preempted\"");
    }
}

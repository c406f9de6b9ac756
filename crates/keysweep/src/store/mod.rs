//! What the product asks of a database, and nothing of how: the SQL lives in one file an engine.
//!
//! Every verb is one transaction, none waits for a server, and none that changes a running task works without the
//! task's lease.

pub mod postgres;
pub mod sqlite;

mod doubt;
mod merge;
mod people;
mod row;
mod schedule;
mod secrets;
mod survey;
mod timing;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

pub use self::people::{AuditPage, People};
pub use self::schedule::{DuePlans, Plan, Timetable};
pub use self::secrets::{Resealed, SecretAt, SecretField, Secrets};
pub use self::survey::{InstanceOverview, Overview, Survey};
pub use self::timing::{Timing, Verbs};
use crate::model::{
    AccessKey, AuditEntry, AutoScan, Facts, Grant, Instance, KeyHolder, LazyFreeHold, Lease, NewTask, Project, Reason,
    Status, Task, TaskDetail, User,
};

/// A store, shared by every room that needs one.
pub type SharedStore = Arc<dyn Store>;

/// Which clock a verb goes by: production uses the database's, so that workers agree; tests move their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// The database's clock at the time of the transaction.
    Database,
    /// This instant.
    At(Timestamp),
}

/// Why a verb did nothing. Every error leaves the store as it was, but for one case: when the answer to a commit is lost,
/// the error is `Unavailable` and what the verb wrote may have been kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, no space, no permission: may pass by itself.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A name or id that must be unique is taken.
    #[error("another {what} has this {field} already")]
    Taken {
        /// The noun.
        what: &'static str,
        /// The field that must be unique.
        field: &'static str,
    },
    /// Something that the row refers to does not exist.
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// A row that this version cannot read.
    #[error("the database holds something that this version cannot read: {0}")]
    Unreadable(String),
    /// keysweep and its schema disagree, for example about a value that may not be: a fault of keysweep's own.
    #[error("the database refuses what this version asks of it: {0}")]
    Internal(String),
}

impl StoreError {
    /// For what cannot be done beside a worker: who does it comes again when all have ended.
    fn sweeping() -> Self {
        Self::Unavailable("a sweep is running; stop every keysweep that uses this database first".into())
    }
}

/// What became of a request for a task.
#[derive(Debug, Clone)]
pub enum Created {
    /// A new one was written.
    New(Task),
    /// The instance had an active one already, and this is it.
    Active(Task),
    /// None: its operator has paused the instance.
    Paused,
}

/// Which tasks of an instance a list shows. The filter comes first, the counts after it, the page last.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Only tasks in this state.
    pub status: Option<Status>,
    /// Tasks to leave out at the newest end.
    pub offset: u64,
    /// At most this many.
    pub limit: u64,
}

/// A page of tasks, newest first.
#[derive(Debug, Clone)]
pub struct Page {
    /// The tasks of this page.
    pub tasks: Vec<Task>,
    /// Tasks that pass the filter, on all pages.
    pub count: u64,
    /// Expired keys that these released.
    pub released: u64,
}

/// A task that a worker has just taken, with all that it needs to sweep.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The right to go on.
    pub lease: Lease,
    /// The task, running by now.
    pub task: Task,
    /// What to sweep.
    pub instance: Instance,
    /// Where an earlier worker got to, as versioned JSON.
    pub checkpoint: Option<String>,
}

/// What a worker says of its task, about once a second.
#[derive(Debug, Clone, Default)]
pub struct Beat {
    /// Running time used, over all workers of the task.
    pub used: Duration,
    /// Expired keys released so far, over all workers.
    pub released: u64,
    /// Keys looked at so far, over all workers.
    pub scanned: u64,
    /// Whether `released` is exact. Once it was not, the task's count stays inexact.
    pub exact: bool,
    /// Live progress, as JSON; `None` keeps what is there.
    pub progress: Option<String>,
    /// Where each shard stands, as versioned JSON; `None` keeps what is there.
    pub checkpoint: Option<String>,
}

/// The store's answer to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// The lease is renewed.
    Held {
        /// Somebody asked the task to stop.
        cancel_requested: bool,
        /// When the instance's window opens again, where it is closed for this task. An end does not ask.
        closed_until: Option<Timestamp>,
    },
    /// Somebody else has the lease: change nothing more.
    Lost,
}

/// Who counts on `lazyfree-lazy-expire` in a server process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LazyFreeHolders {
    /// Whether the task was among them already.
    pub held_before: bool,
    /// The others.
    pub others: u64,
}

/// How a task ended.
#[derive(Debug, Clone)]
pub struct Ending {
    /// `Ok`: success. `Err`: failed, with the reason and a sentence.
    pub outcome: Result<(), (Reason, String)>,
    /// The last numbers.
    pub beat: Beat,
    /// The engine's report, as JSON; `None` where the sweep never began.
    pub report: Option<String>,
}

/// Everything that is kept, in one place.
#[async_trait]
pub trait Store: People + Timetable + Survey + Secrets + Send + Sync {
    /// The same store for one change, of which the audit trail gets these entries in the same transaction: it never tells
    /// of what was not done, and nothing is done that it does not tell of. `seq` is the store's to give.
    fn telling(&self, entries: Vec<AuditEntry>) -> SharedStore;

    /// Adds a project. `Taken` when its id or name is.
    async fn add_project(&self, project: &Project) -> Result<(), StoreError>;
    /// All projects, by name.
    async fn projects(&self) -> Result<Vec<Project>, StoreError>;
    /// Adds a user and its roles. `Taken` when the name is, `Missing` when a project is.
    async fn add_user(&self, user: &User, grants: &[Grant]) -> Result<(), StoreError>;
    /// The user of this name.
    async fn user(&self, name: &str) -> Result<Option<User>, StoreError>;
    /// Adds an access key. `Missing` when its user is.
    async fn add_access_key(&self, key: &AccessKey) -> Result<(), StoreError>;
    /// The access key of this name, with its user and roles.
    async fn key_holder(&self, access: &str) -> Result<Option<KeyHolder>, StoreError>;
    /// Registers an instance. `Taken` when its id, or its name in the project, is; `Missing` when the project is.
    async fn add_instance(&self, instance: &Instance) -> Result<(), StoreError>;
    /// The instance of this id, if it belongs to the project.
    async fn instance(&self, project_id: &str, id: &str) -> Result<Option<Instance>, StoreError>;
    /// All instances of a project, by name.
    async fn instances(&self, project_id: &str) -> Result<Vec<Instance>, StoreError>;
    /// Keeps what was seen of an instance's server, which is reachable then. `Missing` when the instance is gone, or has
    /// another URL by now.
    async fn record_facts(&self, instance: &Instance, facts: &Facts) -> Result<(), StoreError>;
    /// Keeps that nothing was seen of it, and why; what was seen before stays. `Missing` when the instance is gone, or has
    /// another URL by now.
    async fn record_unreachable(&self, instance: &Instance, cause: &str) -> Result<(), StoreError>;
    /// Takes the instances that nobody has taken to look at for `every` time, longest first, at most `limit`: who takes
    /// one has it to itself for that time.
    async fn take_looks(&self, now: Now, every: Duration, limit: u32) -> Result<Vec<Instance>, StoreError>;

    /// Changes a registered instance that was seen as `before`: what is different in `after`, but never its id, its project,
    /// its facts and when it was added. What others have changed meanwhile stays; what was seen of its server is forgotten
    /// when its URL is another one, and a pause that ends is noted with its time. Returns it as it is then. `Missing` when it is gone, `Taken` when another of the project
    /// has its name.
    async fn update_instance(&self, now: Now, before: &Instance, after: &Instance) -> Result<Instance, StoreError>;
    /// Forgets an instance and its tasks. False, and nothing is done, while a task of it is active; `Missing` when the
    /// instance is.
    async fn remove_instance(&self, project_id: &str, id: &str) -> Result<bool, StoreError>;
    /// How an instance is swept by itself; `None`: nobody has said yet.
    async fn auto_scan(&self, instance_id: &str) -> Result<Option<AutoScan>, StoreError>;
    /// The same for several instances, those left out of which nobody has said.
    async fn auto_scans(&self, instance_ids: &[String]) -> Result<Vec<AutoScan>, StoreError>;
    /// Says how an instance is swept by itself, in place of what was seen as `before`. Returns what is kept: its time of
    /// change stays where nothing else changes. `None`, and nothing is done, where somebody has said something else since;
    /// `Missing` when the instance is gone.
    async fn set_auto_scan(&self, before: Option<&AutoScan>, config: &AutoScan)
    -> Result<Option<AutoScan>, StoreError>;

    /// Writes a task, unless the instance is paused or has an active one. `Missing` when the instance is. Of an instance's manual
    /// and of its auto records only the newest are kept, as many of each as the new task says: the oldest make room.
    async fn create_task(&self, now: Now, new: &NewTask) -> Result<Created, StoreError>;
    /// A task of the project, with its documents.
    async fn task(&self, project_id: &str, id: &str) -> Result<Option<TaskDetail>, StoreError>;
    /// The same for several tasks, newest first, without those that there are none of.
    async fn details(&self, project_id: &str, ids: &[String]) -> Result<Vec<TaskDetail>, StoreError>;
    /// The newest task of each of these instances that has any.
    async fn newest_tasks(&self, instance_ids: &[String]) -> Result<Vec<Task>, StoreError>;
    /// A page of an instance's tasks, newest first.
    async fn tasks(&self, instance_id: &str, page: &PageRequest) -> Result<Page, StoreError>;
    /// Asks a task to stop: one that waits ends as failed (cancelled) at once, one that runs is told at its next
    /// beat, one that has ended is left alone. Returns the task as it is then.
    async fn request_cancel(&self, now: Now, project_id: &str, id: &str) -> Result<Option<Task>, StoreError>;
    /// Takes a running task whose lease has expired or was given back, or else a waiting one, for `lease` time. Of those
    /// that wait, the oldest of the project that has the fewest sweeps; none for whose host `per_host` sweeps run already,
    /// and none before its time or outside its instance's window, unless it is to be cancelled: one whose window is closed
    /// stays as it is until that opens.
    ///
    /// Taking over an expired lease counts as an attempt if the worker before got no further; from the fifth in a
    /// row on the task is ended as failed (crashed) instead and the next one is looked for. Either way its count is not
    /// exact any more: what the worker before released after its last beat is in no count.
    async fn claim(&self, now: Now, owner: &str, lease: Duration, per_host: u32) -> Result<Option<Claim>, StoreError>;
    /// Renews a lease and keeps the numbers, or says that the lease is lost. One that has expired is renewed as long as
    /// nobody has taken it over. Numbers never go back.
    async fn beat(&self, now: Now, lease: &Lease, renew: Duration, beat: &Beat) -> Result<Pulse, StoreError>;
    /// Keeps the numbers and lets go of a lease without ending the task: the next worker goes on, as soon as the instance's
    /// window is open for it.
    async fn give_back(&self, now: Now, lease: &Lease, beat: &Beat) -> Result<Pulse, StoreError>;
    /// Ends a task and lets go of its lease.
    async fn end(&self, now: Now, lease: &Lease, ending: &Ending) -> Result<Pulse, StoreError>;

    /// Records that a task's sweep counts on `lazyfree-lazy-expire` in a server process.
    async fn hold_lazyfree(&self, now: Now, hold: &LazyFreeHold) -> Result<LazyFreeHolders, StoreError>;
    /// The same, but only if somebody is recorded for that process already, this task included; `None`: nobody is.
    async fn join_lazyfree(&self, now: Now, hold: &LazyFreeHold) -> Result<Option<LazyFreeHolders>, StoreError>;
    /// Forgets that, and says how many other tasks still count on it in that process.
    async fn let_go_lazyfree(&self, run_id: &str, task_id: &str) -> Result<u64, StoreError>;
    /// The holds of tasks that have ended, each with its instance: their workers died before they put the setting back.
    async fn abandoned_lazyfree(&self) -> Result<Vec<(LazyFreeHold, Instance)>, StoreError>;

    /// Returns the value kept for this key id, which only that master key can open. Where none is kept for it, returns
    /// the one kept first for another key, so that the caller notices; keeps and returns this one where there is none.
    async fn key_check(&self, key_id: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError>;
    /// Whether the database answers; used by `/readyz`.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Ends all connections once the verbs under way have ended, and leaves nothing beside the database that belongs to
    /// it. Verbs after that are `Unavailable`.
    async fn close(&self);
}

/// Takeovers without progress in a row that fail a task.
pub const MAX_ATTEMPTS: u32 = 5;

//! What the schedule asks of a database. The rule itself is in `task::schedule`; here is only what it rests on.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Now, StoreError};
use crate::model::{AutoScan, Instance, NewTask, Task};

/// An instance's schedule with all that decides about its next run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub config: AutoScan,
    /// The instance.
    pub instance: Instance,
    /// The latest due time that has led to a run, or was let go.
    pub handled: Option<Timestamp>,
    /// Whether a task of the instance is active.
    pub active: bool,
    /// When the last task of the instance ended.
    pub last_end: Option<Timestamp>,
}

impl Plan {
    /// Whether it leads to the same step as the plan that was read before. What was seen of the server meanwhile does not
    /// decide about that.
    pub(super) fn is_as(&self, before: &Self) -> bool {
        let Instance { facts, unreachable, .. } = self.instance.clone();
        *self == Self { instance: Instance { facts, unreachable, ..before.instance.clone() }, ..before.clone() }
    }
}

/// Plans that are to be looked at, and the time by which.
#[derive(Debug, Clone)]
pub struct DuePlans {
    /// The store's clock.
    pub now: Timestamp,
    /// The plans, the longest overdue first.
    pub plans: Vec<Plan>,
}

/// The schedule's verbs. Those that change something do so only if the plan is still as it was when it was read, settings,
/// window and tasks: replicas look at the same plans, and one of them is first; and operators change what they rest on.
/// A plan that has changed is looked at again at once.
#[async_trait]
pub trait Timetable: Send + Sync {
    /// At most so many enabled plans whose time to be looked at has come.
    async fn due_plans(&self, now: Now, limit: u32) -> Result<DuePlans, StoreError>;
    /// Writes the run that was due at `new.due_at`, and that the plan is to be looked at again at `look_at`. `None`, and
    /// nothing is written, when the plan has changed.
    async fn start_run(
        &self,
        now: Now,
        plan: &Plan,
        new: &NewTask,
        look_at: Timestamp,
    ) -> Result<Option<Task>, StoreError>;
    /// Notes up to which due time a plan is dealt with, and when it is to be looked at again.
    async fn put_off(&self, plan: &Plan, handled: Option<Timestamp>, look_at: Timestamp) -> Result<(), StoreError>;
}

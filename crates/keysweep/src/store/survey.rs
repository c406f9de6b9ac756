//! What the store tells of the whole fleet at a glance, for metrics: figures of what is active and what was last seen,
//! never a look through all records.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Now, StoreError, Timing};
use crate::model::Facts;

/// The fleet at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Tasks that wait.
    pub waiting: u64,
    /// Tasks that run.
    pub running: u64,
    /// Of those that run, the ones that somebody should hold and nobody does: given back, or of a worker that died.
    pub unattended: u64,
    /// How long the task that has waited longest could have been started by now; zero: none waits in vain.
    pub longest_wait: Duration,
    /// How long the schedule's longest overdue look is overdue.
    pub schedule_lag: Duration,
    /// Every registered instance.
    pub instances: Vec<InstanceOverview>,
}

/// One instance in an [`Overview`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceOverview {
    /// Its id.
    pub id: String,
    /// What was last seen of its server.
    pub facts: Option<Facts>,
    /// Whether it answered at the last look; `None`: nobody has looked yet.
    pub reachable: Option<bool>,
    /// When its newest successful task ended, of those whose records are kept.
    pub last_success: Option<Timestamp>,
    /// From one scheduled run to the next; `None`: it is not swept by itself, not yet, or not while it is paused.
    pub auto_scan_interval: Option<Duration>,
    /// Since when its scans have been due: from the first one on, or since the instance was resumed. Not there without an
    /// interval.
    pub scans_since: Option<Timestamp>,
}

/// What metrics read, and what there is to know about the reading itself.
#[async_trait]
pub trait Survey: Send + Sync {
    /// The fleet as it is now, from one state of the database. Its cost grows with the active tasks and the instances.
    async fn overview(&self, now: Now) -> Result<Overview, StoreError>;
    /// How long this store's verbs have taken in this process.
    fn timing(&self) -> &Timing;
}

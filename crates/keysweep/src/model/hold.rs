//! Holding the stale share of an instance: its policy, what its worker has reported, and the lease of that worker.

use jiff::{SignedDuration, Timestamp};
use keysweep_engine::{Address, HoldPolicy, HoldStatus};
use serde::{Deserialize, Serialize};

/// How the stale share of an instance is held. At most one per instance.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldInstance {
    /// Id of the instance.
    pub instance_id: String,
    /// Level and limits.
    pub policy: HoldPolicy,
    /// When the policy was last changed.
    pub updated_at: Timestamp,
    /// Whether a server may have other settings than its own.
    pub changed: bool,
    /// What the worker has reported about each server.
    pub servers: Vec<HeldServer>,
    /// Why its last round could not find or observe all servers, one sentence; `None`: it could.
    pub failure: Option<String>,
    /// When it has reported that; `None`: not yet.
    pub reported_at: Option<Timestamp>,
}

impl HeldInstance {
    /// Returns when a worker has reported last, or when the policy was set where that is later.
    pub fn heard_at(&self) -> Timestamp {
        self.reported_at.map_or(self.updated_at, |at| at.max(self.updated_at))
    }

    /// Whether no worker has reported for three intervals and a minute, which a takeover after a crash does not take.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let limit =
            SignedDuration::from_secs(60) + SignedDuration::try_from(self.policy.interval() * 3).unwrap_or_default();
        now.duration_since(self.heard_at()) > limit
    }
}

/// What is known of one server of an instance whose stale share is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldServer {
    /// Its address.
    pub address: Address,
    /// What is known.
    #[serde(flatten)]
    pub status: HoldStatus,
}

/// What a round over the servers of an instance has found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HoldReport {
    /// What is known of each server; `None`: nothing new.
    pub servers: Option<Vec<HeldServer>>,
    /// Why not all servers could be found or observed, one sentence; `None`: they could.
    pub failure: Option<String>,
}

/// The right to hold an instance, which one worker has at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldLease {
    /// Id of the instance.
    pub instance_id: String,
    /// Identity of the worker.
    pub owner: String,
    /// Grows with each worker.
    pub epoch: u64,
}

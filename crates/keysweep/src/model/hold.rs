//! Holding the stale share of an instance: its policy, what its worker has reported, and the lease of that worker.

use jiff::Timestamp;
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
    /// When it has reported that; `None`: not yet.
    pub reported_at: Option<Timestamp>,
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

//! Instances: their settings, the connections to their servers, the polls and estimates of these, and their auto-scans.

mod auto_scan;
mod backlog;
mod change_queue;
mod connection;
mod error;
mod estimate;
mod inventory;
mod listing;
mod places;
mod polls;
mod sample_times;
mod sampling;
mod settings;
mod survey;
mod targets;
mod totals;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keysweep_engine::link::ReplyMemory;
use serde_json::Value;

pub use self::{
    auto_scan::{AutoScanFault, AutoScanUpdate, TargetUpdate},
    connection::Connection,
    error::{InstanceError, gone},
    estimate::{ESTIMATE_TIMEOUT, EstimateError},
    inventory::{Action, InventoryPlan, InventoryPlanError, ListedInstance, PlannedInstance},
    listing::{ALL_LISTS, InstanceList, PART},
    polls::{CONCURRENT_POLLS, POLL_INTERVAL, POLL_TIMEOUT, PollError},
    sampling::CONCURRENT_SAMPLINGS,
    settings::{InstanceChange, NewInstance},
    survey::{MAX_INSTANCES, SurveyError, SurveyRequest},
    targets::{AllowedTargets, RangeError},
    totals::Totals,
};
use self::{change_queue::ChangeQueue, estimate::Estimates, places::Places};
use crate::{
    allocator,
    budget::ByteBudget,
    model::{AuditEvent, Instance},
    secrets::Vault,
    store::Store,
};

/// Memory of a process for what servers reply, bytes, unless its operator chooses another one: for all scans, polls, estimates and holds
/// together.
pub const REPLY_MEMORY: usize = 80 << 20;

/// Returns so many bytes for replies, of which one project gets three quarters, which leaves some for others.
fn reply_memory(bytes: usize) -> Arc<ReplyMemory> {
    Arc::new(ReplyMemory::new(bytes, bytes / 4 * 3))
}

/// Time between two checks of how much memory replies took.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(2);
/// Memory of replies at a time from which on it is given back to the system, bytes: what a few ordinary servers take stays.
const GIVE_BACK_FROM: usize = 4 << 20;

/// Time between two warnings that there was not enough.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The instances of one store. Clones share it.
#[derive(Clone)]
pub struct Instances {
    store: Store,
    vault: Arc<Vault>,
    allowed: Arc<AllowedTargets>,
    estimates: Estimates,
    /// Changes of auto-scans.
    changes: ChangeQueue,
    /// Places of polls on request.
    polls: Places,
    /// Memory for what servers reply.
    replies: Arc<ReplyMemory>,
    /// Memory for lists of instances.
    lists: ByteBudget,
}

impl Instances {
    /// Returns the instances of a store whose secrets are encrypted with this vault's key. Their servers may only be
    /// connected to at allowed addresses.
    pub fn new(store: Store, vault: Arc<Vault>, allowed: AllowedTargets) -> Self {
        Self {
            store,
            vault,
            allowed: Arc::new(allowed),
            estimates: Estimates::default(),
            changes: ChangeQueue::default(),
            polls: polls::places(),
            replies: reply_memory(REPLY_MEMORY),
            lists: listing::memory(),
        }
    }

    /// Gives memory back to the system after replies that took much of it, for ever.
    pub async fn give_memory_back(&self) {
        let (mut warned, mut reported) = (None::<Instant>, 0);
        loop {
            tokio::time::sleep(GIVE_BACK_INTERVAL).await;
            if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
                let refused = self.replies.refused();
                if refused > reported {
                    warned = Some(Instant::now());
                    tracing::warn!(
                        refused = refused - std::mem::replace(&mut reported, refused),
                        "replies of servers found no memory; large clusters or hostile servers take it"
                    );
                }
            }
            if self.replies.take_peak() >= GIVE_BACK_FROM {
                // An error would be a panic, after which the next check tries again.
                let _ = tokio::task::spawn_blocking(allocator::give_back).await;
            }
        }
    }

    /// Returns the memory for what servers reply.
    pub fn reply_memory(&self) -> Arc<ReplyMemory> {
        Arc::clone(&self.replies)
    }

    /// Returns the same instances with so many bytes for what servers reply.
    pub fn with_reply_memory(self, bytes: usize) -> Self {
        Self { replies: reply_memory(bytes), ..self }
    }

    /// Returns the store for one change of an instance, which is recorded in the audit trail in the same transaction.
    fn audited(&self, instance: &Instance, actor: Option<&str>, action: &'static str, detail: &Value) -> Store {
        let event = AuditEvent { project_id: Some(&instance.project_id), actor, action, subject: &instance.id };
        self.store.with_audit(vec![event.entry(detail)])
    }
}

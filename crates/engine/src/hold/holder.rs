//! Holds the primaries of one target: observes each in every round, lets its controller decide, and does that.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use super::{
    baseline::BaselineRecord,
    host::{Change, HolderHost},
    node::Node,
    policy::Policy,
    restore::{RestoreOutcome, Restored, Scope, restore_once, restore_within},
    state::HoldStatus,
    times::Clock,
};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::Dialer,
    stop::Stop,
    target::{Address, Mode, Target},
    topology::{self, Connector, Scout},
};

/// Name of the connections in `CLIENT LIST`.
const CLIENT_NAME: &str = "keysweep:hold";
/// How long restoring all servers may take at the end, and how many are restored at a time.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(20);
const RESTORED_AT_A_TIME: usize = 32;

/// What is known of one server.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// Its address.
    pub address: Address,
    /// What is known.
    pub status: HoldStatus,
}

/// Holds the primaries of one target.
pub struct Holder {
    policy: Policy,
    clock: Clock,
    nodes: BTreeMap<Address, Node>,
    /// Whether the servers that earlier holders have changed are known.
    has_records: bool,
    /// Whether the record of a server could not be read when the servers were found last.
    has_unread: bool,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder").field("policy", &self.policy).field("nodes", &self.statuses()).finish()
    }
}

impl Holder {
    /// Returns a holder that has seen nothing yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, clock: Clock::new(), nodes: BTreeMap::new(), has_records: false, has_unread: false }
    }

    /// Replaces the policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        for node in self.nodes.values_mut() {
            node.set_policy(policy);
        }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns what is known of each server.
    pub fn statuses(&self) -> Vec<NodeStatus> {
        let status =
            |(address, node): (&Address, &Node)| NodeStatus { address: address.clone(), status: node.status.clone() };
        self.nodes.iter().map(status).collect()
    }

    /// Whether some server has something to restore that keysweep wrote, whether it answers or not; `None`: what earlier holders have
    /// written is not known.
    pub fn has_to_restore(&self) -> Option<bool> {
        (self.has_records && !self.has_unread).then(|| self.nodes.values().any(Node::has_to_restore))
    }

    /// Observes every primary once and does what its controller decides.
    ///
    /// # Errors
    /// The primaries cannot be found, or the records cannot be read. Servers that are known already are observed nevertheless.
    pub fn round(
        &mut self,
        dialer: &dyn Dialer,
        target: &Target,
        host: &dyn HolderHost,
        stop: &Stop,
    ) -> Result<(), Failure> {
        let connector = Connector { dialer, target, client_name: CLIENT_NAME, stop };
        if !self.has_records {
            let records = host.registry().unrestored(&target.to_string());
            let unreadable =
                |cause| Failure::new(FailureKind::Refused, format!("earlier changes are unknown: {cause}"));
            for record in records.map_err(unreadable)? {
                let address = record.address.clone();
                self.nodes.insert(address.clone(), Node::new(address, self.policy, Some(record), self.clock));
            }
            self.has_records = true;
        }
        let found = primaries(connector).map_err(|error| error.into_failure(target.seed()));
        self.has_unread &= found.is_err();
        let mut result = found.as_ref().map(|_| ()).map_err(Clone::clone);
        for address in found.iter().flatten() {
            if self.nodes.contains_key(address) {
                continue;
            }
            match host.registry().find(address) {
                Ok(record) => {
                    let node = Node::new(address.clone(), self.policy, record, self.clock);
                    self.nodes.insert(address.clone(), node);
                }
                Err(cause) => {
                    self.has_unread = true;
                    let sentence = format!("whether {address} was changed before is unknown: {cause}");
                    result = Err(Failure::new(FailureKind::Refused, sentence));
                }
            }
        }
        let listed = found.ok();
        let mut had_own = BTreeSet::new();
        for (address, node) in &mut self.nodes {
            if node.has_own_settings() {
                had_own.insert(address.clone());
            }
            let is_listed = listed.as_ref().map(|listed| listed.contains(address));
            node.round(is_listed, connector, host);
            if stop.is_raised() {
                return result;
            }
        }
        // A server that left the target is forgotten once it has its own settings, a round after they were restored: what is said
        // about that is read between rounds.
        if let Some(listed) = listed {
            let is_done = |address: &Address, node: &Node| had_own.contains(address) && node.has_own_settings();
            self.nodes.retain(|address, node| listed.contains(address) || !is_done(address, node));
        }
        result
    }

    /// Restores the settings of all servers. Returns what became of each that was changed.
    pub fn finish(&mut self, dialer: &dyn Dialer, target: &Target, host: &dyn HolderHost) -> Vec<Restored> {
        // The stop that ended the rounds must not end this.
        let stop = Stop::new().within(Some(RESTORE_TIMEOUT));
        let name = target.to_string();
        let records: Vec<_> = self.nodes.values_mut().filter_map(|node| node.record_at_end(&name, host)).collect();
        let ended = |record: &BaselineRecord, restored: Restored| {
            if restored.is_done() {
                // Where this fails the record says that the server is to be restored, which then changes nothing.
                let _ = host.registry().save(&restored.recorded(record));
            }
            if let RestoreOutcome::Restored { from, to } = restored.outcome {
                let (address, reason) = (record.address.clone(), "holding ends".into());
                host.changed(&Change { address, from, to, reason, is_restore: true });
            }
            restored
        };
        // A server that cannot be reached, or does not answer, keeps none of the others from being restored.
        let attempts = side_by_side(&records, |record| restore_once(dialer, target, record, Scope::Left, &stop));
        let (mut restored, mut unreached) = (Vec::new(), Vec::new());
        for (record, attempt) in records.into_iter().zip(attempts) {
            match attempt {
                Some(one) => restored.push(ended(&record, one)),
                None => unreached.push(record),
            }
        }
        let attempts = side_by_side(&unreached, |record| restore_within(dialer, target, record, Scope::Left, &stop));
        restored.extend(unreached.iter().zip(attempts).map(|(record, one)| ended(record, one)));
        self.nodes.clear();
        restored
    }
}

/// Restores servers, several at a time. Returns the results in the order of the records.
fn side_by_side<R: Send>(records: &[BaselineRecord], restore: impl Fn(&BaselineRecord) -> R + Sync) -> Vec<R> {
    let chunks = records.chunks(RESTORED_AT_A_TIME).flat_map(|chunk| {
        thread::scope(|scope| {
            let threads: Vec<_> = chunk.iter().map(|record| scope.spawn(|| restore(record))).collect();
            threads.into_iter().map(|thread| thread.join().expect("restoring does not panic")).collect::<Vec<_>>()
        })
    });
    chunks.collect()
}

fn primaries(connector: Connector<'_>) -> Result<Vec<Address>, ShardError> {
    match connector.target.mode {
        Mode::Server => Ok(vec![topology::primary(connector)?.address]),
        _ => Ok(Scout::new(connector).refresh()?.into_iter().map(|node| node.address).collect()),
    }
}

//! The shards of a sweep and the primaries that they belong to, across changes of the topology.
//!
//! A shard belongs to the slots that it was started with, not to a node: when their primary fails over, the shard follows
//! them. A primary covers the slots that it has owned without a break since its sweep began. Slots that it receives later
//! may bring stale keys that its sweep has missed, and are swept there again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    record::{Checkpoint, Shard, ShardCheckpoint, ShardStatus},
    stop::Stop,
    target::{Address, Mode, Target},
    topology::{PrimaryNode, SlotSet},
};

/// Where the primary of a shard is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// At this node.
    At(PrimaryNode),
    /// Nowhere: other shards sweep the primaries that own its slots now.
    Absorbed,
    /// Unknown at the moment.
    Unknown,
}

/// All shards of a sweep.
pub(crate) struct ShardMap<'a> {
    target: &'a Target,
    stop: &'a Stop,
    shards: Mutex<Vec<Arc<Shard>>>,
    /// The primaries as of the last refresh of the topology.
    primaries: Mutex<Vec<PrimaryNode>>,
    /// Primaries that the last refresh names, but not at an address of their own.
    misdirected: Mutex<Vec<PrimaryNode>>,
    /// Whether the counts of earlier runs are exact.
    exact_before: bool,
}

impl<'a> ShardMap<'a> {
    /// Returns the shards of the checkpoint that an earlier run of the sweep left.
    pub fn new(target: &'a Target, checkpoint: Option<&Checkpoint>, stop: &'a Stop) -> Self {
        let checkpoints = checkpoint.into_iter().flat_map(|checkpoint| checkpoint.shards.iter().cloned());
        let shards: Vec<Arc<Shard>> = checkpoints.map(|checkpoint| Shard::new(checkpoint, stop)).collect();
        let exact_before = checkpoint.is_none_or(|checkpoint| checkpoint.exact);
        Self {
            target,
            stop,
            shards: Mutex::new(shards),
            primaries: Mutex::default(),
            misdirected: Mutex::default(),
            exact_before,
        }
    }

    /// Returns all shards, finished and failed ones included.
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the counts of all shards and of earlier runs are exact.
    pub fn is_exact(&self) -> bool {
        self.exact_before && self.shards().iter().all(|shard| shard.state().exact)
    }

    fn primaries(&self) -> MutexGuard<'_, Vec<PrimaryNode>> {
        self.primaries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the primaries of a refresh. Slots that have left a primary are no longer covered by its sweep, and the
    /// shard of a node that is no longer a primary is cancelled.
    pub fn update(&self, primaries: Vec<PrimaryNode>) {
        let (primaries, misdirected): (Vec<_>, Vec<_>) =
            primaries.into_iter().partition(|node| node.misdirected.is_none());
        *self.misdirected.lock().unwrap_or_else(PoisonError::into_inner) = misdirected;
        for shard in self.shards() {
            let mut state = shard.state();
            let node = primaries.iter().find(|node| state.checkpoint.is_at(&node.address));
            match node {
                Some(node) => state.checkpoint.covered = state.checkpoint.covered.and(&node.slots),
                None if matches!(self.target.mode, Mode::Server) => {}
                None => {
                    state.checkpoint.covered = SlotSet::default();
                    if state.status == ShardStatus::Scanning {
                        shard.stop.cancel_child();
                    }
                }
            }
        }
        *self.primaries() = primaries;
    }

    /// Whether a shard has lost its primary and has not found another.
    pub fn has_lost_shard(&self) -> bool {
        self.shards().iter().any(|shard| shard.state().status == ShardStatus::Away)
    }

    /// Assigns the primaries to shards, new ones if needed. Returns the shards that have something to sweep.
    pub fn assign(&self) -> Vec<Arc<Shard>> {
        let primaries = self.primaries().clone();
        let mut shards = self.shards();
        match self.target.mode {
            Mode::Cluster => {
                for node in &primaries {
                    assign_node(node, &primaries, &mut shards, self.stop);
                }
                let misdirected = self.misdirected.lock().unwrap_or_else(PoisonError::into_inner);
                misdirected.iter().for_each(|node| add_failed_shard(node, &mut shards, self.stop));
            }
            Mode::Sentinel { .. } | Mode::Server => {
                if shards.is_empty() {
                    shards.push(Shard::new(ShardCheckpoint::default(), self.stop));
                }
                for shard in shards.iter().filter(|_| matches!(self.target.mode, Mode::Sentinel { .. })) {
                    let mut state = shard.state();
                    let moved = !primaries.iter().any(|node| state.checkpoint.is_at(&node.address));
                    if state.checkpoint.done && moved {
                        state.reset(None);
                    }
                }
            }
        }
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&shards);
        shards.retain(|shard| {
            let state = shard.state();
            !state.checkpoint.done && state.failure.is_none()
        });
        shards
    }

    /// Returns where a shard's primary is, as of the last refresh.
    pub fn locate(&self, shard: &Shard) -> Location {
        let primaries = self.primaries().clone();
        if !matches!(self.target.mode, Mode::Cluster) {
            return primaries.into_iter().next().map_or(Location::Unknown, Location::At);
        }
        let slots_at_start = shard.state().slots_at_start.clone();
        let address = shard.state().checkpoint.address.clone();
        let shared = |node: &&PrimaryNode| node.slots.and(&slots_at_start).len();
        let own = primaries.iter().find(|node| Some(&node.address) == address.as_ref());
        // While the shard's own primary keeps any of its slots, the shard stays there, and other shards sweep the rest.
        let owner = own.filter(|node| shared(node) > 0).or_else(|| primaries.iter().max_by_key(shared));
        let Some(node) = owner.filter(|node| shared(node) > 0).or(own) else {
            return if primaries.is_empty() { Location::Unknown } else { Location::Absorbed };
        };
        let others = self.shards();
        let taken = others.iter().any(|other| !std::ptr::eq(&**other, shard) && is_scanned_at(other, &node.address));
        if taken { Location::Absorbed } else { Location::At(node.clone()) }
    }
}

/// Whether a shard scans the primary at this address: a failed one does not, and others may have its address.
fn is_scanned_at(shard: &Shard, address: &Address) -> bool {
    let state = shard.state();
    state.failure.is_none() && state.checkpoint.is_at(address)
}

/// Adds a shard for a primary that cannot be reached at an address of its own, once: it fails by name, beside the others.
fn add_failed_shard(node: &PrimaryNode, shards: &mut Vec<Arc<Shard>>, stop: &Stop) {
    if shards.iter().any(|shard| shard.state().failure == node.misdirected) {
        return;
    }
    let checkpoint = ShardCheckpoint { address: Some(node.address.clone()), ..ShardCheckpoint::default() };
    let shard = Shard::new(checkpoint, stop);
    let mut state = shard.state();
    (state.status, state.failure) = (ShardStatus::Failed, node.misdirected.clone());
    drop(state);
    shards.push(shard);
}

/// Finds or makes the shard of a cluster's primary, and resets a finished one for slots that came later.
fn assign_node(node: &PrimaryNode, primaries: &[PrimaryNode], shards: &mut Vec<Arc<Shard>>, stop: &Stop) {
    let is_at = |shard: &&Arc<Shard>| is_scanned_at(shard, &node.address);
    let has_primary = |address: Option<&Address>| primaries.iter().any(|other| Some(&other.address) == address);
    let is_orphaned = |shard: &&Arc<Shard>| {
        let state = shard.state();
        !has_primary(state.checkpoint.address.as_ref())
            && !state.checkpoint.done
            && !state.slots_at_start.and(&node.slots).is_empty()
    };
    let Some(shard) = shards.iter().find(is_at).or_else(|| shards.iter().find(is_orphaned)) else {
        let checkpoint = ShardCheckpoint { address: Some(node.address.clone()), ..ShardCheckpoint::default() };
        let shard = Shard::new(checkpoint, stop);
        shard.state().slots_at_start = node.slots.clone();
        shards.push(shard);
        return;
    };
    let mut state = shard.state();
    let uncovered = node.slots.without(&state.checkpoint.covered);
    if state.checkpoint.done && !uncovered.is_empty() {
        state.reset(Some(&uncovered));
    }
    state.slots_at_start = node.slots.clone();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, FailureKind};

    fn node(address: &str, slots: &str) -> PrimaryNode {
        let address = address.parse().expect("an address");
        PrimaryNode { slots: slots.parse().expect("slots"), ..PrimaryNode::alone(address) }
    }

    fn cluster() -> Target {
        "redis-cluster://a:1,b:1".parse().expect("a target")
    }

    /// Makes the changes that a shard makes when it connects, and when it is done.
    fn sweep(shard: &Shard, node: &PrimaryNode) {
        let mut state = shard.state();
        state.checkpoint.address = Some(node.address.clone());
        (state.checkpoint.covered, state.slots_at_start) = (node.slots.clone(), node.slots.clone());
        state.checkpoint.done = true;
    }

    fn address_of(shard: &Shard) -> String {
        shard.state().checkpoint.address.as_ref().expect("an address").to_string()
    }

    #[test]
    fn slots_that_come_to_a_swept_primary_are_swept_there_and_only_those() {
        let (target, stop) = (cluster(), Stop::new());
        let shard_map = ShardMap::new(&target, None, &stop);
        let before = [node("a:1", "0-99"), node("b:1", "100-16383")];
        shard_map.update(before.to_vec());
        for (shard, node) in shard_map.assign().iter().zip(&before) {
            sweep(shard, node);
        }
        assert!(shard_map.assign().is_empty());
        shard_map.update(vec![node("a:1", "0-199"), node("b:1", "200-16383")]);
        let again = shard_map.assign();
        assert_eq!(again.iter().map(|shard| address_of(shard)).collect::<Vec<_>>(), ["a:1"]);
        let restricted_to = again[0].state().checkpoint.restricted_to.clone();
        assert_eq!(restricted_to.map(|slots| slots.to_string()).as_deref(), Some("100-199"));
    }

    #[test]
    fn a_shard_stays_with_its_primary_while_that_keeps_one_of_its_slots() {
        let (target, stop) = (cluster(), Stop::new());
        let shard_map = ShardMap::new(&target, None, &stop);
        shard_map.update(vec![node("a:1", "0-99"), node("b:1", "100-16383")]);
        let shards = shard_map.assign();
        shard_map.update(vec![node("a:1", "99"), node("b:1", "0-98,100-16383")]);
        assert_eq!(shard_map.locate(&shards[0]), Location::At(node("a:1", "99")));
        shard_map.update(vec![node("b:1", "0-16383")]);
        assert_eq!(shard_map.locate(&shards[0]), Location::Absorbed);
        shard_map.update(vec![node("c:1", "0-99"), node("b:1", "100-16383")]);
        assert_eq!(shard_map.locate(&shards[0]), Location::At(node("c:1", "0-99")), "a failover");
    }

    #[test]
    fn a_primary_that_took_over_after_its_shard_was_done_is_swept_as_well() {
        let (target, stop) = (cluster(), Stop::new());
        let shard_map = ShardMap::new(&target, None, &stop);
        shard_map.update(vec![node("a:1", "0-16383")]);
        sweep(&shard_map.assign()[0], &node("a:1", "0-16383"));
        shard_map.update(vec![node("c:1", "0-16383")]);
        let shards = shard_map.assign();
        assert_eq!((shards.len(), address_of(&shards[0]).as_str()), (1, "c:1"));
    }

    #[test]
    fn a_primary_without_an_address_of_its_own_fails_beside_the_one_that_has_it() {
        let (target, stop) = (cluster(), Stop::new());
        let shard_map = ShardMap::new(&target, None, &stop);
        let failure = Failure::new(FailureKind::Unreachable, "the address of another");
        let lost = PrimaryNode { misdirected: Some(failure.clone()), ..node("a:1", "100-16383") };
        for _ in 0..2 {
            shard_map.update(vec![node("a:1", "0-99"), lost.clone()]);
            let shards = shard_map.assign();
            assert_eq!((shards.len(), shard_map.shards().len()), (1, 2));
            assert_eq!(shard_map.locate(&shards[0]), Location::At(node("a:1", "0-99")));
        }
        assert_eq!(shard_map.shards()[1].state().failure, Some(failure));
    }

    #[test]
    fn an_inexact_earlier_run_makes_the_sweep_inexact_and_no_shard() {
        let (target, stop) = (cluster(), Stop::new());
        let checkpoint =
            Checkpoint { version: 1, keys_scanned: 0, keys_reclaimed: 0, exact: false, shards: Vec::new() };
        let shard_map = ShardMap::new(&target, Some(&checkpoint), &stop);
        shard_map.update(vec![node("a:1", "0-99"), node("b:1", "100-16383")]);
        assert!(shard_map.assign().iter().all(|shard| shard.state().exact));
        assert!(!shard_map.is_exact());
    }
}

//! A primary as the topology describes it.

use super::{connector::Connector, slots::SlotSet};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Kept, Link, LinkError, Reply},
    target::Address,
};

/// Characters of a node ID in messages, as `redis-cli` shows them.
const ID_SHOWN: usize = 8;

/// A primary that the topology names; not connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrimaryNode {
    pub address: Address,
    /// Its ID in a cluster; `None` elsewhere.
    pub id: Option<String>,
    /// The slots that it owns; empty outside of clusters.
    pub slots: SlotSet,
    /// Its replicas, as far as the topology names them.
    pub replicas: Vec<Address>,
    /// Why the address cannot lead to this node; `None`: as far as the topology shows, it does.
    pub misdirected: Option<Failure>,
    /// The memory of this description, as far as the topology has more than one node.
    pub memory: Kept,
}

impl PrimaryNode {
    /// Returns a node outside of a cluster.
    pub fn alone(address: Address) -> Self {
        let (slots, memory) = (SlotSet::default(), Kept::default());
        Self { address, id: None, slots, replicas: Vec::new(), misdirected: None, memory }
    }

    /// Connects to the node, and lets it prove by its ID that it is this one. Where the server refuses CLUSTER MYID the
    /// address is trusted; the checks say so.
    pub fn open(&self, connector: Connector<'_>) -> Result<Link, ShardError> {
        if let Some(failure) = &self.misdirected {
            return Err(ShardError::Fatal(failure.clone()));
        }
        let failed = |error| ShardError::at(&self.address, error);
        let mut link = connector.open_node(&self.address)?;
        let Some(expected) = &self.id else { return Ok(link) };
        match my_id(&mut link).map_err(failed)? {
            Some(found) if found != *expected => {
                let sentence = format!(
                    "{} answers as the cluster node {}, but is announced as the address of {}, which is not scanned; map announced addresses to those that can be dialled from here with --address-map",
                    self.address,
                    shown(&found),
                    shown(expected)
                );
                Err(ShardError::Fatal(Failure::new(FailureKind::Unreachable, sentence)))
            }
            _ => Ok(link),
        }
    }
}

/// Returns the ID of the cluster node that a link leads to; `None` where CLUSTER MYID is refused.
pub(super) fn my_id(link: &mut Link) -> Result<Option<String>, LinkError> {
    let reply = link.call_optional(&[b"CLUSTER", b"MYID"])?;
    Ok(reply.as_ref().and_then(Reply::text).map(str::to_owned))
}

/// Finds nodes that share an address, and marks those that cannot be reached at it. Nodes are never merged: each has slots of
/// its own.
pub(super) fn mark_misdirected(nodes: &mut [PrimaryNode], connector: Connector<'_>) {
    let addresses: Vec<Address> = nodes.iter().map(|node| node.address.clone()).collect();
    let is_shared = |address: &Address| addresses.iter().filter(|other| *other == address).count() > 1;
    for node in nodes.iter_mut().filter(|node| is_shared(&node.address)) {
        let id = connector.open(&node.address).and_then(|mut link| my_id(&mut link));
        let found = match id {
            Ok(Some(id)) if node.id.as_ref() == Some(&id) => continue,
            Ok(Some(id)) => format!("which answers as {}", shown(&id)),
            Ok(None) => "which refuses CLUSTER MYID (grant +cluster|myid)".to_owned(),
            Err(error) => format!("where {error}"),
        };
        let sentence = format!(
            "the cluster node {} shares the address {} with another one from here, {found}; map announced addresses to those that can be dialled from here with --address-map",
            node.id.as_deref().map_or_else(String::new, shown),
            node.address
        );
        node.misdirected = Some(Failure::new(FailureKind::Unreachable, sentence));
    }
}

fn shown(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(ID_SHOWN).collect()
}

//! Asks the nodes or Sentinels of a target for its primaries, again and again, moving on from one that does not answer.

use std::time::Duration;

use super::{cluster, connector::Connector, node::PrimaryNode, sentinel};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::Link,
    target::{Address, Mode},
};

/// How long a node may take to describe the topology. Short, because other nodes know it as well.
const TOPOLOGY_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Refreshes the list of primaries.
pub(crate) struct Scout<'a> {
    connector: Connector<'a>,
    /// The node or Sentinel that answered last.
    link: Option<(Address, Link)>,
    /// Nodes that the last answer named beside the seeds.
    discovered: Vec<Address>,
    /// The node whose last answer is out of date, or that gave none; it is asked last.
    stale: Option<Address>,
}

impl<'a> Scout<'a> {
    /// Returns a scout that has not asked yet.
    pub fn new(connector: Connector<'a>) -> Self {
        Self { connector, link: None, discovered: Vec::new(), stale: None }
    }

    /// Asks one node after the other until one answers. The error is that of the first node that did not.
    pub fn refresh(&mut self) -> Result<Vec<PrimaryNode>, ShardError> {
        let target = self.connector.target;
        if matches!(target.mode, Mode::Server) {
            return Ok(vec![PrimaryNode::alone(target.seed().clone())]);
        }
        let (mut first_error, mut partial) = (None, None);
        let last = self.link.as_ref().map(|(address, _)| address.clone());
        let others = target.seeds.iter().chain(&self.discovered).filter(|address| Some(*address) != last.as_ref());
        let mut candidates: Vec<Address> = last.iter().chain(others).cloned().collect();
        candidates.sort_by_key(|address| Some(address) == self.stale.as_ref());
        for address in candidates {
            match self.ask(&address) {
                Ok((primaries, true)) => {
                    let nodes = primaries.iter().flat_map(|node| node.replicas.iter().chain([&node.address]));
                    self.discovered = nodes.filter(|node| !target.seeds.contains(node)).cloned().collect();
                    return Ok(primaries);
                }
                Ok((primaries, false)) => drop(partial.get_or_insert(primaries)),
                Err(ShardError::Stopped(kind)) => return Err(ShardError::Stopped(kind)),
                Err(error) => {
                    first_error.get_or_insert(error);
                    // The next refresh begins with another node.
                    self.stale = Some(address);
                }
            }
            self.link = None;
        }
        let unknown =
            || ShardError::Unreachable(Failure::new(FailureKind::Unreachable, "no node of the target is known"));
        partial.ok_or_else(|| first_error.unwrap_or_else(unknown))
    }

    /// Asks one node. Returns the primaries, and whether the node sees the whole cluster.
    fn ask(&mut self, address: &Address) -> Result<(Vec<PrimaryNode>, bool), ShardError> {
        let connector = self.connector;
        let sentinels = match &connector.target.mode {
            Mode::Sentinel { name, credentials, .. } => Some((name, credentials)),
            _ => None,
        };
        if self.link.is_none() {
            let mut link = match sentinels {
                Some((_, credentials)) => connector
                    .open_sentinel(address, credentials)
                    .map_err(|error| sentinel::denied(address, credentials, error))?,
                None => connector.open_node(address)?,
            };
            link.set_reply_timeout(TOPOLOGY_REPLY_TIMEOUT);
            self.link = Some((address.clone(), link));
        }
        let Some((_, link)) = &mut self.link else { return Ok((Vec::new(), false)) };
        let described = match sentinels {
            Some((name, _)) => sentinel::ask(link, address, name, connector).map(|node| (vec![node], true)),
            None => cluster::describe(link, address, connector),
        };
        // The link stays open, and its reply is a description now.
        link.release_replies();
        described
    }

    /// Marks the node that answered last as out of date, so that the next refresh asks another one first.
    pub fn mark_stale(&mut self) {
        self.stale = self.link.take().map(|(address, _)| address);
    }
}

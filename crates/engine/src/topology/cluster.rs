//! A cluster, as one of its nodes describes it.

use super::{connector::Connector, node::PrimaryNode, slots::SlotSet};
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Link, LinkError, Reply},
    target::Address,
};

/// Asks a node for the primaries and their slots. Returns also whether the node sees the whole cluster: a node that is cut
/// off from the others keeps describing an earlier topology.
pub(super) fn describe(
    link: &mut Link,
    asked: &Address,
    connector: Connector<'_>,
) -> Result<(Vec<PrimaryNode>, bool), ShardError> {
    let reply = match link.call(&[b"CLUSTER", b"SLOTS"]) {
        Ok(reply) => reply,
        Err(LinkError::Server(error)) if error.to_string().contains("cluster support disabled") => {
            let sentence = format!("{asked} does not run in cluster mode; use redis:// for it");
            return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
        }
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => {
            let sentence = format!(
                "{asked} refuses CLUSTER SLOTS, without which a cluster cannot be scanned; grant +cluster|slots"
            );
            return Err(ShardError::Fatal(Failure::new(FailureKind::Denied, sentence)));
        }
        Err(error) => return Err(ShardError::at(asked, error)),
    };
    let whole = match link.call(&[b"CLUSTER", b"INFO"]) {
        Ok(reply) => reply.text().is_some_and(|info| info.contains("cluster_state:ok")),
        Err(LinkError::Server(_)) => true,
        Err(error) => return Err(ShardError::at(asked, error)),
    };
    let nodes = read(&reply, asked, |address| connector.target.address_map.dialled(address));
    match nodes.is_empty() {
        true => {
            let sentence =
                format!("{asked} knows no primary that owns slots; create the cluster first, or name a node of it");
            Err(ShardError::Unreachable(Failure::new(FailureKind::Unreachable, sentence)))
        }
        false => Ok((nodes, whole)),
    }
}

/// Reads `[[first, last, [host, port, id, …], replica…]…]`: one node for each primary, with all of its ranges.
fn read(reply: &Reply, asked: &Address, dialled: impl Fn(Address) -> Address) -> Vec<PrimaryNode> {
    let mut nodes: Vec<PrimaryNode> = Vec::new();
    let Reply::Array(ranges) = reply else { return nodes };
    for range in ranges {
        let Reply::Array(fields) = range else { continue };
        let slot = |index: usize| fields.get(index).and_then(Reply::integer).and_then(|slot| u16::try_from(slot).ok());
        let node = |reply: &Reply| address_of(reply, asked).map(&dialled);
        let (Some(first), Some(last), Some(address)) = (slot(0), slot(1), fields.get(2).and_then(node)) else {
            continue;
        };
        let index = nodes.iter().position(|node| node.address == address).unwrap_or_else(|| {
            let replicas = fields[3..].iter().filter_map(node).collect();
            nodes.push(PrimaryNode { address, slots: SlotSet::default(), replicas });
            nodes.len() - 1
        });
        nodes[index].slots.add_range(first, last);
    }
    nodes.sort_by_key(|node| node.slots.next_from(0));
    nodes
}

/// Reads an address. A node without a host is the one that was asked: it does not know its own name.
fn address_of(node: &Reply, asked: &Address) -> Option<Address> {
    let Reply::Array(fields) = node else { return None };
    let port = u16::try_from(fields.get(1)?.integer()?).ok()?;
    let host = fields.first()?.text().filter(|host| !host.is_empty() && *host != "?").or(asked.host())?;
    Some(Address::tcp(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Option<&str>, port: i64) -> Reply {
        let host = host.map_or(Reply::Nil, |host| Reply::Bulk(host.into()));
        Reply::Array(vec![host, Reply::Integer(port), Reply::Bulk("0".repeat(40).into())])
    }

    fn range(first: i64, last: i64, nodes: &[Reply]) -> Reply {
        let mut fields = vec![Reply::Integer(first), Reply::Integer(last)];
        fields.extend_from_slice(nodes);
        Reply::Array(fields)
    }

    #[test]
    fn a_primary_with_several_ranges_is_one_node() {
        let (one, two) = (node(Some("a"), 1), node(None, 2));
        let reply = Reply::Array(vec![
            range(100, 200, &[two]),
            range(0, 99, &[one.clone(), node(Some("b"), 3)]),
            range(201, 16_383, &[one]),
        ]);
        let asked = Address::tcp("asked", 9);
        let nodes = read(&reply, &asked, |address| address);
        let shown: Vec<_> = nodes.iter().map(|node| (node.address.to_string(), node.slots.to_string())).collect();
        assert_eq!(shown, [("a:1".into(), "0-99,201-16383".into()), ("asked:2".into(), "100-200".into())]);
        assert_eq!(nodes[0].replicas, [Address::tcp("b", 3)]);
    }
}

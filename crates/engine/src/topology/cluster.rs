//! A cluster, as one of its nodes describes it.

use std::net::IpAddr;

use super::{
    connector::Connector,
    node::{PrimaryNode, mark_misdirected, my_id},
};
use crate::{
    address::is_host,
    failure::{ConnectFault, Failure, FailureKind, ShardError},
    link::{Kept, Link, LinkError, Reply},
    target::{Address, AddressMap},
};

/// Most primaries of a cluster: Redis and Valkey recommend at most 1,000 nodes.
const MAX_PRIMARIES: usize = 1_000;
/// Most replicas of a primary that are known by their addresses.
const MAX_REPLICAS: usize = 32;
/// Memory of a node's description and of what a scan keeps of it beside, bytes: a bit for each slot takes half of it.
const NODE: usize = 4_096;
/// Memory of an address beside its host, bytes.
const ADDRESS: usize = 64;

/// Asks a node for the primaries and their slots. Returns also whether the node sees the whole cluster: a node that is cut
/// off from the others keeps describing an earlier topology.
pub(super) fn describe(
    link: &mut Link,
    asked: &Address,
    connector: Connector<'_>,
) -> Result<(Vec<PrimaryNode>, bool), ShardError> {
    let whole = match link.call(&[b"CLUSTER", b"INFO"]) {
        Ok(reply) => reply.text().is_some_and(|info| info.contains("cluster_state:ok")),
        Err(LinkError::Server(_)) => true,
        Err(error) => return Err(ShardError::at(asked, error)),
    };
    let own_id = my_id(link).map_err(|error| ShardError::at(asked, error))?;
    // Last: the memory of a reply is given back with the next command.
    let reply = match link.call(&[b"CLUSTER", b"SLOTS"]) {
        Ok(reply) => reply,
        Err(LinkError::Server(error)) if error.to_string().contains("cluster support disabled") => {
            let sentence = format!("{asked} does not run in cluster mode; use redis:// for it");
            return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
        }
        Err(LinkError::Server(error)) if error.is_refusal() => {
            let sentence = format!(
                "{asked} refuses CLUSTER SLOTS, without which a cluster cannot be scanned ({error}); grant +cluster|slots"
            );
            let failure = Failure::new(FailureKind::Denied, sentence).with_fault(ConnectFault::Permission);
            return Err(ShardError::Fatal(failure));
        }
        Err(error) => return Err(ShardError::at(asked, error)),
    };
    if !is_plain(&reply) {
        let detail = "CLUSTER SLOTS with a text that is no host, ID or slot";
        return Err(ShardError::at(asked, LinkError::Protocol(detail)));
    }
    let mut nodes = read(&reply, asked, own_id.as_deref(), link.peer(), &connector.target.address_map);
    if nodes.len() > MAX_PRIMARIES {
        let sentence =
            format!("{asked} names more than {MAX_PRIMARIES} primaries, the most of a cluster that is scanned");
        return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
    }
    let memory = connector.dialer.memory().take(nodes.iter().map(size).sum());
    let memory = Kept::from(memory.map_err(|error| ShardError::at(asked, error))?);
    nodes.iter_mut().for_each(|node| node.memory = memory.clone());
    mark_misdirected(&mut nodes, connector);
    match nodes.is_empty() {
        true => {
            let sentence =
                format!("{asked} knows no primary that owns slots; create the cluster first, or name a node of it");
            Err(ShardError::Unreachable(Failure::new(FailureKind::Unreachable, sentence)))
        }
        false => Ok((nodes, whole)),
    }
}

/// Returns the memory of a node's description, bytes.
fn size(node: &PrimaryNode) -> usize {
    let addresses = node.replicas.iter().chain([&node.address]);
    NODE + addresses.map(|address| ADDRESS + address.host().map_or(0, str::len)).sum::<usize>()
}

/// Whether all texts of a reply may be hosts or IDs. An entry that is left out would leave its slots out of the scan.
fn is_plain(reply: &Reply) -> bool {
    match reply {
        Reply::Array(items) => items.iter().all(is_plain),
        Reply::Simple(text) => is_host(text),
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).is_ok_and(is_host),
        Reply::Integer(_) | Reply::Nil | Reply::Error(_) => true,
    }
}

/// Reads `[[first, last, [host, port, id, [metadata…]], replica…]…]`: one node for each primary, with all of its ranges.
fn read(
    reply: &Reply,
    asked: &Address,
    own_id: Option<&str>,
    peer: Option<IpAddr>,
    address_map: &AddressMap,
) -> Vec<PrimaryNode> {
    let mut nodes: Vec<PrimaryNode> = Vec::new();
    let Reply::Array(ranges) = reply else { return nodes };
    let ranges = ranges.iter().filter_map(|range| if let Reply::Array(fields) = range { Some(fields) } else { None });
    let announced = ranges.clone().flat_map(|fields| fields.iter().skip(2)).filter_map(Announced::read);
    let mut own = announced.filter(|node| own_id.is_some_and(|id| id == node.id)).filter_map(|node| node.ip);
    // Behind a load balancer or NAT a node is reached at another address than its own.
    let ips_are_dialled = own.next().zip(peer).is_none_or(|(ip, peer)| ip.parse() == Ok(peer));
    let resolver = Resolver { asked, own_id, ips_are_dialled, address_map };
    for fields in ranges {
        let slot = |index: usize| fields.get(index).and_then(Reply::integer).and_then(|slot| u16::try_from(slot).ok());
        let (Some(first), Some(last), Some(primary)) = (slot(0), slot(1), fields.get(2).and_then(Announced::read))
        else {
            continue;
        };
        let index = nodes.iter().position(|node| node.id.as_deref() == Some(primary.id)).unwrap_or_else(|| {
            let replicas = fields[3..].iter().filter_map(Announced::read).take(MAX_REPLICAS);
            let replicas = replicas.map(|node| resolver.address(&node)).collect();
            let node = PrimaryNode::alone(resolver.address(&primary));
            nodes.push(PrimaryNode { id: Some(primary.id.to_owned()), replicas, ..node });
            nodes.len() - 1
        });
        nodes[index].slots.add_range(first, last);
        // The caller refuses them: each further one would cost two kilobytes and a search.
        if nodes.len() > MAX_PRIMARIES {
            break;
        }
    }
    nodes.sort_by_key(|node| node.slots.next_from(0));
    nodes
}

/// A node as CLUSTER SLOTS announces it.
struct Announced<'a> {
    /// The preferred endpoint; `None`: a null, with which a node asks to be dialled where the queried node was.
    endpoint: Option<&'a str>,
    port: u16,
    id: &'a str,
    /// Its IP address, if the endpoint is something else (since Redis 7.0).
    ip: Option<&'a str>,
}

impl<'a> Announced<'a> {
    fn read(node: &'a Reply) -> Option<Self> {
        let Reply::Array(fields) = node else { return None };
        let metadata = if let Some(Reply::Array(pairs)) = fields.get(3) { pairs.as_slice() } else { &[] };
        let ip = metadata.chunks_exact(2).find(|pair| pair[0].text() == Some("ip")).and_then(|pair| pair[1].text());
        let endpoint = fields.first()?.text();
        Some(Self {
            endpoint,
            port: u16::try_from(fields.get(1)?.integer()?).ok()?,
            // Servers before Redis 4.0 send none; then the endpoint and port stand for it.
            id: fields.get(2).and_then(Reply::text).or(endpoint)?,
            ip: ip.or(endpoint).filter(|ip| ip.parse::<IpAddr>().is_ok()),
        })
    }
}

/// Finds the address at which a node is dialled.
struct Resolver<'a> {
    asked: &'a Address,
    /// ID of the queried node; `None`: it refuses to say.
    own_id: Option<&'a str>,
    /// Whether the queried node was reached at the IP address that it announces.
    ips_are_dialled: bool,
    address_map: &'a AddressMap,
}

impl Resolver<'_> {
    fn address(&self, node: &Announced<'_>) -> Address {
        let at = |host: &str| Address::tcp(host, node.port);
        let mapped = |host: &str| self.address_map.dialled(at(host));
        match (node.endpoint, node.ip) {
            // "?": the node has no host name.
            (Some(endpoint), _) if !endpoint.is_empty() && endpoint != "?" => mapped(endpoint),
            (Some(_), Some(ip)) => mapped(ip),
            (None, Some(ip)) if self.ips_are_dialled || mapped(ip) != at(ip) => mapped(ip),
            // It does not know its own address.
            (_, None) if self.own_id == Some(node.id) => self.asked.clone(),
            // A socket leads to the queried node only.
            _ => self.asked.host().map_or_else(|| self.asked.clone(), mapped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn node(endpoint: Option<&str>, port: i64, id: &str, ip: Option<&str>) -> Reply {
        let endpoint = endpoint.map_or(Reply::Nil, bulk);
        let metadata = ip.map_or_else(Vec::new, |ip| vec![bulk("ip"), bulk(ip)]);
        Reply::Array(vec![endpoint, Reply::Integer(port), bulk(id), Reply::Array(metadata)])
    }

    fn range(first: i64, last: i64, nodes: &[Reply]) -> Reply {
        let mut fields = vec![Reply::Integer(first), Reply::Integer(last)];
        fields.extend_from_slice(nodes);
        Reply::Array(fields)
    }

    /// Reads a reply of a node with the id "own" that was reached at `asked`:9 with the IP address `peer`.
    fn described(reply: &[Reply], peer: &str) -> Vec<PrimaryNode> {
        let asked = Address::tcp("asked", 9);
        let map = "10.9.9.9:7=mapped:70".parse().expect("a map");
        read(&Reply::Array(reply.to_vec()), &asked, Some("own"), peer.parse().ok(), &map)
    }

    /// Returns the address of a node beside the queried one, which announces 10.0.0.1 and was reached at `peer`.
    fn address(other: Reply, peer: &str) -> String {
        let own = node(None, 9, "own", Some("10.0.0.1"));
        let nodes = described(&[range(0, 5, &[own]), range(6, 9, &[other])], peer);
        nodes[1].address.to_string()
    }

    #[test]
    fn a_primary_with_several_ranges_is_one_node_and_two_ids_are_never_one() {
        let (one, two) = (node(Some("a"), 1, "1", None), node(Some("a"), 1, "2", None));
        let replica = node(Some("b"), 3, "3", None);
        let reply = [range(100, 200, &[two]), range(0, 99, &[one.clone(), replica]), range(201, 16_383, &[one])];
        let nodes = described(&reply, "10.0.0.1");
        let shown: Vec<_> = nodes.iter().map(|node| (node.address.to_string(), node.slots.to_string())).collect();
        assert_eq!(shown, [("a:1".into(), "0-99,201-16383".into()), ("a:1".into(), "100-200".into())]);
        assert_eq!(nodes[0].replicas, [Address::tcp("b", 3)]);
    }

    #[test]
    fn a_null_endpoint_is_dialled_at_its_ip_address_if_the_queried_node_was() {
        let null = |ip| node(None, 7, "other", ip);
        assert_eq!(address(null(Some("10.0.0.2")), "10.0.0.1"), "10.0.0.2:7");
        assert_eq!(address(null(Some("10.0.0.2")), "192.0.2.1"), "asked:7", "behind a load balancer");
        assert_eq!(address(null(Some("10.9.9.9")), "192.0.2.1"), "mapped:70");
        assert_eq!(address(null(None), "10.0.0.1"), "asked:7");
    }

    #[test]
    fn a_reply_with_texts_that_are_no_hosts_is_not_read() {
        let range = |host: &str| Reply::Array(vec![range(0, 9, &[node(Some(host), 7, "id", Some("10.0.0.2"))])]);
        assert!(is_plain(&range("a.example")) && is_plain(&range("fd00::1")) && is_plain(&range("")));
        for host in ["a\u{1b}[2J", "a b", &"a".repeat(256)] {
            assert!(!is_plain(&range(host)), "{host:?}");
        }
    }

    #[test]
    fn an_unknown_host_name_is_replaced_by_the_ip_address() {
        assert_eq!(address(node(Some("?"), 7, "other", Some("10.0.0.2")), "192.0.2.1"), "10.0.0.2:7");
    }

    #[test]
    fn a_node_that_does_not_know_its_address_is_the_queried_one() {
        let nodes = described(&[range(0, 9, &[node(Some(""), 7, "own", None)])], "10.0.0.1");
        assert_eq!(nodes[0].address.to_string(), "asked:9");
    }
}

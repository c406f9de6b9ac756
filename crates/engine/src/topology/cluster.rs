//! A cluster, as one of its nodes describes it.

use super::{Access, Place, SlotSet};
use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::{Link, LinkError, Reply},
    target::Address,
};

/// Asks a node for the primaries and their slots, and whether it sees the cluster whole: a node that has been cut off from
/// the others goes on describing what was.
pub(super) fn describe(link: &mut Link, asked: &Address, access: Access<'_>) -> Result<(Vec<Place>, bool), Trouble> {
    let reply = match link.call(&[b"CLUSTER", b"SLOTS"]) {
        Ok(reply) => reply,
        Err(LinkError::Server(error)) if error.to_string().contains("cluster support disabled") => {
            let sentence = format!("{asked} does not run in cluster mode; use redis:// for it");
            return Err(Trouble::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
        }
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => {
            let sentence =
                format!("{asked} refuses CLUSTER SLOTS, without which a cluster cannot be swept; grant +cluster|slots");
            return Err(Trouble::Fatal(Failure::new(FailureKind::Denied, sentence)));
        }
        Err(error) => return Err(Trouble::at(asked, error)),
    };
    let whole = match link.call(&[b"CLUSTER", b"INFO"]) {
        Ok(reply) => reply.text().is_some_and(|info| info.contains("cluster_state:ok")),
        Err(LinkError::Server(_)) => true,
        Err(error) => return Err(Trouble::at(asked, error)),
    };
    let places = read(&reply, asked, |address| access.target.address_map.dialled(address));
    match places.is_empty() {
        true => {
            let sentence =
                format!("{asked} knows of no primary that owns slots; create the cluster first, or name a node of it");
            Err(Trouble::Away(Failure::new(FailureKind::Unreachable, sentence)))
        }
        false => Ok((places, whole)),
    }
}

/// Reads `[[first, last, [host, port, id, …], replica…]…]`: one place a primary, whatever the number of its ranges.
fn read(reply: &Reply, asked: &Address, dialled: impl Fn(Address) -> Address) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let Reply::Array(ranges) = reply else { return places };
    for range in ranges {
        let Reply::Array(fields) = range else { continue };
        let slot = |index: usize| fields.get(index).and_then(Reply::integer).and_then(|slot| u16::try_from(slot).ok());
        let node = |reply: &Reply| address_of(reply, asked).map(&dialled);
        let (Some(first), Some(last), Some(address)) = (slot(0), slot(1), fields.get(2).and_then(node)) else {
            continue;
        };
        let index = places.iter().position(|place| place.address == address).unwrap_or_else(|| {
            let replicas = fields[3..].iter().filter_map(node).collect();
            places.push(Place { address, slots: SlotSet::default(), replicas });
            places.len() - 1
        });
        places[index].slots.add_range(first, last);
    }
    places.sort_by_key(|place| place.slots.next_from(0));
    places
}

/// A node that does not know its own name is the one that was asked.
fn address_of(node: &Reply, asked: &Address) -> Option<Address> {
    let Reply::Array(fields) = node else { return None };
    let port = u16::try_from(fields.get(1)?.integer()?).ok()?;
    let host = fields.first()?.text().filter(|host| !host.is_empty() && *host != "?").unwrap_or(&asked.host);
    Some(Address { host: host.to_owned(), port })
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
    fn a_primary_with_several_ranges_is_one_place() {
        let (one, two) = (node(Some("a"), 1), node(None, 2));
        let reply = Reply::Array(vec![
            range(100, 200, &[two]),
            range(0, 99, &[one.clone(), node(Some("b"), 3)]),
            range(201, 16_383, &[one]),
        ]);
        let asked = Address { host: "asked".into(), port: 9 };
        let places = read(&reply, &asked, |address| address);
        let shown: Vec<_> = places.iter().map(|place| (place.address.to_string(), place.slots.to_string())).collect();
        assert_eq!(shown, [("a:1".into(), "0-99,201-16383".into()), ("asked:2".into(), "100-200".into())]);
        assert_eq!(places[0].replicas, [Address { host: "b".into(), port: 3 }]);
    }
}

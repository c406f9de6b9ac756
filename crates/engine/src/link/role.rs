//! The role of a node, as ROLE reports it.

use super::reply::Reply;
use crate::{address::is_host, target::Address};

/// Most replicas whose addresses are kept: each may be connected to, and a server may name any.
const MAX_ADDRESSES: usize = 32;

/// Role of the node that ran a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleView {
    /// A primary.
    Primary {
        /// Bytes that the slowest attached replica still has to acknowledge; 0 without replicas.
        max_lag: u64,
        /// Attached replicas.
        replicas: usize,
        /// The addresses of the first 32, as the primary reports them.
        addresses: Vec<Address>,
    },
    /// A replica, on which SCAN deletes nothing.
    Replica {
        /// Host of its primary.
        host: String,
        /// Port of its primary.
        port: u16,
        /// Whether it receives the changes of its primary.
        in_sync: bool,
    },
    /// The server does not report it.
    Unknown,
}

/// KeyDB's word for a replica that accepts writes itself and, as a primary does, deletes and replicates expired keys.
pub(crate) const ACTIVE_REPLICA: &str = "active-replica";

impl RoleView {
    /// A primary that reports nothing about its replicas.
    pub(crate) const PRIMARY: Self = Self::Primary { max_lag: 0, replicas: 0, addresses: Vec::new() };

    /// Reads a ROLE reply.
    pub fn read(reply: &Reply) -> Self {
        let Reply::Array(items) = reply else { return Self::Unknown };
        match (items.first().and_then(Reply::text), items.get(1), items.get(2)) {
            (Some("master"), Some(offset), replicas) => {
                let offset = offset.integer().unwrap_or(0);
                let replicas = if let Some(Reply::Array(replicas)) = replicas { replicas.as_slice() } else { &[] };
                let acknowledged = replicas.iter().filter_map(|replica| match replica {
                    Reply::Array(fields) => fields.get(2).and_then(Reply::integer),
                    _ => None,
                });
                let max_lag = acknowledged.map(|at| offset.saturating_sub(at).max(0)).max().unwrap_or(0);
                let addresses = replicas.iter().filter_map(address_of).take(MAX_ADDRESSES).collect();
                Self::Primary { max_lag: max_lag as u64, replicas: replicas.len(), addresses }
            }
            (Some("slave" | "replica"), Some(host), Some(port)) => match (host.text(), port.integer()) {
                (Some(host), Some(port)) if u16::try_from(port).is_ok() && is_host(host) => {
                    let in_sync = items.get(3).and_then(Reply::text).is_none_or(|state| state == "connected");
                    Self::Replica { host: host.to_owned(), port: port as u16, in_sync }
                }
                _ => Self::Unknown,
            },
            (Some(ACTIVE_REPLICA), ..) => Self::PRIMARY,
            // KeyDB with several primaries: a list of such roles.
            _ => match items.first() {
                Some(role @ Reply::Array(_)) if items.iter().all(|item| matches!(item, Reply::Array(_))) => {
                    Self::read(role)
                }
                _ => Self::Unknown,
            },
        }
    }
}

fn address_of(replica: &Reply) -> Option<Address> {
    let Reply::Array(fields) = replica else { return None };
    let port = fields.get(1)?.integer()?;
    let host = fields.first()?.text().filter(|host| is_host(host))?;
    Some(Address::tcp(host, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Reply {
        Reply::Array(words.iter().map(|word| Reply::Bulk(word.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_replica_whose_link_is_down_is_not_in_sync() {
        for (state, expected) in [("connected", true), ("connect", false), ("connecting", false), ("sync", false)] {
            let role = RoleView::read(&texts(&["slave", "a", "6379", state, "-1"]));
            assert_eq!(role, RoleView::Replica { host: "a".into(), port: 6379, in_sync: expected }, "{state}");
        }
    }

    #[test]
    fn a_primary_keeps_the_addresses_of_a_few_replicas_and_of_plain_hosts() {
        let replica = |host: &str| texts(&[host, "6379", "7"]);
        let primary = |replicas: Vec<Reply>| {
            let fields = vec![Reply::Bulk(b"master".to_vec()), Reply::Integer(9), Reply::Array(replicas)];
            RoleView::read(&Reply::Array(fields))
        };
        let RoleView::Primary { max_lag, replicas, addresses } = primary(vec![replica("a"); 4_000]) else {
            panic!("a primary")
        };
        assert_eq!((max_lag, replicas, addresses.len()), (2, 4_000, MAX_ADDRESSES));
        let odd = ["a\u{1b}[2J", "a b", &"a".repeat(256)];
        let RoleView::Primary { addresses, .. } = primary(odd.iter().map(|host| replica(host)).collect()) else {
            panic!("a primary")
        };
        assert_eq!(addresses, []);
        for host in odd {
            assert_eq!(RoleView::read(&texts(&["slave", host, "6379", "connected", "9"])), RoleView::Unknown);
        }
    }

    #[test]
    fn an_active_replica_of_one_or_several_primaries_is_a_primary() {
        let one = texts(&[ACTIVE_REPLICA, "a", "6379", "connected", "9"]);
        assert_eq!(RoleView::read(&one), RoleView::PRIMARY);
        assert_eq!(RoleView::read(&Reply::Array(vec![one.clone(), one])), RoleView::PRIMARY);
        assert_eq!(RoleView::read(&Reply::Array(vec![])), RoleView::Unknown);
    }
}

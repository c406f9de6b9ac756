//! The role of a node, as ROLE reports it.

use super::reply::Reply;
use crate::target::Address;

/// Role of the node that ran a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleView {
    /// A primary.
    Primary {
        /// Bytes that the slowest attached replica still has to acknowledge; 0 without replicas.
        max_lag: u64,
        /// Attached replicas.
        replicas: usize,
        /// Their addresses, as the primary reports them.
        addresses: Vec<Address>,
    },
    /// A replica, on which SCAN deletes nothing.
    Replica {
        /// Host of its primary.
        host: String,
        /// Port of its primary.
        port: u16,
    },
    /// The server does not report it.
    Unknown,
}

impl RoleView {
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
                let addresses = replicas.iter().filter_map(address_of).collect();
                Self::Primary { max_lag: max_lag as u64, replicas: replicas.len(), addresses }
            }
            (Some("slave" | "replica"), Some(host), Some(port)) => match (host.text(), port.integer()) {
                (Some(host), Some(port)) if u16::try_from(port).is_ok() => {
                    Self::Replica { host: host.to_owned(), port: port as u16 }
                }
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

fn address_of(replica: &Reply) -> Option<Address> {
    let Reply::Array(fields) = replica else { return None };
    let port = fields.get(1)?.integer()?;
    Some(Address::tcp(fields.first()?.text()?, u16::try_from(port).ok()?))
}

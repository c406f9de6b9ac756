//! Estimates how many keys are stale, without reclaiming any.
//!
//! On a replica SCAN hides expired keys and deletes none: DBSIZE minus the keys that SCAN returns is the number of stale keys.
//! On a primary every SCAN deletes, so that without a replica only the server's own running average is left.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Capabilities, Dialer, Info, Keyspace, Link, RoleView},
    options::Limits,
    pacing::{Decision, Pace},
    record::Scale,
    server::{has_per_slot_tables, slot_scale},
    stop::Stop,
    target::{Address, Target},
    topology::{self, Connector, PrimaryNode, Scout},
};

/// How an estimate was made, the most reliable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Every key was counted on a replica.
    ReplicaCount,
    /// A part of the keys was counted on a replica.
    ReplicaSample,
    /// The server's own running average.
    Info,
}

impl Method {
    /// Describes the method and its reliability.
    pub fn describe(self) -> &'static str {
        match self {
            Self::ReplicaCount => {
                "counted on a replica, where nothing is reclaimed; exact except for changes meanwhile"
            }
            Self::ReplicaSample => "a sample counted on a replica, where nothing is reclaimed",
            Self::Info => {
                "the server's own running average (expired_stale_perc), because no replica is in sync; it lags behind by minutes, and is too low where few keys expire at a time"
            }
        }
    }
}

/// Estimate of the stale keys of a keyspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The target, without credentials.
    pub target: String,
    /// The nodes that answered, separated by commas: text, since a cluster has several.
    pub address: String,
    /// How the estimate was made.
    pub method: Method,
    /// Keys in memory, stale keys included.
    pub keys: u64,
    /// Stale keys.
    #[serde(alias = "dead_keys")]
    pub stale_keys: u64,
    /// `stale_keys` divided by `keys`, 0–1.
    #[serde(alias = "dead_share")]
    pub share: f64,
    /// Bytes of the stale keys: their share of the data set, as if all keys had the same size.
    #[serde(alias = "dead_bytes")]
    pub bytes: Option<u64>,
}

/// Estimates the stale keys of a target, one primary after the other. `sample`: the share of the keyspace to count on a
/// replica, 0–1; `None`: all of it. The count is paced by `limits`, as a sweep would be.
pub fn estimate(
    dialer: &dyn Dialer,
    target: &Target,
    sample: Option<f64>,
    limits: Limits,
    stop: &Stop,
) -> Result<Estimate, Failure> {
    let connector = Connector { dialer, target, client_name: "keysweep:estimate", stop };
    let estimated = parts(connector, sample, limits).map(|parts| total(target, &parts));
    estimated.map_err(|error| match stop.is_raised() {
        true => ShardError::Stopped(FailureKind::Interrupted).into_failure(target.seed()),
        false => error.into_failure(target.seed()),
    })
}

/// Part of an estimate for one primary.
struct Part {
    address: Address,
    method: Method,
    keys: u64,
    stale: f64,
    /// Bytes of the data set, of the databases in question.
    bytes: Option<f64>,
}

fn parts(connector: Connector<'_>, sample: Option<f64>, limits: Limits) -> Result<Vec<Part>, ShardError> {
    let nodes = Scout::new(connector).refresh()?;
    let part = |node: &PrimaryNode| match replica_of(node, connector)? {
        Found::Replica(address, link) => count(address, link, connector, sample, limits),
        Found::NoReplica(address, link) => average(address, link, connector.target),
    };
    nodes.iter().map(part).collect()
}

fn total(target: &Target, parts: &[Part]) -> Estimate {
    let (keys, stale) = parts.iter().fold((0, 0.0), |(keys, stale), part| (keys + part.keys, stale + part.stale));
    let addresses: Vec<String> = parts.iter().map(|part| part.address.to_string()).collect();
    let bytes = |part: &Part| part.bytes.map(|bytes| bytes * part.stale / part.keys.max(1) as f64);
    Estimate {
        target: target.to_string(),
        address: addresses.join(","),
        method: parts.iter().map(|part| part.method).max().unwrap_or(Method::Info),
        keys,
        stale_keys: stale as u64,
        share: if keys == 0 { 0.0 } else { stale / keys as f64 },
        bytes: parts.iter().map(bytes).sum::<Option<f64>>().map(|bytes| bytes as u64),
    }
}

enum Found {
    Replica(Address, Link),
    NoReplica(Address, Link),
}

/// Connects to the node itself if it is a replica, else to the first of its replicas that accepts the connection.
fn replica_of(node: &PrimaryNode, connector: Connector<'_>) -> Result<Found, ShardError> {
    let (role, mut link) = topology::node_role(node, connector)?;
    let node = &node.address;
    let addresses = match role {
        RoleView::Replica { in_sync: true, .. } => return Ok(Found::Replica(node.clone(), link)),
        RoleView::Replica { host, port, .. } => {
            let sentence = format!(
                "{node} is a replica without a link to its primary {}, so that its keys are out of date; restore the link, or name the primary",
                Address::tcp(host, port)
            );
            return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
        }
        RoleView::Primary { addresses, .. } => addresses,
        RoleView::Unknown => Vec::new(),
    };
    let history = replication_id(&mut link);
    for address in addresses {
        let address = connector.target.address_map.dialled(address);
        // A replica that cannot be reached, or not with these credentials, is skipped, and so is one that is still
        // synchronising. Where addresses are translated, this one may even lead to a replica of another primary.
        let Ok((RoleView::Replica { in_sync: true, .. }, mut link)) = topology::role(&address, connector) else {
            continue;
        };
        if replication_id(&mut link) == history {
            return Ok(Found::Replica(address, link));
        }
    }
    Ok(Found::NoReplica(node.clone(), link))
}

/// Returns the ID of the replication stream, which a primary and its replicas share; `None` where INFO is refused.
fn replication_id(link: &mut Link) -> Option<String> {
    link.info(&["replication"]).ok()??.text("master_replid").map(str::to_owned)
}

fn count(
    address: Address,
    mut link: Link,
    connector: Connector<'_>,
    sample: Option<f64>,
    limits: Limits,
) -> Result<Part, ShardError> {
    let (target, stop) = (connector.target, connector.stop);
    let failed = |error| ShardError::at(&address, error);
    let info = link.info(&["server", "cluster", "memory", "keyspace"]).map_err(failed)?.unwrap_or_default();
    let upto = sample.unwrap_or(1.0);
    let (mut pace, begun) = (Pace::new(limits), Instant::now());
    let idle = link.ping().map_err(failed)?;
    let (mut keys, mut stale) = (0, 0.0);
    for line in databases(&info, target) {
        link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(failed)?;
        let scale = match has_per_slot_tables(&info) {
            true => slot_scale(&mut link, None, stop).map_err(failed)?,
            false => Scale::Table,
        };
        let (mut cursor, mut returned, mut size) = (0, 0, line.keys);
        let share = loop {
            if stop.is_raised() {
                return Err(ShardError::Stopped(FailureKind::Interrupted));
            }
            let asked = match pace.next(begun.elapsed()) {
                Decision::Wait(due) => {
                    stop.wait_until(begun + due);
                    continue;
                }
                Decision::Go(asked) => asked,
            };
            let (sent, offset) = (Instant::now(), begun.elapsed());
            let slice = link.slice(cursor, asked, Capabilities::ALL).map_err(failed)?;
            let change = match slice.role {
                // Promoted meanwhile: from here on SCAN would delete.
                RoleView::Primary { .. } => Some("is no longer a replica"),
                RoleView::Replica { in_sync: false, .. } => Some("has lost the link to its primary"),
                _ => None,
            };
            if let Some(change) = change {
                let sentence = format!("{address} {change}; try again");
                return Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
            }
            pace.record(offset, sent.elapsed().saturating_sub(idle), asked, slice.returned, 0);
            returned += slice.returned;
            cursor = slice.cursor;
            size = slice.sizes.map_or(size, |(_, after)| after);
            match cursor {
                0 => break 1.0,
                _ if scale.fraction(cursor) >= upto => break scale.fraction(cursor),
                _ => {}
            }
        };
        keys += size;
        stale += (size as f64 - returned as f64 / share).max(0.0);
    }
    let method = if sample.is_some() { Method::ReplicaSample } else { Method::ReplicaCount };
    Ok(Part { address, method, keys, stale, bytes: bytes(&info, target) })
}

fn average(address: Address, mut link: Link, target: &Target) -> Result<Part, ShardError> {
    let info = link.info(&["memory", "stats", "keyspace"]).map_err(|error| ShardError::at(&address, error))?;
    let Some((info, percent)) =
        info.and_then(|info| info.number::<f64>("expired_stale_perc").map(|percent| (info, percent)))
    else {
        let sentence = format!(
            "{address} has no replica to count on and does not report its own average (INFO stats); attach a replica, or grant +info"
        );
        return Err(ShardError::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
    };
    let lines = databases(&info, target);
    let keys = lines.iter().map(|line| line.keys).sum();
    let with_ttl: u64 = lines.iter().map(|line| line.expires).sum();
    let stale = with_ttl as f64 * percent / 100.0;
    Ok(Part { address, method: Method::Info, keys, stale, bytes: bytes(&info, target) })
}

fn databases(info: &Info, target: &Target) -> Vec<Keyspace> {
    info.keyspace().into_iter().filter(|line| target.database.is_none_or(|only| only == line.database)).collect()
}

/// Returns the bytes of the databases in question, by their share of the keys.
fn bytes(info: &Info, target: &Target) -> Option<f64> {
    let held: u64 = databases(info, target).iter().map(|line| line.keys).sum();
    let all: u64 = info.keyspace().iter().map(|line| line.keys).sum();
    let share = if all == 0 { 0.0 } else { held as f64 / all as f64 };
    Some(info.number::<u64>("used_memory_dataset")? as f64 * share)
}

//! How much is dead, without releasing anything.
//!
//! On a replica SCAN hides expired keys and deletes none: what DBSIZE counts beyond what SCAN returns is dead. On a
//! primary there is no way to look that does not delete, so that without a replica only the server's own running average
//! is left, whose bias is named.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::{Abilities, Dialer, Info, Keyspace, Link, RoleView},
    pace::{Limits, Pace, Step},
    progress::Scale,
    stop::Stop,
    tables::{has_a_table_a_slot, slot_scale},
    target::{Address, Target},
    topology::{self, Access, Place, Scout},
};

/// How an estimate was made; the later ones are worth less.
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
    /// The method in words, with what is to be thought of it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::ReplicaCount => {
                "counted on a replica, where nothing is released; exact but for what changed meanwhile"
            }
            Self::ReplicaSample => "a sample counted on a replica, where nothing is released",
            Self::Info => {
                "the server's own running average (expired_stale_perc), for want of a replica; it lags behind by minutes, and where few keys die at a time it is too low"
            }
        }
    }
}

/// How much of a keyspace is dead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// What was asked about, without credentials.
    pub target: String,
    /// The nodes that answered, separated by commas.
    pub address: String,
    /// How it was made.
    pub method: Method,
    /// Keys that are held, dead ones included.
    pub keys: u64,
    /// Keys that are probably dead.
    pub dead_keys: u64,
    /// `dead_keys` by `keys`, 0–1.
    pub dead_share: f64,
    /// Bytes that they probably take: their share of the data set, as if all keys were of one size.
    pub dead_bytes: Option<u64>,
}

/// Estimates how much of the target's keyspace is dead. `sample`: the share of the keyspace to count on a replica, 0–1;
/// `None`: all of it. The count is paced by `limits`, as a sweep would be. Of several primaries each is estimated in turn.
pub fn estimate(
    dialer: &dyn Dialer,
    target: &Target,
    sample: Option<f64>,
    limits: Limits,
    stop: &Stop,
) -> Result<Estimate, Failure> {
    let access = Access { dialer, target, client_name: "keysweep:estimate", stop };
    let estimated = parts(access, sample, limits).map(|parts| total(target, &parts));
    estimated.map_err(|trouble| match stop.is_raised() {
        true => Trouble::Halted(FailureKind::Interrupted).into_failure(target.seed()),
        false => trouble.into_failure(target.seed()),
    })
}

/// What one primary adds to an estimate.
struct Part {
    address: Address,
    method: Method,
    keys: u64,
    dead: f64,
    /// Bytes of the data set, of the databases that were asked about.
    bytes: Option<f64>,
}

fn parts(access: Access<'_>, sample: Option<f64>, limits: Limits) -> Result<Vec<Part>, Trouble> {
    let places = Scout::new(access).look()?;
    let part = |place: &Place| match replica_of(&place.address, access)? {
        Found::Replica(address, link) => count(address, link, access, sample, limits),
        Found::NoReplica(address, link) => average(address, link, access.target),
    };
    places.iter().map(part).collect()
}

fn total(target: &Target, parts: &[Part]) -> Estimate {
    let (keys, dead) = parts.iter().fold((0, 0.0), |(keys, dead), part| (keys + part.keys, dead + part.dead));
    let addresses: Vec<String> = parts.iter().map(|part| part.address.to_string()).collect();
    let bytes = |part: &Part| part.bytes.map(|bytes| bytes * part.dead / part.keys.max(1) as f64);
    Estimate {
        target: target.to_string(),
        address: addresses.join(","),
        method: parts.iter().map(|part| part.method).max().unwrap_or(Method::Info),
        keys,
        dead_keys: dead as u64,
        dead_share: if keys == 0 { 0.0 } else { dead / keys as f64 },
        dead_bytes: parts.iter().map(bytes).sum::<Option<f64>>().map(|bytes| bytes as u64),
    }
}

enum Found {
    Replica(Address, Link),
    NoReplica(Address, Link),
}

/// The node itself if it is a replica, else one of its replicas that lets us in.
fn replica_of(node: &Address, access: Access<'_>) -> Result<Found, Trouble> {
    let (role, link) = topology::role(node, access)?;
    let addresses = match role {
        RoleView::Replica { .. } => return Ok(Found::Replica(node.clone(), link)),
        RoleView::Primary { addresses, .. } => addresses,
        RoleView::Unknown => Vec::new(),
    };
    for address in addresses {
        let address = access.target.address_map.dialled(address);
        // One that cannot be reached, or not with these credentials, is no failure while there are others.
        if let Ok((RoleView::Replica { .. }, link)) = topology::role(&address, access) {
            return Ok(Found::Replica(address, link));
        }
    }
    Ok(Found::NoReplica(node.clone(), link))
}

fn count(
    address: Address,
    mut link: Link,
    access: Access<'_>,
    sample: Option<f64>,
    limits: Limits,
) -> Result<Part, Trouble> {
    let (target, stop) = (access.target, access.stop);
    let trouble = |error| Trouble::at(&address, error);
    let info = link.info(&["server", "cluster", "memory", "keyspace"]).map_err(trouble)?.unwrap_or_default();
    let upto = sample.unwrap_or(1.0);
    let (mut pace, begun) = (Pace::new(limits), Instant::now());
    let idle = link.ping().map_err(trouble)?;
    let (mut keys, mut dead) = (0, 0.0);
    for line in databases(&info, target) {
        link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(trouble)?;
        let scale = match has_a_table_a_slot(&info) {
            true => slot_scale(&mut link, None, stop).map_err(trouble)?,
            false => Scale::Table,
        };
        let (mut cursor, mut returned, mut size) = (0, 0, line.keys);
        let share = loop {
            if stop.is_raised() {
                return Err(Trouble::Halted(FailureKind::Interrupted));
            }
            let asked = match pace.next(begun.elapsed()) {
                Step::Wait(due) => {
                    stop.wait_until(begun + due);
                    continue;
                }
                Step::Go(asked) => asked,
            };
            let (sent, offset) = (Instant::now(), begun.elapsed());
            let slice = link.slice(cursor, asked, Abilities::ALL).map_err(trouble)?;
            if matches!(slice.role, RoleView::Primary { .. }) {
                // It has just been promoted: from here on looking would release.
                let sentence = format!("{address} is no replica any more; try again");
                return Err(Trouble::Fatal(Failure::new(FailureKind::Refused, sentence)));
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
        dead += (size as f64 - returned as f64 / share).max(0.0);
    }
    let method = if sample.is_some() { Method::ReplicaSample } else { Method::ReplicaCount };
    Ok(Part { address, method, keys, dead, bytes: bytes(&info, target) })
}

fn average(address: Address, mut link: Link, target: &Target) -> Result<Part, Trouble> {
    let info = link.info(&["memory", "stats", "keyspace"]).map_err(|error| Trouble::at(&address, error))?;
    let Some((info, percent)) =
        info.and_then(|info| info.number::<f64>("expired_stale_perc").map(|percent| (info, percent)))
    else {
        let sentence = format!(
            "{address} has no replica to count on and does not tell its own average (INFO stats); attach a replica, or grant +info"
        );
        return Err(Trouble::Fatal(Failure::new(FailureKind::Unsupported, sentence)));
    };
    let lines = databases(&info, target);
    let keys = lines.iter().map(|line| line.keys).sum();
    let with_ttl: u64 = lines.iter().map(|line| line.expires).sum();
    let dead = with_ttl as f64 * percent / 100.0;
    Ok(Part { address, method: Method::Info, keys, dead, bytes: bytes(&info, target) })
}

fn databases(info: &Info, target: &Target) -> Vec<Keyspace> {
    info.keyspace().into_iter().filter(|line| target.database.is_none_or(|only| only == line.database)).collect()
}

/// Bytes that the databases asked about take, by their share of the keys.
fn bytes(info: &Info, target: &Target) -> Option<f64> {
    let held: u64 = databases(info, target).iter().map(|line| line.keys).sum();
    let all: u64 = info.keyspace().iter().map(|line| line.keys).sum();
    let share = if all == 0 { 0.0 } else { held as f64 / all as f64 };
    Some(info.number::<u64>("used_memory_dataset")? as f64 * share)
}

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
    progress::fraction,
    stop::Stop,
    target::{Address, Target},
    topology::{self, Access},
};

/// How an estimate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The node that answered.
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
/// `None`: all of it. The count is paced by `limits`, as a sweep would be.
pub fn estimate(
    dialer: &dyn Dialer,
    target: &Target,
    sample: Option<f64>,
    limits: Limits,
    stop: &Stop,
) -> Result<Estimate, Failure> {
    let access = Access { dialer, credentials: &target.credentials, client_name: "keysweep:estimate", stop };
    let estimated = replica_of(target, access).and_then(|found| match found {
        Found::Replica(address, link) => count(address, link, target, sample, limits, stop),
        Found::NoReplica(address, link) => average(address, link, target),
    });
    estimated.map_err(|trouble| match stop.is_raised() {
        true => Trouble::Halted(FailureKind::Interrupted).into_failure(&target.address),
        false => trouble.into_failure(&target.address),
    })
}

enum Found {
    Replica(Address, Link),
    NoReplica(Address, Link),
}

/// The node that the target names if it is a replica, else one of its replicas that lets us in.
fn replica_of(target: &Target, access: Access<'_>) -> Result<Found, Trouble> {
    let (role, link) = topology::role(&target.address, access)?;
    let addresses = match role {
        RoleView::Replica { .. } => return Ok(Found::Replica(target.address.clone(), link)),
        RoleView::Primary { addresses, .. } => addresses,
        RoleView::Unknown => Vec::new(),
    };
    for address in addresses {
        // One that cannot be reached, or not with these credentials, is no failure while there are others.
        if let Ok((RoleView::Replica { .. }, link)) = topology::role(&address, access) {
            return Ok(Found::Replica(address, link));
        }
    }
    Ok(Found::NoReplica(target.address.clone(), link))
}

fn count(
    address: Address,
    mut link: Link,
    target: &Target,
    sample: Option<f64>,
    limits: Limits,
    stop: &Stop,
) -> Result<Estimate, Trouble> {
    let trouble = |error| Trouble::at(&address, error);
    let info = link.info(&["memory", "keyspace"]).map_err(trouble)?.unwrap_or_default();
    let upto = sample.unwrap_or(1.0);
    let (mut pace, begun) = (Pace::new(limits), Instant::now());
    let idle = link.ping().map_err(trouble)?;
    let (mut keys, mut dead) = (0, 0.0);
    for line in databases(&info, target) {
        link.call(&[b"SELECT", line.database.to_string().as_bytes()]).map_err(trouble)?;
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
                _ if fraction(cursor) >= upto => break fraction(cursor),
                _ => {}
            }
        };
        keys += size;
        dead += (size as f64 - returned as f64 / share).max(0.0);
    }
    let method = if sample.is_some() { Method::ReplicaSample } else { Method::ReplicaCount };
    Ok(result(target, address, method, keys, dead, &info))
}

fn average(address: Address, mut link: Link, target: &Target) -> Result<Estimate, Trouble> {
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
    Ok(result(target, address, Method::Info, keys, with_ttl as f64 * percent / 100.0, &info))
}

fn databases(info: &Info, target: &Target) -> Vec<Keyspace> {
    info.keyspace().into_iter().filter(|line| target.database.is_none_or(|only| only == line.database)).collect()
}

fn result(target: &Target, address: Address, method: Method, keys: u64, dead: f64, info: &Info) -> Estimate {
    let dead_share = if keys == 0 { 0.0 } else { dead / keys as f64 };
    let held: u64 = databases(info, target).iter().map(|line| line.keys).sum();
    let all: u64 = info.keyspace().iter().map(|line| line.keys).sum();
    let swept = if all == 0 { 0.0 } else { held as f64 / all as f64 };
    let dataset = info.number::<u64>("used_memory_dataset");
    Estimate {
        target: target.to_string(),
        address: address.to_string(),
        method,
        keys,
        dead_keys: dead as u64,
        dead_share,
        dead_bytes: dataset.map(|bytes| (bytes as f64 * swept * dead_share) as u64),
    }
}

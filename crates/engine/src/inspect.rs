//! What a server says of itself, asked once and without touching a key.

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::Dialer,
    stop::{Cause, Stop},
    target::Target,
    topology::{self, Access},
};

/// What a target's primaries say of themselves, in sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The primaries' addresses.
    pub primaries: Vec<String>,
    /// `redis` or `valkey`.
    pub engine: String,
    /// For example `7.0.15`; empty where the server does not tell.
    pub engine_version: String,
    /// Whether the node runs in cluster mode.
    pub cluster: bool,
    /// Keys in all databases, expired ones that are still held included.
    pub keys: u64,
    /// Keys that have a TTL.
    pub keys_with_ttl: u64,
    /// Keys that are probably dead, by the servers' own running average (`expired_stale_perc`), which lags behind by
    /// minutes; `None` where one of them does not tell.
    #[serde(default)]
    pub dead_keys: Option<u64>,
    /// Bytes.
    pub used_memory: u64,
    /// Bytes; 0: no limit.
    pub max_memory: u64,
}

/// Connects to a target's primaries and asks each. All of them must answer: half a sum says nothing.
pub fn inspect(dialer: &dyn Dialer, target: &Target, stop: &Stop) -> Result<Inspection, Failure> {
    let access = Access { dialer, target, client_name: "keysweep:inspect", stop };
    ask(access).map_err(|trouble| match stop.cause() {
        Some(Cause::OutOfTime) => {
            let sentence = format!("a node of {target} did not answer in time; it may be overloaded or stopped");
            Failure::new(FailureKind::Unreachable, sentence)
        }
        _ => trouble.into_failure(target.seed()),
    })
}

fn ask(access: Access<'_>) -> Result<Inspection, Trouble> {
    let mut sum = Inspection {
        primaries: Vec::new(),
        engine: String::new(),
        engine_version: String::new(),
        cluster: false,
        keys: 0,
        keys_with_ttl: 0,
        dead_keys: Some(0),
        used_memory: 0,
        max_memory: 0,
    };
    for primary in topology::primaries(access)? {
        let mut primary = primary?;
        let wanted = ["server", "memory", "stats", "cluster", "keyspace"];
        let info =
            primary.link.info(&wanted).map_err(|error| Trouble::at(&primary.address, error))?.unwrap_or_default();
        let keyspace = info.keyspace();
        sum.primaries.push(primary.address.to_string());
        sum.engine = info.engine().to_owned();
        sum.engine_version = info.engine_version().unwrap_or_default().to_owned();
        sum.cluster |= info.text("cluster_enabled") == Some("1");
        sum.keys += keyspace.iter().map(|line| line.keys).sum::<u64>();
        let with_ttl = keyspace.iter().map(|line| line.expires).sum::<u64>();
        sum.keys_with_ttl += with_ttl;
        let dead = info.number::<f64>("expired_stale_perc").map(|percent| (with_ttl as f64 * percent / 100.0) as u64);
        sum.dead_keys = sum.dead_keys.zip(dead).map(|(sum, dead)| sum + dead);
        sum.used_memory += info.number("used_memory").unwrap_or(0);
        sum.max_memory += info.number("maxmemory").unwrap_or(0);
    }
    Ok(sum)
}

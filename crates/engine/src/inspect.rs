//! What a server says of itself, asked once and without touching a key.

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::{Dialer, LinkError},
    stop::{Cause, Stop},
    target::Target,
    topology::{self, Access},
};

/// What a target's primary says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The primary's address.
    pub address: String,
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
    /// Bytes.
    pub used_memory: u64,
    /// Bytes; 0: no limit.
    pub max_memory: u64,
}

/// Connects to a target, follows it to its primary and asks.
pub fn inspect(dialer: &dyn Dialer, target: &Target, stop: &Stop) -> Result<Inspection, Failure> {
    let access = Access { dialer, credentials: &target.credentials, client_name: "keysweep:inspect", stop };
    ask(target, access).map_err(|trouble| match stop.cause() {
        Some(Cause::OutOfTime) => Trouble::Halted(FailureKind::Timeout).into_failure(&target.address),
        _ => trouble.into_failure(&target.address),
    })
}

fn ask(target: &Target, access: Access<'_>) -> Result<Inspection, Trouble> {
    let mut primary = topology::primary(target, access)?;
    let wanted = ["server", "memory", "cluster", "keyspace"];
    let info = primary
        .link
        .info(&wanted)
        .map_err(|error: LinkError| Trouble::at(&primary.address, error))?
        .unwrap_or_default();
    let keyspace = info.keyspace();
    Ok(Inspection {
        address: primary.address.to_string(),
        engine: info.engine().to_owned(),
        engine_version: info.engine_version().unwrap_or_default().to_owned(),
        cluster: info.text("cluster_enabled") == Some("1"),
        keys: keyspace.iter().map(|line| line.keys).sum(),
        keys_with_ttl: keyspace.iter().map(|line| line.expires).sum(),
        used_memory: info.number("used_memory").unwrap_or(0),
        max_memory: info.number("maxmemory").unwrap_or(0),
    })
}

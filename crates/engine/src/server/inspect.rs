//! Statistics of an instance, read once and without touching a key.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::cycle::reading;
use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Dialer, Info, saturating_sum},
    stale::Reading,
    stop::{Cause, Stop},
    target::{Address, Target},
    topology::{self, Connector},
};

/// What a server had counted of its expiry at one time, for a rate until a later one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredKeys {
    /// When it had, milliseconds since 1970 by this machine's clock.
    pub at: u64,
    /// Identity of the server process (`run_id`).
    pub run_id: String,
    /// Expired keys that were removed since the start (`expired_keys`).
    pub keys: u64,
    /// Expired fields of hashes that were removed (`expired_fields`).
    pub fields: u64,
}

impl ExpiredKeys {
    /// Returns what INFO counts now; `None`: it lacks the run id or the counter.
    fn of(info: &Info) -> Option<Self> {
        let Reading { run_id, expired, expired_fields, .. } = reading(info, 0.0, 0)?;
        (!run_id.is_empty()).then(|| Self { at: Self::clock(), run_id, keys: expired, fields: expired_fields })
    }

    /// Returns the present time on the clock of these counters.
    pub fn clock() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Statistics of a target, summed over its primaries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The primaries' addresses. Stats that were stored before these were kept have none.
    #[serde(default)]
    pub primaries: Vec<Address>,
    /// The IP addresses that the primaries were connected to at, as far as the dialer knows them. Version 0.1.0 did not keep
    /// them.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// The primaries' run IDs, as far as they report them. Version 0.1.0 did not keep them.
    #[serde(default)]
    pub run_ids: Vec<String>,
    /// `redis`, `valkey`, or an engine that gains nothing from a scan.
    pub engine: String,
    /// For example `7.0.15`; empty where the server does not report it.
    pub engine_version: String,
    /// Whether the node runs in cluster mode; `mode` (cluster or standalone) in JSON.
    #[serde(rename = "mode", with = "mode")]
    pub cluster: bool,
    /// Keys, stale keys included: of the database that the URL names, or of all.
    pub keys: u64,
    /// Keys that have a TTL.
    pub keys_with_ttl: u64,
    /// Estimated stale keys, by the servers' own running average (`expired_stale_perc`), which lags behind by minutes;
    /// `None` where one of them does not report it.
    #[serde(default, alias = "dead_keys")]
    pub stale_keys: Option<u64>,
    /// `used_memory`, bytes.
    pub used_memory: u64,
    /// `maxmemory`, bytes; 0: no limit.
    pub max_memory: u64,
    /// What the primaries had counted of their expiry, as far as they report it.
    #[serde(default)]
    pub expired: Vec<ExpiredKeys>,
}

/// `cluster` in JSON.
mod mode {
    use serde::{Deserialize, Deserializer, Serializer};

    const CLUSTER: &str = "cluster";

    pub fn serialize<S: Serializer>(cluster: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if *cluster { CLUSTER } else { "standalone" })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        Ok(String::deserialize(deserializer)? == CLUSTER)
    }
}

/// Connects to a target's primaries and reads the statistics of each. Fails if one does not answer: a partial sum would
/// mislead.
pub fn inspect(dialer: &dyn Dialer, target: &Target, stop: &Stop) -> Result<Inspection, Failure> {
    let connector = Connector { dialer, target, client_name: "keysweep:inspect", stop };
    ask(connector).map_err(|error| match stop.cause() {
        Some(Cause::TimedOut) => {
            let sentence = format!("a node of {target} did not answer in time; it may be overloaded or stopped");
            Failure::new(FailureKind::Unreachable, sentence)
        }
        _ => error.into_failure(target.seed()),
    })
}

fn ask(connector: Connector<'_>) -> Result<Inspection, ShardError> {
    let mut sum = Inspection { stale_keys: Some(0), ..Inspection::default() };
    for primary in topology::primaries(connector)? {
        let mut primary = primary?;
        let wanted = ["server", "memory", "stats", "cluster", "keyspace"];
        let info =
            primary.link.info(&wanted).map_err(|error| ShardError::at(&primary.address, error))?.unwrap_or_default();
        let wanted = |database: u32| connector.target.database.is_none_or(|only| only == database);
        let keyspace: Vec<_> = info.keyspace().into_iter().filter(|line| wanted(line.database)).collect();
        sum.run_ids.extend(info.run_id());
        sum.expired.extend(ExpiredKeys::of(&info));
        sum.primaries.push(primary.address.clone());
        sum.ips.extend(primary.link.peer());
        sum.engine = info.engine().to_owned();
        sum.engine_version = info.engine_version().unwrap_or_default().to_owned();
        sum.cluster |= info.text("cluster_enabled") == Some("1");
        let add = |sum: &mut u64, number: u64| *sum = sum.saturating_add(number);
        add(&mut sum.keys, saturating_sum(keyspace.iter().map(|line| line.keys)));
        let with_ttl = saturating_sum(keyspace.iter().map(|line| line.expires));
        add(&mut sum.keys_with_ttl, with_ttl);
        let stale = info.number::<f64>("expired_stale_perc").map(|percent| (with_ttl as f64 * percent / 100.0) as u64);
        sum.stale_keys = sum.stale_keys.zip(stale).map(|(sum, stale)| sum.saturating_add(stale));
        add(&mut sum.used_memory, info.number("used_memory").unwrap_or(0));
        add(&mut sum.max_memory, info.number("maxmemory").unwrap_or(0));
    }
    Ok(sum)
}

//! Totals over instances. Several can be databases of one server, or the same one under several names: each server counts once.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::model::{Instance, InstanceStats};

/// Sums over the servers of some instances, as of the last polls and estimates. Unreachable instances are left out: their stats
/// are of another time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys, stale keys included.
    pub keys: u64,
    /// Estimated stale keys.
    pub stale_keys: u64,
    /// Bytes.
    pub used_memory: u64,
    /// Estimated bytes of stale keys, as far as they are known.
    pub reclaimable: u64,
}

/// What a part of a server holds.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    keys: u64,
    stale_keys: u64,
    reclaimable: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            keys: self.keys.saturating_add(other.keys),
            stale_keys: self.stale_keys.saturating_add(other.stale_keys),
            reclaimable: self.reclaimable.saturating_add(other.reclaimable),
        }
    }
}

/// What the instances on one server show of it.
struct Server {
    used_memory: u64,
    /// Of all databases, where an instance covers them all.
    whole: Option<Counts>,
    /// Of the databases that instances name.
    databases: BTreeMap<u32, Counts>,
}

impl Totals {
    /// Sums the stats of instances and their estimated bytes of stale keys.
    pub fn of<'a>(instances: impl IntoIterator<Item = (&'a Instance, Option<u64>)>) -> Self {
        let mut servers: BTreeMap<Vec<String>, Server> = BTreeMap::new();
        for (instance, reclaimable) in instances {
            let Some(stats) = instance.stats.as_ref().filter(|_| instance.unreachable.is_none()) else { continue };
            let server = match servers.entry(identity(stats)) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(Server { used_memory: stats.used_memory, whole: None, databases: BTreeMap::new() })
                }
            };
            let counts = Counts {
                keys: stats.keys,
                stale_keys: stats.stale_keys.unwrap_or(0),
                reclaimable: reclaimable.unwrap_or(0),
            };
            match instance.url.value().ok().and_then(|target| target.database) {
                Some(database) => drop(server.databases.insert(database, counts)),
                None => server.whole = Some(counts),
            }
        }
        servers.values().fold(Self::default(), |sum, server| {
            let databases = || server.databases.values().copied().fold(Counts::default(), Counts::plus);
            let counts = server.whole.unwrap_or_else(databases);
            Self {
                keys: sum.keys.saturating_add(counts.keys),
                stale_keys: sum.stale_keys.saturating_add(counts.stale_keys),
                used_memory: sum.used_memory.saturating_add(server.used_memory),
                reclaimable: sum.reclaimable.saturating_add(counts.reclaimable),
            }
        })
    }
}

/// Returns what two instances on the same servers have in common: the run IDs of the primaries, or their addresses where one
/// of them reports none.
fn identity(stats: &InstanceStats) -> Vec<String> {
    let mut identity = match stats.run_ids.len() == stats.primaries.len() {
        true => stats.run_ids.clone(),
        false => stats.primaries.iter().map(ToString::to_string).collect(),
    };
    identity.sort();
    identity
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use keysweep_engine::Inspection;

    use super::*;
    use crate::model::{PollCode, PollFailure};

    fn instance(url: &str, run_id: Option<&str>, keys: u64, used_memory: u64) -> Instance {
        let address = url.trim_start_matches("redis://").split('/').next().unwrap_or_default();
        let server = Inspection {
            primaries: vec![address.parse().expect("an address")],
            run_ids: run_id.into_iter().map(str::to_owned).collect(),
            keys,
            stale_keys: Some(keys / 10),
            used_memory,
            ..Inspection::default()
        };
        let stats = Some(InstanceStats { server, seen_at: Timestamp::UNIX_EPOCH });
        Instance { stats, ..Instance::new("i".into(), "p".into(), "n".into(), url.into(), Timestamp::UNIX_EPOCH) }
    }

    fn totals(instances: &[Instance]) -> (u64, u64, u64) {
        let with_bytes =
            instances.iter().map(|instance| (instance, instance.stats.as_ref().map(|stats| stats.keys * 9)));
        let Totals { keys, stale_keys, used_memory, reclaimable } = Totals::of(with_bytes);
        assert_eq!(reclaimable, keys * 9, "the bytes of stale keys count as the keys do");
        (keys, stale_keys, used_memory)
    }

    #[test]
    fn a_server_counts_once_however_many_instances_are_on_it() {
        let [zero, one] = ["redis://a:1/0", "redis://b:1/1"].map(|url| instance(url, Some("x"), 100, 7));
        let other = instance("redis://a:2", Some("y"), 1_000, 70);
        assert_eq!(totals(&[zero.clone(), one.clone(), other.clone()]), (1_200, 120, 77));
        assert_eq!(totals(&[zero.clone(), zero.clone()]), (100, 10, 7), "the same database twice");
        let whole = instance("redis://a:1", Some("x"), 250, 7);
        assert_eq!(totals(&[zero, whole, one, other]), (1_250, 125, 77), "the whole server holds its databases");
        let nameless = [instance("redis://a:1/0", None, 5, 1), instance("redis://a:1/1", None, 6, 1)];
        assert_eq!(totals(&nameless), (11, 0, 1), "without a run ID the address says which server it is");
    }

    #[test]
    fn unreachable_instances_are_left_out() {
        let lost = Instance {
            unreachable: Some(PollFailure::new(PollCode::Unreachable, "gone")),
            ..instance("redis://a:1", Some("x"), 100, 7)
        };
        assert_eq!(totals(&[lost, instance("redis://a:2", Some("y"), 10, 1)]), (10, 1, 1));
    }
}

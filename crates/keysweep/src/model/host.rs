//! The hosts that an instance's sweep burdens.

use keysweep_engine::{Mode, Target};

use super::Instance;

/// The hosts that the URL names and those that the primaries were on at the last look, in lower case, each once. Sentinels
/// are only asked where the primary is: theirs count as long as nobody has seen it.
pub fn hosts(instance: &Instance) -> Vec<String> {
    let seen = instance.facts.as_ref().map_or(&[][..], |facts| &facts.hosts);
    let named = match instance.url.parse() {
        Ok(Target { mode: Mode::Sentinel { .. }, .. }) if !seen.is_empty() => Vec::new(),
        target => target.map(|target| target.seeds).unwrap_or_default(),
    };
    let mut hosts: Vec<String> = named.into_iter().map(|node| node.host).chain(seen.iter().cloned()).collect();
    for host in &mut hosts {
        host.make_ascii_lowercase();
    }
    // What a server says of itself may be anything; what is no name and no address is no host either.
    hosts.retain(|host| !host.is_empty() && host.chars().all(|char| char.is_alphanumeric() || "-._:%".contains(char)));
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::Facts;

    fn hosts_of(url: &str, seen: &[&str]) -> Vec<String> {
        let facts = Facts {
            engine: "valkey".into(),
            engine_version: "9.1.2".into(),
            mode: "standalone".into(),
            keys: 0,
            keys_with_ttl: 0,
            dead_keys: None,
            used_memory: 0,
            max_memory: 0,
            hosts: seen.iter().map(ToString::to_string).collect(),
            primaries: Vec::new(),
            seen_at: Timestamp::UNIX_EPOCH,
        };
        let instance = Instance {
            facts: (!seen.is_empty()).then_some(facts),
            ..Instance::new("i".into(), "p".into(), "cache".into(), url.into(), Timestamp::UNIX_EPOCH)
        };
        hosts(&instance)
    }

    #[test]
    fn a_sweep_burdens_the_hosts_that_the_url_names_and_those_that_were_seen() {
        assert_eq!(hosts_of("redis://Cache.example:6379/3", &[]), ["cache.example"]);
        assert_eq!(hosts_of("valkeys://[::1]:7000", &[]), ["::1"]);
        assert_eq!(hosts_of("redis://replica.example", &["10.0.0.7"]), ["10.0.0.7", "replica.example"]);
        assert_eq!(hosts_of("redis-cluster://h2:1,h1:2,h1:3", &[]), ["h1", "h2"]);
        assert_eq!(hosts_of("redis-cluster://h1:1", &["h1", "h2", "h3"]), ["h1", "h2", "h3"]);
    }

    #[test]
    fn sentinels_count_only_until_the_primary_was_seen() {
        assert_eq!(hosts_of("redis-sentinel://s1,s2/main", &[]), ["s1", "s2"]);
        assert_eq!(hosts_of("rediss-sentinel://s1,s2/main", &["10.0.0.7"]), ["10.0.0.7"]);
    }

    #[test]
    fn what_a_server_says_that_is_no_host_is_left_out() {
        assert_eq!(hosts_of("redis://h", &["", "a b", "x\"]"]), ["h"]);
    }
}

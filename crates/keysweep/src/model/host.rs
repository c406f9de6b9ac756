//! The hosts that the scan of an instance runs on, for the per-host concurrency limit.

use std::net::{IpAddr, Ipv4Addr};

use keysweep_engine::{Address, Mode};
use url::Host;

use super::Instance;

/// Returns the identity of each host of an instance, sorted, each once: the IP addresses at which the primaries were last
/// connected to, and the host of a server's URL in canonical spelling. The hosts of a cluster's or Sentinel's URL do not count: a
/// caller could name any, and so keep the scans of others away from them.
///
/// A host is an IP address without a port, because the limit protects a machine: two servers on different ports of one
/// machine share its cores and its memory. Instances behind one address, such as a load balancer's or a tunnel's, therefore
/// share its limit, wherever their servers run.
///
/// Sentinels and the nodes of a cluster only tell where the primaries are, which count once a poll has connected to them. Names are
/// not resolved, because a task must not wait for a name server while it is created.
pub fn hosts(instance: &Instance) -> Vec<String> {
    let seen = instance.stats.as_ref().map_or(&[][..], |stats| &stats.ips);
    let named = match instance.url.value() {
        Ok(target) if matches!(target.mode, Mode::Server) => &target.seeds[..],
        // An instance whose URL cannot be read is not scanned.
        Ok(_) | Err(_) => &[],
    };
    let seen = seen.iter().map(|ip| identity(*ip));
    let mut hosts: Vec<String> = named.iter().filter_map(host_of).chain(seen).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Returns the identity of a node's host: for a unix socket this machine's.
fn host_of(node: &Address) -> Option<String> {
    node.host().map_or_else(|| Some(identity(Ipv4Addr::LOCALHOST.into())), canonical)
}

/// Returns the canonical spelling of a host; `None`: the text names none.
fn canonical(host: &str) -> Option<String> {
    let host = host.trim_end_matches('.');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(identity(ip));
    }
    // Reads IPv4 addresses as the C library does when it dials: 127.1, 0x7f000001.
    match Host::parse(host) {
        Ok(Host::Ipv4(ip)) => Some(identity(ip.into())),
        Ok(Host::Ipv6(ip)) => Some(identity(ip.into())),
        Ok(Host::Domain(name)) if name == "localhost" => Some(identity(Ipv4Addr::LOCALHOST.into())),
        Ok(Host::Domain(name)) => Some(name),
        // Names with an underscore and addresses with a zone are hosts as well.
        Err(_) => {
            let is_host = !host.is_empty() && host.chars().all(|char| char.is_alphanumeric() || "-._:%".contains(char));
            is_host.then(|| host.to_lowercase())
        }
    }
}

/// Returns the text of an IP address that stands for a machine: an IPv4 address in IPv6 form is the IPv4 address, and
/// both loopback addresses are this machine.
fn identity(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V6(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use keysweep_engine::Inspection;
    use rstest::rstest;

    use super::*;
    use crate::model::InstanceStats;

    fn hosts_of(url: &str, seen: &[&str]) -> Vec<String> {
        let ips = seen.iter().map(|ip| ip.parse().expect("an address")).collect();
        let server = Inspection { ips, ..Inspection::default() };
        let stats = InstanceStats { server, seen_at: Timestamp::UNIX_EPOCH };
        let instance = Instance {
            stats: (!seen.is_empty()).then_some(stats),
            ..Instance::new("i".into(), "p".into(), "cache".into(), url.into(), Timestamp::UNIX_EPOCH)
        };
        hosts(&instance)
    }

    #[test]
    fn the_hosts_are_that_of_a_server_and_those_of_the_primaries() {
        assert_eq!(hosts_of("redis://Cache.example:6379/3", &[]), ["cache.example"]);
        assert_eq!(hosts_of("redis://cache_1.example.", &[]), ["cache_1.example"]);
        assert_eq!(hosts_of("redis://replica.example", &["10.0.0.7"]), ["10.0.0.7", "replica.example"]);
        assert_eq!(hosts_of("redis-cluster://h2:1,h1:2,h1:3", &[]), [""; 0], "a caller may name any");
        assert_eq!(hosts_of("redis-cluster://h2:1,h1:2", &["10.0.0.3"]), ["10.0.0.3"], "none was dialled for a scan");
        let cluster = hosts_of("redis-cluster://10.0.0.1:1", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(cluster, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn sentinels_do_not_count() {
        assert_eq!(hosts_of("redis-sentinel://s1,s2/main", &[]), [""; 0]);
        assert_eq!(hosts_of("rediss-sentinel://s1,s2/main", &["10.0.0.7"]), ["10.0.0.7"]);
    }

    #[rstest]
    #[case("127.0.0.1")]
    #[case("localhost")]
    #[case("LOCALHOST.")]
    #[case("127.1")]
    #[case("0x7f.0.0.1")]
    #[case("[::1]")]
    #[case("[0:0:0:0:0:0:0:1]")]
    #[case("[::ffff:127.0.0.1]")]
    fn every_spelling_of_an_address_is_one_host(#[case] host: &str) {
        assert_eq!(hosts_of(&format!("redis://{host}:6379"), &[]), ["127.0.0.1"]);
        assert_eq!(hosts_of(&format!("redis://{host}:6380"), &["127.0.0.1"]), ["127.0.0.1"]);
        assert_eq!(hosts_of(&format!("redis://{host}:6380"), &["::1"]), ["127.0.0.1"]);
    }

    #[test]
    fn a_unix_socket_is_on_this_machine() {
        assert_eq!(hosts_of("unix:///run/redis.sock", &[]), ["127.0.0.1"]);
    }

    #[test]
    fn other_addresses_have_one_spelling_each() {
        assert_eq!(hosts_of("valkeys://[2001:DB8:0::1]:7000", &[]), ["2001:db8::1"]);
        assert_eq!(hosts_of("redis://10.1", &["::ffff:10.0.0.1"]), ["10.0.0.1"]);
        assert_eq!(hosts_of("redis://127.0.0.2", &[]), ["127.0.0.2"]);
    }
}

//! How many connections one client has, so that one cannot take the places of all others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{proxies::TrustedProxies, request::client_network};

type Counts = Arc<Mutex<HashMap<IpAddr, u32>>>;

/// Connections by the address of their client. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Peers {
    limit: u32,
    /// Proxies, whose connections are those of many clients.
    exempt: TrustedProxies,
    counts: Counts,
}

impl Peers {
    /// Returns counts with this limit for each address, from which the addresses of trusted proxies are exempt.
    pub fn new(limit: u32, exempt: TrustedProxies) -> Self {
        Self { limit, exempt, counts: Arc::default() }
    }

    /// Returns counts of their own with another limit, from which the same addresses are exempt.
    pub fn limited_to(&self, limit: u32) -> Self {
        Self::new(limit, self.exempt.clone())
    }

    /// Counts a connection of this client until the permit is dropped; `None`: the client has as many as it may.
    pub fn admit(&self, client: IpAddr) -> Option<PeerPermit> {
        let client = client.to_canonical();
        if self.exempt.trust(client) {
            return Some(PeerPermit(None));
        }
        let client = client_network(client);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= self.limit {
            tracing::debug!(%client, connections = *count, "connection refused: this client has too many");
            return None;
        }
        *count += 1;
        Some(PeerPermit(Some((Arc::clone(&self.counts), client))))
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct PeerPermit(Option<(Counts, IpAddr)>);

impl Drop for PeerPermit {
    fn drop(&mut self) {
        let Some((counts, client)) = &self.0 else { return };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_client_has_a_limit_of_its_own() {
        let peers = Peers::new(2, TrustedProxies::default());
        let held = [peers.admit(address("192.0.2.1")), peers.admit(address("::ffff:192.0.2.1"))];
        assert!(held.iter().all(Option::is_some) && peers.admit(address("192.0.2.1")).is_none());
        assert!(peers.admit(address("192.0.2.2")).is_some());
        drop(held);
        assert!(peers.admit(address("192.0.2.1")).is_some());
        assert!(peers.counts.lock().expect("not poisoned").is_empty(), "clients that are gone take no memory");
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_trusted_proxy_is_many() {
        let peers = Peers::new(1, TrustedProxies::new(["10.0.0.1"]).expect("an address"));
        let _held = peers.admit(address("2001:db8::1"));
        assert!(peers.admit(address("2001:db8::2")).is_none() && peers.admit(address("2001:db8:0:1::1")).is_some());
        let held: Vec<_> = (0..9).map(|_| peers.admit(address("10.0.0.1"))).collect();
        assert!(held.iter().all(Option::is_some));
    }
}

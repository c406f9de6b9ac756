//! Free ports for test servers.
//!
//! They lie below the range that Linux uses for outgoing connections (32768 and up). In that range, a client that keeps dialling a
//! stopped server would sooner or later get the server's port as its local port, connect to itself, and block a restart of the
//! server.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

/// Lowest port.
const FIRST: u16 = 12_000;
/// Number of ports.
const SPAN: u16 = 10_000;
/// Distance of a server's cluster bus port from its port.
const BUS_OFFSET: u16 = 10_000;

/// Returns a port on 127.0.0.1 that is free together with its cluster bus port. Another process may take it before the caller
/// does; callers then try another port.
///
/// # Panics
/// If a thousand ports in a row are taken.
#[must_use]
pub fn free_port() -> u16 {
    // Test processes run in parallel, so each begins at a random port.
    let random = RandomState::new().build_hasher().finish();
    let start = u16::try_from(random % u64::from(SPAN)).expect("SPAN is a u16");
    (0..1_000)
        .map(|step| FIRST + (start + step) % SPAN)
        .find(|&port| is_free(port) && is_free(port + BUS_OFFSET))
        .expect("a thousand ports in a row are taken")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_is_outside_the_range_of_client_ports() {
        let port = free_port();
        assert!((FIRST..FIRST + SPAN).contains(&port));
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the system has a free port");
        assert!(!is_free(taken.local_addr().expect("a bound socket has an address").port()));
    }
}

//! Ports for servers that tests start.
//!
//! Taken from below the range that Linux gives to outgoing connections (32768 and up). From that range, a
//! client that keeps dialling a server which is down would sooner or later be given the server's own port
//! as its local one, connect to itself, and keep the server from coming back.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

/// The lowest port handed out; ports reach to `FIRST + SPAN`.
const FIRST: u16 = 12_000;
const SPAN: u16 = 10_000;
/// In cluster mode a server listens here as well, counted from its port.
const BUS_OFFSET: u16 = 10_000;

/// A port on 127.0.0.1 that is free now, and whose cluster bus port is. Somebody else may still be faster:
/// callers try another one then.
///
/// # Panics
/// When a thousand ports in a row are taken.
#[must_use]
pub fn free_port() -> u16 {
    // Test processes run side by side: each begins at a random place.
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
    fn a_free_port_can_be_bound_and_is_no_local_port_of_clients() {
        let port = free_port();
        assert!((FIRST..FIRST + SPAN).contains(&port));
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it was said to be free");
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the system has a free port");
        assert!(!is_free(taken.local_addr().expect("a bound socket has an address").port()));
    }
}

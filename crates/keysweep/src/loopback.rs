//! The loopback addresses, for hosts of requests that arrive and of URLs that are called.

use std::net::IpAddr;

/// Returns whether a host, written as in a URL (an IPv6 address in brackets), is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

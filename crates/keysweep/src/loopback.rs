//! What counts as this machine: for requests that name a host, and for URLs that we call.

use std::net::IpAddr;

/// Whether a host, as it stands in a URL (an IPv6 address in brackets), is this machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

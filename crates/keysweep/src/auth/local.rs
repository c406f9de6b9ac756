//! Whether a request is addressed to this machine and comes from it. Without authentication this check alone protects the
//! API from web pages that are open in a browser on this machine: a page can send requests to loopback addresses, and can
//! make its own host name resolve to one (DNS rebinding).

use axum::http::{
    HeaderMap, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};

use crate::loopback;

/// Message for requests that are not local.
pub const NOT_LOCAL: &str = "The service asks for no credentials (--no-auth), so it answers only requests to localhost or a loopback address, and from pages of this machine. Start it without --no-auth to be reached otherwise.";

/// Returns whether a request names this machine as its host and, if it has an `Origin`, comes from a page of this machine.
pub fn is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter().peekable();
    // HTTP/2 and requests in absolute form carry the host in the URI instead.
    let has_host = hosts.peek().is_some() || uri.authority().is_some();
    has_host
        && uri.authority().is_none_or(is_loopback)
        && hosts.all(|host| host.to_str().is_ok_and(|host| host.parse().is_ok_and(|host| is_loopback(&host))))
        && headers.get_all(ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(is_local_page))
}

fn is_local_page(origin: &str) -> bool {
    origin.parse::<Uri>().is_ok_and(|page| page.authority().is_some_and(is_loopback) && page.scheme().is_some())
}

fn is_loopback(authority: &Authority) -> bool {
    let is_plain = !authority.as_str().contains('@');
    is_plain && loopback::is_loopback(authority.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [(HOST, host), (ORIGIN, origin)] {
            value.map(|value| headers.insert(name, value.parse().expect("a header value")));
        }
        is_local(&Uri::from_static("/healthz"), &headers)
    }

    #[test]
    fn only_requests_to_localhost_and_loopback_addresses_are_local() {
        for host in ["localhost", "LocalHost:7080", "127.0.0.1", "127.9.9.9:1", "[::1]:7080", "[::ffff:127.0.0.1]"] {
            assert!(accepted(Some(host), None), "{host}");
        }
        for host in [
            "keysweep.example",
            "localhost.example:7080",
            "127.0.0.1.example",
            "10.0.0.1:7080",
            "[::2]",
            "a@localhost",
            "",
        ] {
            assert!(!accepted(Some(host), None), "{host}");
        }
        assert!(!accepted(None, None), "a request without a host is not local");
    }

    #[test]
    fn requests_from_pages_of_other_machines_are_not_local() {
        for origin in ["http://localhost:7080", "https://127.0.0.1", "http://[::1]:3000"] {
            assert!(accepted(Some("localhost"), Some(origin)), "{origin}");
        }
        for origin in ["null", "https://evil.example", "http://localhost.evil.example", "localhost", "http://10.0.0.1"]
        {
            assert!(!accepted(Some("localhost"), Some(origin)), "{origin}");
        }
    }

    #[test]
    fn every_host_of_a_request_must_be_local() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, "localhost".parse().expect("a header value"));
        headers.append(HOST, "evil.example".parse().expect("a header value"));
        assert!(!is_local(&Uri::from_static("/"), &headers));
        headers.remove(HOST);
        assert!(is_local(&Uri::from_static("http://localhost/"), &headers), "the host is in the URI");
        assert!(!is_local(&Uri::from_static("http://evil.example/"), &headers));
    }
}

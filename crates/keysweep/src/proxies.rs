//! Reverse proxies whose word is taken for the address and the host of a client. None is by default, private ranges neither: a
//! client could write these headers itself.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The addresses of trusted proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// An invalid range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid address range {0:?}: write 10.1.2.3, 10.1.0.0/16 or fd00::/8")]
pub struct ProxyRangeError(String);

impl TrustedProxies {
    /// Trusts exactly these addresses and CIDR ranges.
    ///
    /// # Errors
    /// The range that is not one.
    pub fn new(ranges: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, ProxyRangeError> {
        let parse = |range: &str| {
            let net = range.parse::<IpNet>().or_else(|_| range.parse::<IpAddr>().map(IpNet::from));
            net.map_err(|_| ProxyRangeError(range.to_owned()))
        };
        Ok(Self(ranges.into_iter().map(|range| parse(range.as_ref().trim())).collect::<Result<_, _>>()?))
    }

    /// Returns whether an address is a trusted proxy's.
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Returns the address of the client behind a peer: the rightmost that no trusted proxy has, in the order in which proxies
    /// add them. The peer's own if it is no trusted proxy, or says nothing that can be read.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trust(client) {
            return client;
        }
        let (by_x, by_standard) = (forwarded_for(headers), forwarded(headers));
        let hops = match (by_x.is_empty(), by_standard.is_empty()) {
            (false, true) => by_x,
            (true, false) => by_standard,
            // One of both is the client's own invention, unless they agree.
            (false, false) if by_x.last() == by_standard.last() => by_x,
            _ => return client,
        };
        for hop in hops.into_iter().rev() {
            let Some(address) = hop else { return client };
            client = address;
            if !self.trust(client) {
                return client;
            }
        }
        client
    }

    /// Returns the host that a client called, if the peer is a trusted proxy that passes it on.
    pub fn host(&self, peer: IpAddr, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut hosts = headers.get_all(&FORWARDED_HOST).iter();
        let host = hosts.next().filter(|_| self.trust(peer) && hosts.next().is_none())?;
        // Of several hosts none is certain.
        (!host.as_bytes().contains(&b',')).then(|| host.clone())
    }
}

/// Returns the addresses of `X-Forwarded-For`, in order; `None` for what is no address.
fn forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(&FORWARDED_FOR).iter();
    values.flat_map(|value| value.to_str().unwrap_or("?").split(',').map(address).collect::<Vec<_>>()).collect()
}

/// Returns the addresses of `Forwarded: for=…` (RFC 7239), in order; `None` for what is no address.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let element = |element: &str| {
        let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, value)| value);
        address(values.next()?.trim_matches('"'))
    };
    let values = headers.get_all(FORWARDED).iter();
    values.flat_map(|value| value.to_str().unwrap_or("?").split(',').map(element).collect::<Vec<_>>()).collect()
}

/// Parses an address, with or without a port: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7`, `[2001:db8::7]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        headers
    }

    #[rstest]
    #[case::not_from_a_proxy("192.0.2.1", &[("x-forwarded-for", "198.51.100.7")], "192.0.2.1")]
    #[case::from_a_proxy("10.0.0.1", &[("x-forwarded-for", "198.51.100.7")], "198.51.100.7")]
    #[case::written_by_the_client("10.0.0.1", &[("x-forwarded-for", "203.0.113.9, 198.51.100.7")], "198.51.100.7")]
    #[case::two_proxies("10.0.0.1", &[("x-forwarded-for", "203.0.113.9, 198.51.100.7, 10.0.0.2")], "198.51.100.7")]
    #[case::several_lines("10.0.0.1", &[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.7")], "198.51.100.7")]
    #[case::proxies_only("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3")]
    #[case::with_a_port("10.0.0.1", &[("x-forwarded-for", "198.51.100.7:4711")], "198.51.100.7")]
    #[case::ipv6("10.0.0.1", &[("x-forwarded-for", "[2001:db8::7]:4711")], "2001:db8::7")]
    #[case::bare_ipv6("10.0.0.1", &[("x-forwarded-for", "2001:db8::7")], "2001:db8::7")]
    #[case::ipv4_in_ipv6("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:198.51.100.7")], "198.51.100.7")]
    #[case::nothing("10.0.0.1", &[], "10.0.0.1")]
    #[case::no_address("10.0.0.1", &[("x-forwarded-for", "198.51.100.7, unknown")], "10.0.0.1")]
    #[case::no_address_further_left("10.0.0.1", &[("x-forwarded-for", "unknown, 10.0.0.2")], "10.0.0.2")]
    #[case::the_standard("10.0.0.1", &[("forwarded", "for=203.0.113.9, for=198.51.100.7;proto=https")], "198.51.100.7")]
    #[case::the_standard_quoted("10.0.0.1", &[("forwarded", "proto=https;For=\"[2001:db8::7]:4711\"")], "2001:db8::7")]
    #[case::both("10.0.0.1", &[("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "198.51.100.7")], "198.51.100.7")]
    #[case::both_at_odds("10.0.0.1", &[("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "203.0.113.9")], "10.0.0.1")]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxys(
        #[case] peer: &str,
        #[case] pairs: &[(&str, &str)],
        #[case] client: &str,
    ) {
        let proxies = TrustedProxies::new(["10.0.0.0/24"]).expect("a range");
        let found = proxies.client(peer.parse().expect("an address"), &headers(pairs));
        assert_eq!(found, client.parse::<IpAddr>().expect("an address"));
    }

    #[test]
    fn no_address_is_trusted_by_default() {
        for peer in ["127.0.0.1", "10.0.0.1", "192.168.0.1", "::1"] {
            let peer: IpAddr = peer.parse().expect("an address");
            let headers = headers(&[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-host", "keys.example")]);
            assert_eq!(TrustedProxies::default().client(peer, &headers), peer);
            assert_eq!(TrustedProxies::default().host(peer, &headers), None);
        }
    }

    #[test]
    fn one_host_of_a_trusted_proxy_is_taken() {
        let proxies = TrustedProxies::new(["10.0.0.1"]).expect("an address");
        let host =
            |peer: &str, pairs: &[(&str, &str)]| proxies.host(peer.parse().expect("an address"), &headers(pairs));
        let named = ("x-forwarded-host", "keys.example");
        assert_eq!(host("10.0.0.1", &[named]), Some(HeaderValue::from_static("keys.example")));
        assert_eq!(host("10.0.0.2", &[named]), None);
        assert_eq!(host("10.0.0.1", &[named, named]), None);
        assert_eq!(host("10.0.0.1", &[("x-forwarded-host", "a.example, b.example")]), None);
    }

    #[test]
    fn an_invalid_range_is_refused_with_an_example() {
        for text in ["", "proxy.example", "10.0.0.0/33", "10.0.0.1:80"] {
            let error = TrustedProxies::new([text]).expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("10.1.0.0/16"), "{error}");
        }
    }
}

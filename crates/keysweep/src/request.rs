//! What authentication and all API surfaces read from a request: its id, its peer, and its body, bounded in size and time.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Extensions, HeaderValue},
};
use tokio::time::timeout;

/// Largest body that any operation accepts, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the first value of a parameter in a query, decoded; `None`: it is not there.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Returns every value of a parameter in a query, decoded.
pub fn query_values(query: &str, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

/// Id of a request, as answers (`X-Request-Id`) and the log show it.
#[derive(Debug, Clone, Default)]
pub struct RequestId(pub String);

impl RequestId {
    /// Returns the id that the router gave to a request.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }
}

/// The address from which a connection comes, over TLS or not.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// The host that a client called, as a trusted proxy passes it on.
#[derive(Debug, Clone)]
pub struct ForwardedHost(pub HeaderValue);

/// Address of the client that sent a request, behind trusted proxies the one that they name. An IPv4 client of an IPv6 listener
/// has its IPv4 address.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// Returns the peer of a request; 0.0.0.0 if the listener did not record one.
    pub fn of(extensions: &Extensions) -> IpAddr {
        extensions.get::<Self>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
    }
}

/// The part of an IPv6 address that names a client's network. A client chooses the rest itself.
const NETWORK: u128 = !0 << 64;

/// Returns the address that stands for a client: an IPv4 address, or the /64 network of an IPv6 address.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address => address,
    }
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is larger than 1 MiB.
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// The connection broke, or the body was incomplete after 30 s.
    #[error("the body could not be read")]
    Broken,
}

/// Reads a whole body of at most 1 MiB within 30 s.
pub async fn read_body(body: Body) -> Result<Bytes, BodyError> {
    read_within(BODY_TIMEOUT, body).await
}

async fn read_within(limit: Duration, body: Body) -> Result<Bytes, BodyError> {
    let read = timeout(limit, to_bytes(body, MAX_BODY)).await.map_err(|_| BodyError::Broken)?;
    read.map_err(|error| {
        let too_large =
            std::error::Error::source(&error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if too_large { BodyError::TooLarge } else { BodyError::Broken }
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};

    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client() {
        let network = |address: &str| client_network(address.parse().expect("an address")).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!((network("::ffff:192.0.2.7"), network("192.0.2.7")), ("192.0.2.7".into(), "192.0.2.7".into()));
    }

    #[tokio::test]
    async fn an_incomplete_body_times_out() {
        let half = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
        let read = read_within(Duration::from_millis(50), Body::from_stream(half)).await;
        assert_eq!(read, Err(BodyError::Broken));
        assert_eq!(read_body(Body::from("{}")).await, Ok(Bytes::from_static(b"{}")));
    }
}

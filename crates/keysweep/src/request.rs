//! What authentication and all API surfaces read from a request: its id, its peer, and its body, bounded in size and time.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::LazyLock,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Extensions, HeaderValue},
};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::budget::{BudgetShare, ByteBudget};

/// Largest body that any operation accepts, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// Bytes that each body may have without a share of [`LARGE_BODIES`]. Nearly all bodies are smaller, and those of all connections
/// together are 8 MiB.
pub const SMALL_BODY: usize = 16 * 1024;
/// Bytes that all bodies together may have beyond that. Clients decide how long the service holds a body.
pub const ALL_LARGE_BODIES: usize = 16 * 1024 * 1024;
/// Those of one client.
const LARGE_BODIES_OF_ONE: usize = ALL_LARGE_BODIES / 4;
static LARGE_BODIES: LazyLock<ByteBudget> = LazyLock::new(|| ByteBudget::new(ALL_LARGE_BODIES, LARGE_BODIES_OF_ONE));
/// How long a client should wait when there is no room for a large body.
pub const BODY_DELAY: Duration = Duration::from_secs(5);
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
    /// The bodies of other requests, or the answers to them, take all memory that there is for them.
    #[error("too many large bodies or answers are in progress at the moment; try again")]
    Busy,
}

/// A body with its share of the memory for large ones, which is given back with the last reference to the bytes.
struct HeldBody {
    bytes: Vec<u8>,
    _share: BudgetShare,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a whole body of at most 1 MiB within 30 s. Large ones count for the client that sends them.
pub async fn read_body(body: Body, client: IpAddr) -> Result<Bytes, BodyError> {
    read_within(BODY_TIMEOUT, &LARGE_BODIES, body, client).await
}

/// Reads a body without keeping it, so that a client that is still sending it reads the answer. Ends where [`read_body`] does.
pub async fn discard_body(mut body: Body) {
    let read = async {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await
            && length <= MAX_BODY
        {
            length += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // A client that sends no more is answered as well.
    let _ = timeout(BODY_TIMEOUT, read).await;
}

async fn read_within(limit: Duration, large: &ByteBudget, body: Body, client: IpAddr) -> Result<Bytes, BodyError> {
    timeout(limit, collect(large, body, client)).await.map_err(|_| BodyError::Broken)?
}

async fn collect(large: &ByteBudget, mut body: Body, client: IpAddr) -> Result<Bytes, BodyError> {
    let (mut bytes, mut share) = (Vec::new(), None::<BudgetShare>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        let length = bytes.len() + data.len();
        if length > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        let more = length.saturating_sub(SMALL_BODY).min(data.len());
        if more > 0 && !share.get_or_insert_with(|| large.share(client_network(client).to_string())).grow(more) {
            return Err(BodyError::Busy);
        }
        bytes.extend_from_slice(data);
    }
    Ok(match share {
        Some(share) => Bytes::from_owner(HeldBody { bytes, _share: share }),
        None => bytes.into(),
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

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    #[tokio::test]
    async fn an_incomplete_body_times_out() {
        let half = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
        let read = read_within(Duration::from_millis(50), &LARGE_BODIES, Body::from_stream(half), client(1)).await;
        assert_eq!(read, Err(BodyError::Broken));
        assert_eq!(read_body(Body::from("{}"), client(1)).await, Ok(Bytes::from_static(b"{}")));
    }

    #[tokio::test]
    async fn all_large_bodies_share_a_bound_and_small_ones_are_always_read() {
        let large = ByteBudget::new(MAX_BODY, MAX_BODY);
        let read = |length: usize| {
            // In pieces, as it arrives.
            let pieces = vec![b'x'; length].chunks(10_000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
            read_within(BODY_TIMEOUT, &large, Body::from_stream(pieces), client(1))
        };
        let first = read(MAX_BODY).await.expect("there is room");
        assert_eq!((first.len(), large.taken()), (MAX_BODY, MAX_BODY - SMALL_BODY));
        assert_eq!(read(MAX_BODY).await, Err(BodyError::Busy));
        assert_eq!(read(SMALL_BODY).await.map(|body| body.len()), Ok(SMALL_BODY));
        let copy = first.clone();
        drop(first);
        assert_eq!(read(MAX_BODY).await, Err(BodyError::Busy), "the copy is the same memory");
        drop(copy);
        assert_eq!(read(MAX_BODY).await.map(|body| body.len()), Ok(MAX_BODY));
        assert_eq!(read(MAX_BODY + 1).await, Err(BodyError::TooLarge));
        assert_eq!(large.taken(), 0, "nothing is lost");
    }

    #[tokio::test]
    async fn the_bodies_of_one_client_leave_room_for_those_of_others() {
        let large = ByteBudget::new(8 * MAX_BODY, 2 * MAX_BODY);
        let read = |of: u8| read_within(BODY_TIMEOUT, &large, Body::from(vec![b'x'; MAX_BODY]), client(of));
        let mut held = Vec::new();
        while let Ok(body) = read(1).await {
            held.push(body);
        }
        assert_eq!(held.len(), 3, "its part, and one body more");
        assert_eq!(read(2).await.map(|body| body.len()), Ok(MAX_BODY));
    }
}

//! The address of a node: host and port, or the path of a unix socket. Parsed where it enters, so that nothing behind it
//! reads a host out of a path.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest host name, bytes.
const MAX_HOST: usize = 255;
/// Prefix of a socket's path where an address is written.
const UNIX: &str = "unix:";

/// Error of an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Something other than host and port, or a socket's path.
    #[error("an address is written host:port, [fd00::1]:port or unix:/path")]
    Malformed,
    /// A socket without an absolute path.
    #[error(
        "a unix socket is written unix:///run/redis/redis.sock: an absolute path without .., after user and password if any"
    )]
    Socket,
    /// An entry of an address map.
    #[error(
        "invalid entry {0:?} of an address map; write announced=dialled, both as host:port or both as a host, IPv6 addresses as [fd00::1]"
    )]
    Map(String),
}

/// Address of a node as it is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// Host and port, over TCP.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// Absolute path of a unix socket on this machine.
    Unix(String),
}

impl Address {
    /// Returns an address of TCP; an IPv6 address is given without brackets.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// Returns the host; `None`: a unix socket.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix(_) => None,
        }
    }

    /// Returns the port; `None`: a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } => Some(*port),
            Self::Unix(_) => None,
        }
    }

    /// Returns the address of a unix socket.
    ///
    /// # Errors
    /// The path is not absolute, or has a `..` in it, behind which it may lead anywhere.
    pub fn unix(path: &str) -> Result<Self, AddressError> {
        let is_plain = path.starts_with('/') && !path.ends_with('/') && path.split('/').all(|part| part != "..");
        is_plain.then(|| Self::Unix(path.to_owned())).ok_or(AddressError::Socket)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Parses what `Display` writes: `host:port` with an IPv6 address in brackets, or `unix:/path`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return Self::unix(path);
        }
        match split_port(text) {
            Some((host, Some(port))) if !host.is_empty() => {
                Ok(Self::tcp(host, port.parse().map_err(|_| AddressError::Malformed)?))
            }
            _ => Err(AddressError::Malformed),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether a server may announce this host: a text of up to 255 bytes without spaces and control characters, which could
/// drive a terminal or fill a checkpoint.
pub(crate) fn is_host(host: &str) -> bool {
    host.len() <= MAX_HOST && !host.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// Splits `host`, `host:port`, `[address]` or `[address]:port` into the host without brackets and the text of its port.
/// `None`: more than one colon outside of brackets.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            rest => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

/// (De)serializes an optional address as text, `None` as an empty string: the form of stored checkpoints.
pub(crate) mod address_or_empty {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::address::Address;

    pub fn serialize<S: Serializer>(address: &Option<Address>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
    }
}

/// Maps addresses that nodes announce to addresses that can be dialled: for nodes behind port forwarding or NAT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap(Vec<Entry>);

/// One pair of an address map; announced hosts are in canonical spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// One port of a host.
    Node { from: (String, u16), to: Address },
    /// All ports of a host.
    Host { from: String, to: String },
}

impl AddressMap {
    /// Returns the address to dial for a node that announces `address`.
    pub fn dialled(&self, address: Address) -> Address {
        let Address::Tcp { host, port } = &address else { return address };
        let announced = canonical(host);
        let mapped = self.0.iter().find_map(|entry| match entry {
            Entry::Node { from: (host, from), to } => (*host == announced && from == port).then(|| to.clone()),
            Entry::Host { from, to } => (*from == announced).then(|| Address::tcp(to.clone(), *port)),
        });
        mapped.unwrap_or(address)
    }

    /// Whether an entry of the map leads to this address.
    pub(crate) fn leads_to(&self, address: &Address) -> bool {
        self.0.iter().any(|entry| match entry {
            Entry::Node { to, .. } => to == address,
            Entry::Host { to, .. } => address.host() == Some(to),
        })
    }
}

/// Returns the spelling of a host that all others of it share: that of IP addresses has several, and names have two cases.
fn canonical(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |ip| ip.to_string())
}

impl FromStr for AddressMap {
    type Err = AddressError;

    /// Parses `from=to` pairs, separated by commas or line ends: both sides `host:port`, or both a host alone, IPv6 addresses
    /// in brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let pairs = text.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty());
        Ok(Self(
            pairs
                .map(|pair| entry(pair).ok_or_else(|| AddressError::Map(pair.to_owned())))
                .collect::<Result<_, _>>()?,
        ))
    }
}

/// Parses one pair.
fn entry(pair: &str) -> Option<Entry> {
    let (from, to) = pair.split_once('=')?;
    let host_alone = |text: &str| match split_port(text)? {
        (host, None) if !host.is_empty() => Some(host.to_owned()),
        _ => None,
    };
    match (from.parse::<Address>(), to.parse::<Address>()) {
        (Ok(Address::Tcp { host, port }), Ok(to)) => Some(Entry::Node { from: (canonical(&host), port), to }),
        (Err(_), Err(_)) => Some(Entry::Host { from: canonical(&host_alone(from)?), to: host_alone(to)? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn an_address_is_parsed_as_it_is_displayed() {
        for address in ["cache.example:6379", "[::1]:7000", "unix:/run/redis/redis.sock", "unix:/run/a:1"] {
            assert_eq!(address.parse::<Address>().expect("an address").to_string(), address);
        }
        for none in
            ["cache.example", ":6379", "::1:7000", "unix:run/redis.sock", "unix:/run/../redis.sock", "unix:/run/"]
        {
            assert!(none.parse::<Address>().is_err(), "{none}");
        }
    }

    #[rstest]
    #[case("10.0.0.1:7000", "gate:9001")]
    #[case("10.0.0.1:7001", "10.0.0.1:7001")]
    #[case("10.0.0.2:7005", "127.0.0.1:7005")]
    #[case("[fd00::77]:7000", "[::1]:7000")]
    #[case("[fd00:0:0::77]:7000", "[::1]:7000")]
    #[case("[fd00::78]:7000", "gate:9002")]
    #[case("[fd00::78]:7001", "[fd00::78]:7001")]
    #[case("Cache.Example:1", "127.0.0.2:1")]
    #[case("10.0.0.3:1", "unix:/run/redis.sock")]
    #[case("unix:/run/10.0.0.2", "unix:/run/10.0.0.2")]
    fn an_address_map_returns_the_address_to_dial(#[case] announced: &str, #[case] dialled: &str) {
        let map = "10.0.0.1:7000=gate:9001, 10.0.0.2=127.0.0.1, [fd00::77]=[::1]\n[fd00::78]:7000=gate:9002, \
                   cache.example=127.0.0.2, 10.0.0.3:1=unix:/run/redis.sock";
        let map: AddressMap = map.parse().expect("a map");
        assert_eq!(map.dialled(announced.parse().expect("an address")).to_string(), dialled);
    }

    #[test]
    fn an_entry_whose_sides_do_not_match_is_refused() {
        for wrong in ["10.0.0.1", "a:1=b", "=b", "a=", "fd00::77=::1", "[fd00::77=[::1]", "a=unix:/run/redis.sock"] {
            let error = wrong.parse::<AddressMap>().expect_err(wrong).to_string();
            assert!(error.contains(wrong) && error.contains("[fd00::1]"), "{error}");
        }
    }
}

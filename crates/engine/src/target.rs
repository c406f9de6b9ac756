//! What to sweep: the servers, how to find their primaries, and how to connect. Parsed from a URL, before any connection.

use std::{fmt, str::FromStr};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Address of a node as it is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = TargetError;

    /// Parses what `Display` writes: `host:port`, an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let malformed = || TargetError::Malformed("an address is written host:port".into());
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_| malformed())?;
        if host.is_empty() {
            return Err(malformed());
        }
        Ok(Self { host: host.to_owned(), port })
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

/// (De)serializes an optional address as `host:port`, `None` as an empty string: the form of stored checkpoints.
pub(crate) mod address_or_empty {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::target::Address;

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

/// User and password for a node.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// ACL user; `None`: the default user.
    pub username: Option<String>,
    /// `None`: no authentication.
    pub password: Option<SecretString>,
}

/// How to find the primaries.
#[derive(Debug, Clone, Default)]
pub enum Mode {
    /// The URL names one server; a replica leads to its primary.
    #[default]
    Server,
    /// The URL names Sentinels, which are asked for the primary.
    Sentinel {
        /// The primary's name among the Sentinels.
        name: String,
        /// Credentials for the Sentinels; the target's own are for the data nodes.
        credentials: Credentials,
    },
    /// The URL names nodes of a cluster, any of which describes all of it.
    Cluster,
}

/// TLS settings. The default trusts the system's CA certificates and sends no client certificate.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// CA certificates to trust instead of the system's, PEM.
    pub ca: Option<String>,
    /// Client certificate with its chain (mTLS), PEM.
    pub certificate: Option<String>,
    /// Private key of the client certificate, PEM.
    pub key: Option<SecretString>,
    /// The name that the servers' certificates must carry, and that is sent as SNI; `None`: the host that is dialled.
    pub server_name: Option<String>,
}

/// Maps addresses that nodes announce to addresses that can be dialled: for nodes behind port forwarding or NAT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap(Vec<(String, String)>);

impl AddressMap {
    /// Returns the address to dial for a node that announces `address`.
    pub fn dialled(&self, address: Address) -> Address {
        let (host, whole) = (address.host.clone(), address.to_string());
        for (from, to) in &self.0 {
            if *from == whole {
                return to.parse().unwrap_or(address);
            }
            if *from == host {
                return Address { host: to.clone(), ..address };
            }
        }
        address
    }
}

impl FromStr for AddressMap {
    type Err = TargetError;

    /// Parses `from=to` pairs, separated by commas or line ends: both sides `host:port`, or both a host alone.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let mut pairs = Vec::new();
        for pair in text.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty()) {
            let wrong = || TargetError::AddressMap(pair.to_owned());
            let (from, to) = pair.split_once('=').ok_or_else(wrong)?;
            let read = |side: &str| side.parse::<Address>().map(|address| address.to_string()).ok();
            match (read(from), read(to)) {
                (Some(from), Some(to)) => pairs.push((from, to)),
                (None, None) if !from.is_empty() && !to.is_empty() => pairs.push((from.to_owned(), to.to_owned())),
                _ => return Err(wrong()),
            }
        }
        Ok(Self(pairs))
    }
}

/// The servers that a sweep works on.
#[derive(Debug, Clone)]
pub struct Target {
    /// The nodes named in the URL: one server, Sentinels, or nodes of a cluster. Never empty.
    pub seeds: Vec<Address>,
    /// How to find the primaries from there.
    pub mode: Mode,
    /// Credentials for the data nodes.
    pub credentials: Credentials,
    /// `None`: not encrypted.
    pub tls: Option<Tls>,
    /// Maps announced addresses to dialled ones.
    pub address_map: AddressMap,
    /// The only database to sweep; `None`: every database that holds keys.
    pub database: Option<u32>,
    /// Whether to follow a replica to its primary; otherwise a replica is refused.
    pub follow: bool,
}

impl Target {
    /// Returns the first node in the URL.
    pub fn seed(&self) -> &Address {
        &self.seeds[0]
    }
}

/// Error of a URL, or of what belongs to it. The message never repeats the URL: there may be a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL at all.
    #[error("the URL cannot be read ({0}); write it as redis://host:port or redis://user:password@host:port/database")]
    Malformed(String),
    /// An unknown scheme.
    #[error(
        "unknown URL scheme {0:?}; use redis:// or rediss:// (TLS), redis-sentinel:// or redis-cluster:// (with TLS rediss-…; valkey means the same)"
    )]
    Scheme(String),
    /// No host.
    #[error("the URL names no host; write it as redis://host:port")]
    NoHost,
    /// Several hosts for one server.
    #[error("the URL names several hosts; that takes redis-cluster:// or redis-sentinel://")]
    SeveralHosts,
    /// Sentinels without the name of the primary.
    #[error("the URL names no primary; write its name after the Sentinels, as in redis-sentinel://host:26379/mymaster")]
    NoName,
    /// Something other than a number behind the slash.
    #[error(
        "the database {0:?} in the URL is not a number; write redis://host:port/0, or leave it out for all databases"
    )]
    Database(String),
    /// Query or fragment.
    #[error("the URL has a {0}; only a path may follow the host")]
    Extra(&'static str),
    /// User or password contain a character that ends the host.
    #[error(
        "the URL has an '@' after its host; in user and password write '/' as %2F, '?' as %3F and '#' as %23, or give the password with --password-file"
    )]
    Unencoded,
    /// A host or port that is none.
    #[error(
        "the URL has an invalid host or port; each host is a name or an address with a port between 1 and 65535: host:port, [::1]:port"
    )]
    Host,
    /// One word before the '@'.
    #[error(
        "the URL has one word before the '@'; write user:password@host, or :password@host for the default user, with the colon"
    )]
    LoneWord,
    /// User or password in another encoding.
    #[error("user and password in the URL must be UTF-8, percent-encoded where needed")]
    NotUtf8,
    /// An entry of an address map.
    #[error("invalid entry {0:?} of an address map; write announced=dialled, both as host:port or both as a host")]
    AddressMap(String),
    /// A certificate or key that cannot be used.
    #[error("the {what} cannot be used: {cause}")]
    Tls {
        /// Which one.
        what: &'static str,
        /// Cause.
        cause: String,
    },
}

/// Shows the target without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls.is_some() { "s" } else { "" };
        let seeds: Vec<String> = self.seeds.iter().map(Address::to_string).collect();
        let seeds = seeds.join(",");
        match &self.mode {
            Mode::Server => write!(f, "redis{tls}://{seeds}")?,
            Mode::Cluster => write!(f, "redis{tls}-cluster://{seeds}")?,
            Mode::Sentinel { name, .. } => write!(f, "redis{tls}-sentinel://{seeds}/{name}")?,
        }
        self.database.map_or(Ok(()), |database| write!(f, "/{database}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_parsed_as_it_is_displayed() {
        for address in ["cache.example:6379", "[::1]:7000"] {
            assert_eq!(address.parse::<Address>().expect("an address").to_string(), address);
        }
        assert!("cache.example".parse::<Address>().is_err() && ":6379".parse::<Address>().is_err());
    }

    #[test]
    fn an_address_map_returns_the_address_to_dial() {
        let map: AddressMap = "10.0.0.1:7000=gate:9001, 10.0.0.2=127.0.0.1".parse().expect("a map");
        let dialled = |text: &str| map.dialled(text.parse().expect("an address")).to_string();
        assert_eq!(dialled("10.0.0.1:7000"), "gate:9001");
        assert_eq!(dialled("10.0.0.1:7001"), "10.0.0.1:7001");
        assert_eq!(dialled("10.0.0.2:7005"), "127.0.0.1:7005");
        for wrong in ["10.0.0.1", "a:1=b", "=b", "a="] {
            assert!(wrong.parse::<AddressMap>().is_err(), "{wrong}");
        }
    }
}

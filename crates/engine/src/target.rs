//! What to sweep: where it is and how to get in. Read from a URL, checked before anything is dialled.

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

/// A node's address as it is dialled.
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

    /// Reads what `Display` writes: `host:port`, an IPv6 address in brackets.
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

/// Who we are to a node.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// ACL user; `None`: the default user.
    pub username: Option<String>,
    /// `None`: no authentication.
    pub password: Option<SecretString>,
}

/// How the primaries are found.
#[derive(Debug, Clone, Default)]
pub enum Mode {
    /// The URL names one server; a replica leads to its primary.
    #[default]
    Server,
    /// The URL names Sentinels, which know where the primary is.
    Sentinel {
        /// The primary's name among the Sentinels.
        name: String,
        /// Who we are to the Sentinels; the target's own credentials are the data nodes'.
        credentials: Credentials,
    },
    /// The URL names nodes of a cluster, any of which knows the others.
    Cluster,
}

/// How to encrypt. The default trusts what the system trusts and shows no certificate.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates of the authorities to trust instead of the system's, PEM.
    pub ca: Option<String>,
    /// Our own certificate and what leads from it to an authority, PEM.
    pub certificate: Option<String>,
    /// The key of our own certificate, PEM.
    pub key: Option<SecretString>,
    /// The name that the servers' certificates must carry, and that is sent as SNI; `None`: the host that is dialled.
    pub server_name: Option<String>,
}

/// Addresses that nodes announce, and where they are reached from here: for nodes behind port forwarding or NAT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressMap(Vec<(String, String)>);

impl AddressMap {
    /// Where a node that announces `address` is dialled.
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

    /// Reads `from=to` pairs, separated by commas or line ends: both sides `host:port`, or both a host alone.
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

/// What a sweep works on.
#[derive(Debug, Clone)]
pub struct Target {
    /// The nodes named in the URL: one server, Sentinels, or nodes of a cluster. Never empty.
    pub seeds: Vec<Address>,
    /// How the primaries are found from there.
    pub mode: Mode,
    /// How to get into the data nodes.
    pub credentials: Credentials,
    /// `None`: not encrypted.
    pub tls: Option<Tls>,
    /// Where announced addresses are reached.
    pub address_map: AddressMap,
    /// Only this database; `None`: every one that holds keys.
    pub database: Option<u32>,
    /// Whether a replica is followed to its primary; otherwise it is refused.
    pub follow: bool,
}

impl Target {
    /// The first node named.
    pub fn seed(&self) -> &Address {
        &self.seeds[0]
    }
}

/// A URL that names no target. The message never repeats the URL: there may be a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL at all.
    #[error("the URL cannot be read ({0}); write it as redis://host:port or redis://user:password@host:port/database")]
    Malformed(String),
    /// A scheme that is none of ours.
    #[error(
        "the URL scheme {0:?} is not known; use redis:// or rediss:// (TLS), redis-sentinel:// or redis-cluster:// (with TLS rediss-…; valkey means the same)"
    )]
    Scheme(String),
    /// No host.
    #[error("the URL names no host; write it as redis://host:port")]
    NoHost,
    /// Several hosts for one server.
    #[error("the URL names several hosts; that takes redis-cluster:// or redis-sentinel://")]
    SeveralHosts,
    /// Sentinels without the name of what they watch.
    #[error(
        "the URL does not say which primary; write its name behind the Sentinels, as in redis-sentinel://host:26379/mymaster"
    )]
    NoName,
    /// Something other than a number behind the slash.
    #[error(
        "the database {0:?} in the URL is not a number; write redis://host:port/0, or leave it out for all databases"
    )]
    Database(String),
    /// Query or fragment.
    #[error("the URL has a {0}, which means nothing here; leave it out")]
    Extra(&'static str),
    /// What comes before an '@' is cut off by something that ends it.
    #[error(
        "the URL has an '@' behind its host; in user and password write '/' as %2F, '?' as %3F and '#' as %23, or give the password with --password-file"
    )]
    Unencoded,
    /// An entry of an address map.
    #[error("{0:?} is no entry of an address map; write announced=dialled, both as host:port or both as a host")]
    AddressMap(String),
    /// Certificates or keys that cannot be used.
    #[error("the {what} cannot be used: {cause}")]
    Tls {
        /// Which of them.
        what: &'static str,
        /// Why.
        cause: String,
    },
}

/// The ports that are meant where none is given.
const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(TargetError::Malformed("it has no scheme".into()));
        };
        let unknown = || TargetError::Scheme(scheme.chars().take(20).collect());
        let (engine, kind) = scheme.split_once('-').map_or((scheme, None), |(engine, kind)| (engine, Some(kind)));
        let tls = match engine {
            "redis" | "valkey" => None,
            "rediss" | "valkeys" => Some(Tls::default()),
            _ => return Err(unknown()),
        };
        let port = if kind == Some("sentinel") { SENTINEL_PORT } else { SERVER_PORT };

        // URLs with several hosts are none to a URL parser: each host is read as a URL of its own.
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Before anything is told of what follows: it may be the rest of a password.
        if path.contains('@') {
            return Err(TargetError::Unencoded);
        }
        let (userinfo, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let read = |text: String| Url::parse(&text).map_err(|error| TargetError::Malformed(error.to_string()));
        let url = read(format!("redis://{userinfo}@{}{path}", hosts.split(',').next().unwrap_or_default()))?;
        let mut seeds = Vec::new();
        for host in hosts.split(',') {
            let node = read(format!("redis://{host}"))?;
            let name = node.host_str().filter(|host| !host.is_empty()).ok_or(TargetError::NoHost)?;
            let host = decode(name.trim_start_matches('[').trim_end_matches(']'));
            seeds.push(Address { host, port: node.port().unwrap_or(port) });
        }
        if url.query().is_some() {
            return Err(TargetError::Extra("query"));
        }
        if url.fragment().is_some() {
            return Err(TargetError::Extra("fragment"));
        }
        let mut path = url.path().trim_start_matches('/').splitn(2, '/').filter(|part| !part.is_empty());
        let mode = match kind {
            None if seeds.len() > 1 => return Err(TargetError::SeveralHosts),
            None => Mode::Server,
            Some("cluster") => Mode::Cluster,
            Some("sentinel") => {
                let name = decode(path.next().ok_or(TargetError::NoName)?);
                Mode::Sentinel { name, credentials: Credentials::default() }
            }
            Some(_) => return Err(unknown()),
        };
        let number = |text: &str| text.parse().map_err(|_| TargetError::Database(text.chars().take(20).collect()));
        Ok(Self {
            seeds,
            mode,
            credentials: Credentials {
                username: Some(url.username()).filter(|name| !name.is_empty()).map(decode),
                password: url.password().map(|password| SecretString::from(decode(password))),
            },
            tls,
            address_map: AddressMap::default(),
            database: path.next().map(number).transpose()?,
            follow: true,
        })
    }
}

fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// The target as it may be shown: without user and password.
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
    use secrecy::ExposeSecret;

    use super::*;

    fn parse(text: &str) -> Target {
        text.parse().expect("a target")
    }

    #[test]
    fn the_port_and_the_database_are_optional() {
        let target = parse("redis://cache.example");
        assert_eq!((target.seed().port, target.database), (6379, None));
        assert_eq!(parse("valkey://cache.example:7000/3").database, Some(3));
        assert_eq!(parse("redis://cache.example/").database, None);
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for address in ["cache.example:6379", "[::1]:7000"] {
            assert_eq!(address.parse::<Address>().expect("an address").to_string(), address);
        }
        assert!("cache.example".parse::<Address>().is_err() && ":6379".parse::<Address>().is_err());
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let target = parse("redis://ops:p%40ss%2Fw@[::1]:6380/2");
        assert_eq!(*target.seed(), Address { host: "::1".into(), port: 6380 });
        assert_eq!(target.credentials.username.as_deref(), Some("ops"));
        assert_eq!(target.credentials.password.as_ref().expect("a password").expose_secret(), "p@ss/w");
        assert_eq!(target.to_string(), "redis://[::1]:6380/2");
        assert!(!format!("{target:?}").contains("p@ss"));
    }

    #[test]
    fn a_password_alone_belongs_to_the_default_user() {
        assert_eq!(parse("redis://:secret@h").credentials.username, None);
    }

    #[test]
    fn every_bad_url_is_refused_with_its_remedy_and_without_its_password() {
        for (text, remedy) in [
            ("localhost:6379", "no scheme"),
            ("http://localhost", "use redis://"),
            ("redis://:secret@a:1,b:2", "redis-cluster://"),
            ("redis-ring://:secret@a:1", "redis-cluster://"),
            ("redis-sentinel://:secret@a:1", "redis-sentinel://host:26379/mymaster"),
            ("redis-cluster://:secret@a:1,,b:2", "names no host"),
            ("redis-sentinel://:secret@a:1/mymaster/x", "all databases"),
            ("redis://", "names no host"),
            ("redis://:secret@h/zero", "all databases"),
            ("redis://:secret@h?db=1", "query"),
            ("redis://:secret@h:99999", "cannot be read"),
            ("redis://ops:12/secret@h", "%2F"),
            ("redis://:a/secret@h/0", "%2F"),
            ("redis://:a?secret@h", "%3F"),
            ("redis-cluster://ops:12#secret@a,b", "%23"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(remedy), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn every_mode_is_read_and_shown_again() {
        for (text, shown) in [
            ("rediss://:p@h", "rediss://h:6379"),
            ("valkeys-cluster://u:p@a:1,[::1]:2,c", "rediss-cluster://a:1,[::1]:2,c:6379"),
            ("redis-sentinel://:p@a,b:2/my%20master", "redis-sentinel://a:26379,b:2/my master"),
            ("redis-sentinel://a/main/3", "redis-sentinel://a:26379/main/3"),
            ("valkey-cluster://a:1/2", "redis-cluster://a:1/2"),
        ] {
            assert_eq!(parse(text).to_string(), shown);
        }
        let Mode::Sentinel { name, .. } = parse("redis-sentinel://a/main/3").mode else { panic!("sentinels") };
        assert_eq!(name, "main");
    }

    #[test]
    fn an_address_map_leads_from_what_is_announced_to_what_is_dialled() {
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

//! What to sweep: the servers, how to find their primaries, and how to connect. Parsed from a URL, before any connection.

use std::fmt;

use secrecy::SecretString;

pub(crate) use crate::address::address_or_empty;
pub use crate::address::{Address, AddressError, AddressMap};

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
        /// Whether connections to the Sentinels are encrypted.
        tls: SentinelTls,
    },
    /// The URL names nodes of a cluster, any of which describes all of it.
    Cluster,
}

/// Whether connections to Sentinels are encrypted.
#[derive(Debug, Clone, Default)]
pub enum SentinelTls {
    /// As those to the data nodes.
    #[default]
    Same,
    /// Encrypted, and those to the data nodes are not.
    On(Tls),
    /// Not encrypted, and those to the data nodes are.
    Off,
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

/// The servers that a sweep works on.
#[derive(Debug, Clone)]
pub struct Target {
    /// The nodes named in the URL: one server, Sentinels, or nodes of a cluster. Never empty.
    pub seeds: Vec<Address>,
    /// How to find the primaries from there.
    pub mode: Mode,
    /// Credentials for the data nodes.
    pub credentials: Credentials,
    /// TLS of the data nodes, and of Sentinels unless the mode sets theirs apart; `None`: not encrypted.
    pub tls: Option<Tls>,
    /// Maps announced addresses to dialled ones.
    pub address_map: AddressMap,
    /// The only database to sweep; `None`: every database that holds keys.
    pub database: Option<u32>,
    /// Whether to follow a replica to its primary; otherwise a replica is refused.
    pub follow: bool,
    /// Whether clocks that differ too much are a warning instead of a refusal.
    pub allow_clock_skew: bool,
}

impl Target {
    /// Returns the first node in the URL.
    pub fn seed(&self) -> &Address {
        &self.seeds[0]
    }

    /// Returns the target of one server at this address, without credentials.
    pub(crate) fn server(address: Address) -> Self {
        Self {
            seeds: vec![address],
            mode: Mode::Server,
            credentials: Credentials::default(),
            tls: None,
            address_map: AddressMap::default(),
            database: None,
            follow: true,
            allow_clock_skew: false,
        }
    }

    /// Returns the target of the server that listens on a unix socket.
    ///
    /// # Errors
    /// The path is not absolute, or has a `..` in it.
    pub fn socket(path: &str) -> Result<Self, TargetError> {
        Ok(Self::server(Address::unix(path)?))
    }

    /// Returns the TLS settings of connections to Sentinels; `None`: they are not encrypted.
    pub fn sentinel_tls(&self) -> Option<&Tls> {
        match &self.mode {
            Mode::Sentinel { tls: SentinelTls::On(tls), .. } => Some(tls),
            Mode::Sentinel { tls: SentinelTls::Off, .. } => None,
            _ => self.tls.as_ref(),
        }
    }

    /// Sets whether connections to the Sentinels are encrypted; `None`: as those to the data nodes.
    ///
    /// # Errors
    /// The URL names no Sentinels.
    pub fn set_sentinel_tls(&mut self, encrypted: Option<bool>) -> Result<(), TargetError> {
        let Mode::Sentinel { tls, .. } = &mut self.mode else {
            return if encrypted.is_some() { Err(TargetError::NoSentinels) } else { Ok(()) };
        };
        *tls = match encrypted {
            Some(true) if self.tls.is_none() => SentinelTls::On(Tls::default()),
            Some(false) if self.tls.is_some() => SentinelTls::Off,
            _ => SentinelTls::Same,
        };
        Ok(())
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
        "unknown URL scheme {0:?}; use redis:// or rediss:// (TLS), redis-sentinel:// or redis-cluster:// (with TLS rediss-…; valkey means the same), or unix:// for a socket"
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
    /// An unknown query, which is not repeated: it may be a password's.
    #[error("the URL has an unknown query; {0}")]
    Query(&'static str),
    /// Something other than an address, or an invalid entry of an address map.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// TLS of Sentinels for a target without any.
    #[error("sentinel_tls needs a redis-sentinel:// URL")]
    NoSentinels,
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
    #[error(
        "user, password and path in the URL must be UTF-8, percent-encoded where needed: an ä is %C3%A4, and %E4 is Latin-1"
    )]
    NotUtf8,
    /// A control character in a decoded part.
    #[error("the {0} has a control character, such as a line break; leave it out")]
    Control(&'static str),
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
        if let Address::Unix(path) = self.seed() {
            write!(f, "unix://{path}")?;
            return self.database.map_or(Ok(()), |database| write!(f, "?db={database}"));
        }
        let seeds: Vec<String> = self.seeds.iter().map(Address::to_string).collect();
        let seeds = seeds.join(",");
        match &self.mode {
            Mode::Server => write!(f, "redis{tls}://{seeds}")?,
            Mode::Cluster => write!(f, "redis{tls}-cluster://{seeds}")?,
            Mode::Sentinel { name, .. } => write!(f, "redis{tls}-sentinel://{seeds}/{name}")?,
        }
        self.database.map_or(Ok(()), |database| write!(f, "/{database}"))?;
        match &self.mode {
            Mode::Sentinel { tls: SentinelTls::On(_), .. } => f.write_str("?sentinel_tls=on"),
            Mode::Sentinel { tls: SentinelTls::Off, .. } => f.write_str("?sentinel_tls=off"),
            _ => Ok(()),
        }
    }
}

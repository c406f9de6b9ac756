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

/// Who we are to the data nodes.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// ACL user; `None`: the default user.
    pub username: Option<String>,
    /// `None`: no authentication.
    pub password: Option<SecretString>,
}

/// What a sweep works on.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node named in the URL.
    pub address: Address,
    /// How to get in.
    pub credentials: Credentials,
    /// Only this database; `None`: every one that holds keys.
    pub database: Option<u32>,
    /// Whether a replica is followed to its primary; otherwise it is refused.
    pub follow: bool,
}

/// A URL that names no target. The message never repeats the URL: there may be a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL at all.
    #[error("the URL cannot be read ({0}); write it as redis://host:port or redis://user:password@host:port/database")]
    Malformed(String),
    /// A scheme that is none of ours.
    #[error("the URL scheme {0:?} is not known; use redis:// (or valkey://)")]
    Scheme(String),
    /// A scheme that this version does not sweep yet.
    #[error("{0}:// is not supported by this version yet; it sweeps redis:// and valkey:// servers, one at a time")]
    NotYet(String),
    /// No host.
    #[error("the URL names no host; write it as redis://host:port")]
    NoHost,
    /// Something other than a number behind the slash.
    #[error(
        "the database {0:?} in the URL is not a number; write redis://host:port/0, or leave it out for all databases"
    )]
    Database(String),
    /// Query or fragment.
    #[error(
        "the URL has a {0}, which means nothing here; a '?', '#', '/' or '@' in a password is written percent-encoded"
    )]
    Extra(&'static str),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "redis" | "valkey" => {}
            "rediss" | "valkeys" | "redis-sentinel" | "rediss-sentinel" | "redis-cluster" | "rediss-cluster"
            | "valkey-sentinel" | "valkeys-sentinel" | "valkey-cluster" | "valkeys-cluster" => {
                return Err(TargetError::NotYet(scheme.to_owned()));
            }
            "" => return Err(TargetError::Malformed("it has no scheme".into())),
            other => return Err(TargetError::Scheme(other.chars().take(20).collect())),
        }
        let url = Url::parse(text).map_err(|error| TargetError::Malformed(error.to_string()))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(TargetError::NoHost)?;
        if url.query().is_some() {
            return Err(TargetError::Extra("query"));
        }
        if url.fragment().is_some() {
            return Err(TargetError::Extra("fragment"));
        }
        let database = match url.path().trim_start_matches('/') {
            "" => None,
            digits => Some(digits.parse().map_err(|_| TargetError::Database(digits.chars().take(20).collect()))?),
        };
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        Ok(Self {
            address: Address {
                host: decode(host.trim_start_matches('[').trim_end_matches(']')),
                port: url.port().unwrap_or(6379),
            },
            credentials: Credentials {
                username: Some(url.username()).filter(|name| !name.is_empty()).map(decode),
                password: url.password().map(|password| SecretString::from(decode(password))),
            },
            database,
            follow: true,
        })
    }
}

/// The target as it may be shown: without user and password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}", self.address)?;
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
        assert_eq!((target.address.port, target.database), (6379, None));
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
        assert_eq!(target.address, Address { host: "::1".into(), port: 6380 });
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
            ("redis-cluster://:secret@a:1,b:2", "not supported by this version yet"),
            ("redis://", "names no host"),
            ("redis://:secret@h/zero", "all databases"),
            ("redis://:secret@h?db=1", "query"),
            ("redis://:secret@h:99999", "cannot be read"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(remedy), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}

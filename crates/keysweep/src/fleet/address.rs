//! The URL that an operator gives: where a server is, taken apart from who we are to it.
//!
//! Taken apart by hand, because URLs with several hosts are none to a URL parser. Errors never repeat the URL.

use std::net::Ipv6Addr;

use keysweep_engine::Target;
use percent_encoding::percent_decode_str;

use super::{FleetError, Secret};

const SCHEMES: [(&str, Mode); 12] = [
    ("redis", Mode::OneServer),
    ("rediss", Mode::OneServer),
    ("valkey", Mode::OneServer),
    ("valkeys", Mode::OneServer),
    ("redis-sentinel", Mode::Sentinel),
    ("rediss-sentinel", Mode::Sentinel),
    ("valkey-sentinel", Mode::Sentinel),
    ("valkeys-sentinel", Mode::Sentinel),
    ("redis-cluster", Mode::Cluster),
    ("rediss-cluster", Mode::Cluster),
    ("valkey-cluster", Mode::Cluster),
    ("valkeys-cluster", Mode::Cluster),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    OneServer,
    Sentinel,
    Cluster,
}

/// A URL taken apart.
#[derive(Debug)]
pub(super) struct Address {
    /// Without user and password.
    pub(super) url: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
}

impl Address {
    /// `password_is_apart`: whether the password is given beside the URL.
    pub(super) fn parse(text: &str, password_is_apart: bool) -> Result<Self, FleetError> {
        let (scheme, rest) = text
            .trim()
            .split_once("://")
            .ok_or_else(|| refused("write it as redis://host:port or redis://user:password@host:port"))?;
        let scheme = scheme.to_ascii_lowercase();
        let (_, mode) = SCHEMES.iter().find(|(known, _)| *known == scheme).ok_or_else(|| {
            refused("its scheme must be redis, rediss (TLS), or one of these with -sentinel or -cluster; valkey means the same")
        })?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains(['?', '#', '@']) {
            return Err(refused(
                "behind the host only a path may follow; write '/' as %2F, '?' as %3F, '#' as %23 and '@' as %40 in user \
                 and password",
            ));
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        check_hosts(hosts, *mode)?;
        if *mode == Mode::Sentinel && path.len() < 2 {
            return Err(refused("name the primary behind the sentinels, as in redis-sentinel://host:26379/mymaster"));
        }
        let url = format!("{scheme}://{hosts}{path}");
        url.parse::<Target>().map_err(|error| FleetError::Url(error.to_string()))?;
        let (username, password) =
            credentials.map_or(Ok((None, None)), |credentials| split(credentials, password_is_apart))?;
        Ok(Self { url, username, password: password.map(Secret::from) })
    }
}

/// The nodes that an instance's URL names: the sentinels, or some of the data nodes.
pub fn nodes(url: &str) -> Vec<keysweep_engine::Address> {
    url.parse::<Target>().map(|target| target.seeds).unwrap_or_default()
}

fn refused(remedy: &str) -> FleetError {
    FleetError::Url(remedy.to_owned())
}

/// User and password, each decoded; what is empty is not there.
fn split(credentials: &str, password_is_apart: bool) -> Result<(Option<String>, Option<String>), FleetError> {
    if credentials.is_empty() {
        return Ok((None, None));
    }
    // Some clients take a lone word before the '@' for the user, some for the password. A password that is taken for
    // a user name would be stored and shown in the clear.
    let (username, password) = match credentials.split_once(':') {
        Some(both) => both,
        None if password_is_apart => (credentials, ""),
        None => {
            return Err(refused("write user:password@host, or :password@host for the default user, with the colon"));
        }
    };
    let decode = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(text) => Ok(Some(text.into_owned()).filter(|text| !text.is_empty())),
        Err(_) => Err(refused("user and password must be UTF-8, percent-encoded where needed")),
    };
    Ok((decode(username)?, decode(password)?))
}

fn check_hosts(hosts: &str, mode: Mode) -> Result<(), FleetError> {
    if mode == Mode::OneServer && hosts.contains(',') {
        return Err(refused("several hosts need the scheme redis-cluster or redis-sentinel (with TLS: rediss-…)"));
    }
    match hosts.split(',').all(is_host) {
        true => Ok(()),
        false => {
            Err(refused("each host is a name or an address, and a port between 1 and 65535: host:port, [::1]:port"))
        }
    }
}

fn is_host(text: &str) -> bool {
    let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port > 0);
    if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, port)) = bracketed.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    !name.is_empty()
        && name.chars().all(|character| character.is_alphanumeric() || "-._".contains(character))
        && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parts(text: &str) -> (String, Option<String>, Option<String>) {
        let address = Address::parse(text, false).expect(text);
        (address.url, address.username, address.password.map(|password| password.expose().to_owned()))
    }

    #[rstest]
    #[case("redis://h:1", "redis://h:1", None, None)]
    #[case("redis://h", "redis://h", None, None)]
    #[case(" REDIS://h:1/3 ", "redis://h:1/3", None, None)]
    #[case("redis://:secret@h:1", "redis://h:1", None, Some("secret"))]
    #[case("redis://ada:secret@h:1/0", "redis://h:1/0", Some("ada"), Some("secret"))]
    #[case("redis://ada:s%40c%2Fr%3Ae%25t@h:1", "redis://h:1", Some("ada"), Some("s@c/r:e%t"))]
    #[case("redis://ada:se:cr@t@h:1", "redis://h:1", Some("ada"), Some("se:cr@t"))]
    #[case("redis://:p%C3%A4ss@h:1", "redis://h:1", None, Some("päss"))]
    #[case("redis://ada:@h:1", "redis://h:1", Some("ada"), None)]
    #[case("redis://:@h:1", "redis://h:1", None, None)]
    #[case("redis://@h:1", "redis://h:1", None, None)]
    #[case("valkeys://u:p@[::1]:7000", "valkeys://[::1]:7000", Some("u"), Some("p"))]
    #[case("redis-cluster://u:p@h1:1,h2:2", "redis-cluster://h1:1,h2:2", Some("u"), Some("p"))]
    #[case("rediss-sentinel://:p@s1:1,s2/main", "rediss-sentinel://s1:1,s2/main", None, Some("p"))]
    fn credentials_are_taken_out_of_the_url(
        #[case] text: &str,
        #[case] url: &str,
        #[case] username: Option<&str>,
        #[case] password: Option<&str>,
    ) {
        assert_eq!(parts(text), (url.into(), username.map(Into::into), password.map(Into::into)));
    }

    #[test]
    fn a_user_may_stand_alone_where_the_password_is_given_apart() {
        let address = Address::parse("redis://ada%20b@h:1", true).expect("a user");
        assert_eq!((address.url.as_str(), address.username.as_deref()), ("redis://h:1", Some("ada b")));
        assert!(address.password.is_none());
    }

    #[test]
    fn the_nodes_of_a_url_are_its_hosts_and_ports() {
        let text = |url: &str| nodes(url).iter().map(|node| format!("{} {}", node.host, node.port)).collect::<Vec<_>>();
        assert_eq!(text("redis://h:1/3"), ["h 1"]);
        assert_eq!(text("valkeys://[::1]"), ["::1 6379"]);
        assert_eq!(text("redis-cluster://[::1]:7,h2"), ["::1 7", "h2 6379"]);
        assert_eq!(text("redis-sentinel://s1,s2:2/main"), ["s1 26379", "s2 2"]);
    }

    #[rstest]
    #[case::no_scheme("ada:hunter2@h:1", "redis://host:port")]
    #[case::other_scheme("http://ada:hunter2@h:1", "scheme")]
    #[case::slash_in_the_password("redis://:hunter2/x@h:1", "%2F")]
    #[case::question_mark_in_the_password("redis://:hunter2?x@h:1", "%3F")]
    #[case::hash_in_the_password("redis://:hunter2#x@h:1", "%23")]
    #[case::password_in_the_query("redis://h:1?password=hunter2", "path")]
    #[case::user_or_password("redis://hunter2@h:1", "colon")]
    #[case::not_utf8("redis://:hunter2%FF@h:1", "UTF-8")]
    #[case::no_host("redis://:hunter2@", "host")]
    #[case::no_host_before_the_port("redis://:hunter2@:6379", "host")]
    #[case::port_zero("redis://:hunter2@h:0", "port")]
    #[case::port_too_large("redis://:hunter2@h:65536", "port")]
    #[case::two_ports("redis://:hunter2@h:1:2", "port")]
    #[case::space_in_the_host("redis://:hunter2@h h:1", "host")]
    #[case::several_hosts("redis://:hunter2@h1:1,h2:2", "redis-cluster")]
    #[case::empty_host_among_several("redis-cluster://:hunter2@h1:1,,h2:2", "host")]
    #[case::database_that_is_none("redis://:hunter2@h:1/first", "database")]
    #[case::no_name_behind_the_sentinels("redis-sentinel://:hunter2@h:1/", "mymaster")]
    fn what_names_no_server_is_refused_with_a_remedy_and_without_the_password(
        #[case] text: &str,
        #[case] remedy: &str,
    ) {
        let error = Address::parse(text, false).expect_err(text).to_string();
        assert!(error.contains(remedy), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

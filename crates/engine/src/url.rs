//! The grammar of target URLs. The only place that parses one; errors never repeat the URL.

use std::{net::Ipv6Addr, str::FromStr};

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use crate::{
    address::{Address, AddressError, split_port},
    target::{Credentials, Mode, SentinelTls, Target, TargetError, Tls},
};

/// Ports of URLs that give none.
const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// The queries that a URL may have, for messages.
const SENTINEL_QUERY: &str = "after the name of the primary only ?sentinel_tls=on or ?sentinel_tls=off may follow";
const SOCKET_QUERY: &str = "after the path of a socket only ?db=n may follow; user and password stand before the path, as in unix://user:password@/path";

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text, true).map(|(target, _)| target)
    }
}

impl Target {
    /// Parses a URL. Returns the target, with the credentials that stood in the URL, and the URL without them.
    ///
    /// `password_apart`: whether the password may be given beside the URL, so that a word alone before the '@' is a user.
    /// Errors never repeat the URL.
    pub fn parse(text: &str, password_apart: bool) -> Result<(Self, String), TargetError> {
        let Some((scheme, rest)) = text.trim().split_once("://") else {
            return Err(TargetError::Malformed("it has no scheme".into()));
        };
        let scheme = scheme.to_ascii_lowercase();
        if matches!(&*scheme, "unix" | "redis+unix" | "valkey+unix") {
            return socket(&scheme, rest, password_apart);
        }
        let unknown = || TargetError::Scheme(scheme.chars().take(20).collect());
        let (engine, kind) = scheme.split_once('-').map_or((&*scheme, None), |(engine, kind)| (engine, Some(kind)));
        let tls = match engine {
            "redis" | "valkey" => None,
            "rediss" | "valkeys" => Some(Tls::default()),
            _ => return Err(unknown()),
        };
        if !matches!(kind, None | Some("cluster" | "sentinel")) {
            return Err(unknown());
        }
        // By hand: URLs with several hosts are invalid to a URL parser.
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // First, before any error quotes what follows: that may be the rest of a password.
        if path.contains('@') {
            return Err(TargetError::Unencoded);
        }
        if path.contains('#') {
            return Err(TargetError::Extra("fragment"));
        }
        let (after_host, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        if query.is_some() && kind != Some("sentinel") {
            return Err(TargetError::Extra("query"));
        }
        let (userinfo, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        if kind.is_none() && hosts.contains(',') {
            return Err(TargetError::SeveralHosts);
        }
        let port = if kind == Some("sentinel") { SENTINEL_PORT } else { SERVER_PORT };
        let seeds = hosts.split(',').map(|host| seed(host, port)).collect::<Result<_, _>>()?;
        let mut parts = after_host.trim_start_matches('/').splitn(2, '/').filter(|part| !part.is_empty());
        let mode = match kind {
            None => Mode::Server,
            Some("sentinel") => {
                let name = decode("name of the primary", parts.next().ok_or(TargetError::NoName)?)?;
                Mode::Sentinel { name, credentials: Credentials::default(), tls: SentinelTls::Same }
            }
            Some(_) => Mode::Cluster,
        };
        let mut target = Self {
            seeds,
            mode,
            credentials: credentials(userinfo, password_apart)?,
            tls,
            database: parts.next().map(database).transpose()?,
            ..Self::server(Address::tcp("", 0))
        };
        if let Some(query) = query {
            target.set_sentinel_tls(Some(match query {
                "sentinel_tls=on" => true,
                "sentinel_tls=off" => false,
                _ => return Err(TargetError::Query(SENTINEL_QUERY)),
            }))?;
        }
        Ok((target, format!("{scheme}://{hosts}{path}")))
    }
}

/// Parses `user:password@/path?db=n`, what follows the scheme of a unix socket.
fn socket(scheme: &str, rest: &str, password_apart: bool) -> Result<(Target, String), TargetError> {
    let (userinfo, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if path.contains('@') {
        return Err(TargetError::Unencoded);
    }
    if path.contains('#') {
        return Err(TargetError::Extra("fragment"));
    }
    let userinfo = match userinfo.strip_suffix('@') {
        Some(userinfo) => userinfo,
        None if userinfo.is_empty() => userinfo,
        None => return Err(AddressError::Socket.into()),
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let decoded = decode("path", path)?;
    let number = match query {
        None => None,
        Some(query) => Some(database(query.strip_prefix("db=").ok_or(TargetError::Query(SOCKET_QUERY))?)?),
    };
    let target =
        Target { credentials: credentials(userinfo, password_apart)?, database: number, ..Target::socket(&decoded)? };
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    Ok((target, format!("{scheme}://{path}{query}")))
}

/// Parses the number of a database.
fn database(text: &str) -> Result<u32, TargetError> {
    text.parse().map_err(|_| TargetError::Database(text.chars().take(20).collect()))
}

/// Parses one host of a URL.
fn seed(text: &str, default_port: u16) -> Result<Address, TargetError> {
    let (host, port) = split_port(text).ok_or(TargetError::Host)?;
    if text.starts_with('[') {
        host.parse::<Ipv6Addr>().map_err(|_| TargetError::Host)?;
    } else if host.is_empty() {
        return Err(TargetError::NoHost);
    } else if !host.chars().all(|character| character.is_alphanumeric() || "-._".contains(character)) {
        return Err(TargetError::Host);
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port: &u16| *port > 0).ok_or(TargetError::Host)?,
        None => default_port,
    };
    Ok(Address::tcp(host, port))
}

/// Parses user and password, each decoded; an empty part counts as missing.
fn credentials(userinfo: &str, password_apart: bool) -> Result<Credentials, TargetError> {
    // Some clients take a lone word before the '@' for the user, some for the password. A password that is taken for
    // a user name would be stored and shown in the clear.
    let (username, password) = match userinfo.split_once(':') {
        Some(both) => both,
        None if password_apart || userinfo.is_empty() => (userinfo, ""),
        None => return Err(TargetError::LoneWord),
    };
    let part = |field, text| -> Result<_, TargetError> {
        Ok(Some(decode(field, text)?).filter(|text: &String| !text.is_empty()))
    };
    Ok(Credentials { username: part("user", username)?, password: part("password", password)?.map(SecretString::from) })
}

/// Decodes a part of a URL. Refuses control characters: they are in no name that a client can type, and a line break is the end of
/// a command to a server that is not Redis.
fn decode(field: &'static str, part: &str) -> Result<String, TargetError> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| TargetError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(TargetError::Control(field));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret;

    use super::*;

    fn parse(text: &str) -> Target {
        text.parse().expect("a target")
    }

    #[test]
    fn the_port_and_the_database_are_optional() {
        let target = parse("redis://cache.example");
        assert_eq!((target.seed().to_string().as_str(), target.database), ("cache.example:6379", None));
        assert_eq!(parse("valkey://cache.example:7000/3").database, Some(3));
        assert_eq!(parse("redis://cache.example/").database, None);
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let target = parse("redis://ops:p%40ss%2Fw@[::1]:6380/2");
        assert_eq!(*target.seed(), Address::tcp("::1", 6380));
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
    fn an_invalid_url_is_refused_with_its_remedy_and_without_its_password() {
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
            ("rediss+unix:///run/secret", "unix://"),
            ("redis://:secret@h:99999", "65535"),
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
    fn every_mode_is_parsed_and_displayed() {
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

    fn parts(text: &str) -> (String, Option<String>, Option<String>) {
        let (Target { credentials, .. }, url) = Target::parse(text, false).expect(text);
        (url, credentials.username, credentials.password.map(|password| password.expose_secret().to_owned()))
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
        let (target, url) = Target::parse("redis://ada%20b@h:1", true).expect("a user");
        assert_eq!((url.as_str(), target.credentials.username.as_deref()), ("redis://h:1", Some("ada b")));
        assert!(target.credentials.password.is_none());
    }

    #[test]
    fn the_nodes_of_a_url_are_its_hosts_and_ports() {
        let text = |url: &str| parse(url).seeds.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text("redis://h:1/3"), ["h:1"]);
        assert_eq!(text("valkeys://[::1]"), ["[::1]:6379"]);
        assert_eq!(text("redis-cluster://[::1]:7,h2"), ["[::1]:7", "h2:6379"]);
        assert_eq!(text("redis-sentinel://s1,s2:2/main"), ["s1:26379", "s2:2"]);
    }

    #[rstest]
    #[case("unix:///run/redis.sock", "unix:///run/redis.sock", None)]
    #[case("redis+unix:///run/my%20redis.sock?db=3", "unix:///run/my redis.sock?db=3", Some(3))]
    #[case("valkey+unix://:secret@/run/redis.sock", "unix:///run/redis.sock", None)]
    fn a_unix_socket_is_a_path_and_its_database_a_query(
        #[case] text: &str,
        #[case] shown: &str,
        #[case] database: Option<u32>,
    ) {
        let target = parse(text);
        assert_eq!((target.to_string().as_str(), target.database), (shown, database));
        assert!(matches!(target.seed(), Address::Unix(_)) && matches!(target.mode, Mode::Server));
        assert_eq!(target.credentials.password.is_some(), text.contains("secret"));
    }

    #[rstest]
    #[case("redis-sentinel://s/main?sentinel_tls=on", false, true)]
    #[case("rediss-sentinel://s/main?sentinel_tls=off", true, false)]
    #[case("rediss-sentinel://s/main/3?sentinel_tls=on", true, true)]
    #[case("redis-sentinel://s/main", false, false)]
    fn the_encryption_of_sentinels_is_set_apart(#[case] text: &str, #[case] nodes: bool, #[case] sentinels: bool) {
        let target = parse(text);
        assert_eq!((target.tls.is_some(), target.sentinel_tls().is_some()), (nodes, sentinels));
        assert_eq!(target.to_string().contains("sentinel_tls"), nodes != sentinels, "{target}");
        assert_eq!(parse(&target.to_string()).sentinel_tls().is_some(), sentinels);
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
    #[case::password_in_the_query_of_sentinels("redis-sentinel://s:1/main?password=hunter2", "sentinel_tls=on")]
    #[case::password_in_the_query_of_a_socket("unix:///run/redis.sock?password=hunter2", "?db=n")]
    #[case::no_database_of_a_socket("unix://:hunter2@/run/redis.sock?db=first", "database")]
    #[case::socket_without_a_path("unix://:hunter2@", "unix:///run/redis/redis.sock")]
    #[case::socket_with_a_relative_path("unix://hunter2/redis.sock", "unix:///run/redis/redis.sock")]
    #[case::socket_behind_a_folder_above("redis+unix://:hunter2@/run/../redis.sock", "without ..")]
    #[case::no_name_behind_the_sentinels("redis-sentinel://:hunter2@h:1/", "mymaster")]
    #[case::a_command_in_the_name(
        "redis-sentinel://h:1/hunter2%0d%0aflush_all%0d%0a",
        "primary has a control character"
    )]
    #[case::a_command_in_the_user("redis://hunter2%0d%0aflush_all:x@h:1", "user has a control character")]
    #[case::a_command_in_the_password("redis://:hunter2%0aflush_all@h:1", "password has a control character")]
    #[case::a_line_break_in_the_path("unix:///run/hunter2%0a.sock", "path has a control character")]
    #[case::a_name_that_is_not_utf8("redis-sentinel://h:1/hunter2%FF", "UTF-8")]
    fn a_url_without_a_server_is_refused_with_a_remedy_and_without_the_password(
        #[case] text: &str,
        #[case] remedy: &str,
    ) {
        let error = Target::parse(text, false).expect_err(text).to_string();
        assert!(error.contains(remedy), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

//! The message for a mistyped target: one sentence with the cause and the remedy, without a retry.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{FailureKind, Options, Outcome, Report, Stop, Target, sweep};
use keysweep_harness::{DataSet, Flavor, Server, VendorProxy, Words, free_port};

fn scan(url: &str) -> Report {
    let target: Target = url.parse().expect("a target");
    sweep(&target, &Options::default(), &(), &Stop::new())
}

fn assert_fails(report: &Report, kind: FailureKind, words: &[&str]) {
    let message = report.message.clone().unwrap_or_default();
    assert_eq!(report.reason, Some(kind), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    assert_eq!(report.totals.keys_scanned, 0);
}

#[test]
fn the_port_is_closed() {
    let begun = Instant::now();
    let port = free_port();
    assert_fails(
        &scan(&format!("redis://127.0.0.1:{port}")),
        FailureKind::Unreachable,
        &["refused", &port.to_string()],
    );
    assert!(begun.elapsed() < Duration::from_secs(3), "a first contact fails at once");
}

#[test]
fn a_server_is_scanned_over_its_unix_socket_and_a_missing_socket_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("redis.sock");
    let path = path.to_str().expect("UTF-8");
    assert_fails(
        &scan(&format!("unix://{path}")),
        FailureKind::Unreachable,
        &["there is no such socket", "unixsocket", path],
    );
    let server = Server::with(Flavor::Redis70).password("p:w").arg("--unixsocket", path).start();
    let loaded = DataSet::new().live(50).stale(30).database(2).stale(20).load(&server);
    let report = scan(&format!("redis+unix://:p%3Aw@{path}?db=2"));
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, 20), "{report:?}");
    assert_eq!(report.target, format!("unix://{path}?db=2"));
    let report = scan(&format!("unix://:p%3Aw@{path}"));
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, 30), "{report:?}");
    assert_eq!(server.held(), loaded.live);
    assert_fails(&scan(&format!("unix://{path}")), FailureKind::Denied, &["requires a password (NOAUTH)", path]);
}

#[test]
fn the_name_does_not_exist() {
    assert_fails(
        &scan("redis://no-such-host.invalid"),
        FailureKind::Unreachable,
        &["no-such-host.invalid", "check the name"],
    );
}

#[test]
fn a_password_is_missing_or_wrong() {
    let server = Server::with(Flavor::Redis70).password("right").start();
    let port = server.port();
    assert_fails(&scan(&format!("redis://127.0.0.1:{port}")), FailureKind::Denied, &["requires a password (NOAUTH)"]);
    let report = scan(&format!("redis://:wrong@127.0.0.1:{port}"));
    assert_fails(&report, FailureKind::Denied, &["refuses the user or the password"]);
    assert!(!format!("{report:?}").contains("wrong@"), "the password is not repeated");
    assert_eq!(scan(&server.url()).reason, None);
}

#[test]
fn a_password_is_given_and_none_is_required() {
    let server = Server::start(Flavor::Redis62);
    let report = scan(&format!("redis://:extra@127.0.0.1:{}", server.port()));
    assert_fails(&report, FailureKind::Denied, &["has no password set, but one was given"]);
}

#[test]
fn the_user_may_not_scan() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(10).load(&server);
    let mut connection = server.connection();
    let rules = ["on", ">secret", "~*", "+@all", "-scan"];
    redis::cmd("ACL").arg("SETUSER").arg("sweeper").arg(&rules).exec(&mut connection).expect("a user");
    let report = scan(&format!("redis://sweeper:secret@127.0.0.1:{}", server.port()));
    assert_fails(&report, FailureKind::Denied, &["SCAN", "docs/servers.md"]);
}

#[test]
fn the_port_belongs_to_another_protocol() {
    for greeting in ["HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let other = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.write_all(greeting.as_bytes()).expect("a greeting");
            // Open until the client disconnects: a close might overtake the greeting.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert_fails(
            &scan(&format!("redis://{address}")),
            FailureKind::Unsupported,
            &["does not speak the Redis protocol"],
        );
        other.join().expect("the listener ends");
    }
}

/// Twemproxy closes the connection at every command that it does not forward.
#[test]
fn the_port_belongs_to_a_proxy_that_forwards_only_some_commands() {
    let server = Server::start(Flavor::Redis62);
    let proxy = VendorProxy::before(&server, |command| (command[0] != "PING").then_some(Words::Close));
    assert_fails(&scan(&proxy.url()), FailureKind::Unreachable, &["proxies", "twemproxy", "name the server behind it"]);
}

#[test]
fn the_server_does_not_reply_within_the_timeout() {
    let mut server = Server::start(Flavor::Redis70);
    server.pause();
    let report = scan(&server.url());
    server.resume();
    assert_fails(&report, FailureKind::Unreachable, &["did not answer within 5 s"]);
}

#[test]
fn the_server_is_still_loading() {
    let server = Server::start(Flavor::Redis70);
    let mut connection = server.connection();
    // A setting for tests: each loaded key takes this many microseconds, so that loading takes a while.
    DataSet::new().live(2_000).load(&server);
    redis::cmd("CONFIG").arg("SET").arg("key-load-delay").arg(20_000).exec(&mut connection).expect("a slow load");
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("loading-process-events-interval-bytes")
        .arg(1024)
        .exec(&mut connection)
        .expect("events");
    redis::cmd("SAVE").exec(&mut connection).expect("a dump");
    let mut background = server.connection();
    thread::scope(|scope| {
        scope.spawn(move || {
            // Makes the server load; ends with an error when the server is killed below.
            let _ = redis::cmd("DEBUG").arg("RELOAD").arg("NOSAVE").exec(&mut background);
        });
        keysweep_harness::eventually("the server loads", Duration::from_secs(10), || {
            let answer: redis::RedisResult<String> = redis::cmd("PING").query(&mut connection);
            answer.err().filter(|error| error.to_string().contains("oading")).map(|_| ())
        });
        let report = scan(&server.url());
        assert_fails(&report, FailureKind::Unreachable, &["still loading", "try again"]);
        drop(server);
    });
}

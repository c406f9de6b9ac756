//! The pre-flight checks: each has more than one result, and none of them reclaims a key.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::ffi::OsStrExt,
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use keysweep_engine::{Check, FailureKind, Options, Outcome, Stop, Target, Verdict, check, link::Plain, sweep};
use keysweep_harness::{DataSet, Flavor, KilledOnDrop, Server, VendorProxy, Words, eventually};
use rstest::rstest;

fn checks(url: &str) -> Vec<Check> {
    let target: Target = url.parse().expect("a target");
    check(&Plain, &target, Options::default().limits, &Stop::new()).expect("a server to check")
}

fn verdict(checks: &[Check], name: &str) -> Verdict {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}: {checks:?}")).verdict
}

fn run(server: &Server, words: &[&str]) {
    redis::cmd(words[0])
        .arg(&words[1..])
        .exec(&mut server.connection())
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

#[rstest]
fn a_plain_server_passes_all_checks_and_no_key_is_reclaimed(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::with(flavor).arg("--lazyfree-lazy-expire", "yes").start();
    let loaded = DataSet::new().live(50).stale(50).load(&server);
    let checks = checks(&server.url());
    assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:#?}");
    let held: u64 = redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size");
    assert_eq!(held, loaded.live + loaded.stale);
}

#[test]
fn large_values_that_block_cause_a_warning() {
    let server = Server::start(Flavor::Redis70);
    assert_eq!(verdict(&checks(&server.url()), "freeing"), Verdict::Warning);
    run(&server, &["CONFIG", "SET", "lazyfree-lazy-expire", "yes"]);
    assert_eq!(verdict(&checks(&server.url()), "freeing"), Verdict::Ok);
}

#[test]
fn an_append_only_file_that_waits_for_the_disk_makes_it_slower() {
    let server = Server::with(Flavor::Valkey91).arg("--appendonly", "yes").start();
    assert_eq!(verdict(&checks(&server.url()), "append-only file"), Verdict::Ok);
    run(&server, &["CONFIG", "SET", "appendfsync", "always"]);
    assert_eq!(verdict(&checks(&server.url()), "append-only file"), Verdict::Slower);
}

#[test]
fn a_backlog_that_is_too_small_for_the_deletes_causes_a_warning() {
    let primary = Server::with(Flavor::Valkey91).arg("--repl-backlog-size", "16kb").start();
    DataSet::new().stale(10_000).load(&primary);
    assert_eq!(verdict(&checks(&primary.url()), "replicas"), Verdict::Ok, "without a replica it does not matter");
    let _replica = primary.replica();
    assert_eq!(verdict(&checks(&primary.url()), "replicas"), Verdict::Warning);
}

#[test]
fn paused_expiry_is_reported_before_the_sweep() {
    let server = Server::start(Flavor::Valkey91);
    run(&server, &["CLIENT", "PAUSE", "60000", "WRITE"]);
    assert_eq!(verdict(&checks(&server.url()), "state"), Verdict::Slower);
}

#[test]
fn a_user_who_may_not_scan_is_refused_and_one_with_the_documented_rule_is_not() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(20).stale(30).database(1).stale(5).load(&server);
    let documented = include_str!("../../../../docs/servers.md");
    let rule = documented.lines().find_map(|line| line.trim().strip_prefix("ACL SETUSER sweeper ")).expect("the rule");
    let rule: Vec<&str> = rule.split(' ').collect();
    run(&server, &[&["ACL", "SETUSER", "sweeper"], rule.as_slice()].concat());
    let url = format!("redis://sweeper:PASSWORD@127.0.0.1:{}", server.port());
    assert_eq!(verdict(&checks(&url), "rights"), Verdict::Ok);
    let report = sweep(&url.parse().expect("a target"), &Options::default(), &(), &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true)
    );

    run(&server, &["ACL", "SETUSER", "sweeper", "-scan"]);
    assert_eq!(verdict(&checks(&url), "rights"), Verdict::Refused);
}

#[rstest]
#[case("multi", false)]
#[case("dbsize", false)]
#[case("role", true)]
#[case("info", true)]
#[case("client|setname", true)]
fn without_another_right_the_sweep_continues_and_reports_what_is_lost(#[case] right: &str, #[case] exact: bool) {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(20).stale(30).database(1).stale(5).load(&server);
    run(&server, &["ACL", "SETUSER", "sweeper", "on", ">p", "~*", "+@all", &format!("-{right}")]);
    let target: Target = format!("redis://sweeper:p@127.0.0.1:{}", server.port()).parse().expect("a target");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, exact), "{:?}", report.message);
    for database in 0..2 {
        let mut connection = server.connection();
        redis::cmd("SELECT").arg(database).exec(&mut connection).expect("it exists");
        let held: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
        assert_eq!(held, loaded.per_database[&database].live);
    }
    let warned = report.warnings.iter().any(|warning| warning.to_lowercase().contains(right));
    assert!(warned || right == "client|setname", "{:?}", report.warnings);
}

#[test]
fn without_info_the_database_that_the_url_names_is_swept_and_no_other() {
    let server = Server::start(Flavor::Redis70);
    let loaded = DataSet::new().live(5).stale(20).database(15).stale(30).load(&server);
    run(&server, &["ACL", "SETUSER", "sweeper", "on", ">p", "~*", "+@all", "-info"]);
    let target: Target = format!("redis://sweeper:p@127.0.0.1:{}/0", server.port()).parse().expect("a target");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, 20));
    let mut connection = server.connection();
    let held: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
    assert_eq!(held, loaded.per_database[&0].live);
    redis::cmd("SELECT").arg(15).exec(&mut connection).expect("it exists");
    let other: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
    assert_eq!(other, 30, "the other database is not touched");
}

#[test]
fn alone_a_subscriber_to_expired_events_slows_the_sweep_down_and_is_not_dropped() {
    let server = Server::with(Flavor::Valkey91).arg("--notify-keyspace-events", "Ex").start();
    let loaded = DataSet::new().live(1_000).stale(25_000).load(&server);
    assert_eq!(verdict(&checks(&server.url()), "subscribers"), Verdict::Ok, "no subscriber yet");
    let mut connection = server.connection();
    let mut subscriber = connection.as_pubsub();
    subscriber.psubscribe("__keyevent@*__:expired").expect("a subscription");
    assert_eq!(verdict(&checks(&server.url()), "subscribers"), Verdict::Slower);

    let report = sweep(&server.url().parse().expect("a target"), &Options::default(), &(), &Stop::new());

    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale));
    assert!(
        report.totals.elapsed_seconds > 2.3,
        "25,000 reclaims at 10,000 a second took {} s",
        report.totals.elapsed_seconds
    );
    for _ in 0..loaded.stale {
        subscriber.get_message().expect("every event arrives");
    }
    let mut options = Options::default();
    (options.limits.reclaims_per_second, options.limits.guard) = (Some(1_000_000), None);
    // The best of three: a stalled machine slows one down, and a sweep limited to 10,000 a second is never so fast.
    let mut took = Vec::new();
    while took.len() < 3 && took.last().is_none_or(|took| *took >= 2.0) {
        DataSet::new().prefix(&format!("again {}:", took.len())).stale(25_000).load(&server);
        let report = sweep(&server.url().parse().expect("a target"), &options, &(), &Stop::new());
        took.push(report.totals.elapsed_seconds);
        for _ in 0..report.totals.keys_reclaimed {
            subscriber.get_message().expect("every event arrives");
        }
    }
    assert!(took.last().is_some_and(|took| *took < 2.0), "without the limit it took {took:?} s");
}

/// Starts a stand-in for a server whose clock is this much ahead, which a real one has only if this machine's clock changes.
/// `replica`: the port of its replica, on this machine.
fn fake_server_with_a_fast_clock(seconds: u64, replica: Option<u16>) -> (String, u16) {
    fake_server(seconds, replica, "")
}

/// The same with this INFO reply: an engine of which the tests have no binary.
fn fake_server(seconds: u64, replica: Option<u16>, info: &str) -> (String, u16) {
    let info = format!("${}\r\n{info}\r\n", info.len());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let replicas = replica.map_or("*0\r\n".to_owned(), |port| {
        let port = port.to_string();
        format!("*1\r\n*3\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n$1\r\n0\r\n", port.len())
    });
    let role = format!("*3\r\n$6\r\nmaster\r\n:0\r\n{replicas}");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer) {
                let asked = String::from_utf8_lossy(&buffer).to_uppercase();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + seconds;
                // Several commands may arrive at once.
                let answers = asked.trim_end_matches('\0').split("\r\n*").map(|command| match () {
                    () if command.contains("\r\nTIME") => {
                        format!("*2\r\n${}\r\n{now}\r\n$1\r\n0\r\n", now.to_string().len())
                    }
                    () if command.contains("\r\nROLE") => role.clone(),
                    () if command.contains("\r\nINFO\r\n") => info.clone(),
                    () if command.contains("\r\nPUBSUB\r\n") => "*0\r\n".to_owned(),
                    () => "+OK\r\n".to_owned(),
                });
                let answer = answers.collect::<String>();
                buffer.fill(0);
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (format!("redis://127.0.0.1:{port}"), port)
}

#[test]
fn a_server_whose_clock_is_five_seconds_off_is_scanned_with_a_warning() {
    let server = Server::start(Flavor::Redis70);
    let loaded = DataSet::new().live(50).stale(30).load(&server);
    // MULTI is refused because the proxy would answer the TIME inside of it.
    let proxy = VendorProxy::before(&server, |command| match command[0].as_str() {
        "TIME" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 5;
            Some(Words::Reply(format!("*2\r\n$10\r\n{now}\r\n$1\r\n0\r\n")))
        }
        "MULTI" => Some(Words::Error("ERR unknown command 'MULTI'".into())),
        _ => None,
    });
    let report = sweep(&proxy.url().parse().expect("a target"), &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, server.held()), (Outcome::Done, loaded.live), "{report:?}");
    assert!(report.warnings.iter().any(|warning| warning.starts_with("clock: ")), "{:?}", report.warnings);
}

#[test]
fn clocks_that_differ_from_the_replicas_refuse_the_sweep_and_our_own_clock_only_beyond_a_minute() {
    let clock = |url: &str, allow_clock_skew: bool| {
        let target = Target { allow_clock_skew, ..url.parse().expect("a target") };
        let found = check(&Plain, &target, Options::default().limits, &Stop::new()).expect("a server to check");
        found.into_iter().find(|check| check.name == "clock").expect("the check of the clock")
    };
    let alone = |seconds| fake_server_with_a_fast_clock(seconds, None).0;
    assert_eq!(clock(&alone(0), false).verdict, Verdict::Ok);
    assert_eq!(clock(&alone(20), false).verdict, Verdict::Warning, "our own clock expires no key");
    let beyond = alone(90);
    assert_eq!(clock(&beyond, false).verdict, Verdict::Refused);
    assert_eq!(clock(&beyond, true).verdict, Verdict::Warning, "the operator knows");
    let report = sweep(&beyond.parse().expect("a target"), &Options::default(), &(), &Stop::new());
    assert_eq!(report.reason, Some(FailureKind::Refused));
    let message = report.message.expect("a sentence");
    assert!(message.contains("this machine's clock") && message.contains("--allow-clock-skew"), "{message}");

    let (_, replica) = fake_server_with_a_fast_clock(0, None);
    let (ahead_of_its_replica, _) = fake_server_with_a_fast_clock(5, Some(replica));
    let refused = clock(&ahead_of_its_replica, false);
    assert_eq!(refused.verdict, Verdict::Refused, "{refused:?}");
    assert!(refused.finding.contains(&format!("ahead of its replica 127.0.0.1:{replica}'s clock")), "{refused:?}");
    assert_eq!(clock(&ahead_of_its_replica, true).verdict, Verdict::Warning);
    let (_, also_ahead) = fake_server_with_a_fast_clock(5, None);
    let (in_step, _) = fake_server_with_a_fast_clock(5, Some(also_ahead));
    assert_eq!(clock(&in_step, false).verdict, Verdict::Warning, "server and replica agree");
}

#[test]
fn more_than_a_hundred_thousand_notification_channels_are_counted() {
    let server = Server::with(Flavor::Valkey91).arg("--notify-keyspace-events", "KEx").start();
    let mut subscriber = TcpStream::connect(server.address()).expect("a connection");
    let mut command = b"*100002\r\n$9\r\nSUBSCRIBE\r\n".to_vec();
    for number in 100_000..200_001 {
        command.extend(format!("$22\r\n__keyspace@0__:{number}k\r\n").bytes());
    }
    subscriber.write_all(&command).expect("the server reads");
    // The first message: by then the server has read the whole command.
    subscriber.read_exact(&mut [0; 16]).expect("the server answers");
    assert_eq!(verdict(&checks(&server.url()), "subscribers"), Verdict::Slower);
}

#[test]
fn a_path_that_is_not_utf8_hides_neither_version_nor_process() {
    let flavor = Flavor::Redis70;
    let folder = std::env::temp_dir().join(format!("keysweep-latin1-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let config = folder.join(OsStr::from_bytes(b"caf\xe9.conf"));
    fs::write(&config, "save \"\"\n").expect("a file");
    let port = keysweep_harness::free_port();
    let mut command = Command::new(flavor.binary());
    command.arg(&config).args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--logfile", "/dev/null"]);
    let _server = KilledOnDrop(command.spawn().expect("the server starts"));
    let target: Target = format!("redis://127.0.0.1:{port}").parse().expect("a target");
    let inspection = eventually("the server answers", Duration::from_secs(10), || {
        keysweep_engine::inspect(&Plain, &target, &Stop::new()).ok()
    });
    fs::remove_dir_all(&folder).expect("the folder is there");
    assert_eq!((inspection.engine.as_str(), inspection.engine_version.as_str()), ("redis", flavor.version()));
}

#[rstest]
#[case("Dragonfly", "redis_version:7.4.0\r\ndragonfly_version:df-v1.40.1\r\n")]
#[case("Kvrocks", "kvrocks_version:2.17.0\r\nredis_version:7.0.0\r\n")]
#[case("Garnet", "garnet_version:1.1.9\r\nredis_version:7.4.3\r\n")]
fn an_engine_that_gains_nothing_is_refused_by_name_before_any_slice(#[case] name: &str, #[case] info: &str) {
    let (url, _) = fake_server(0, None, info);
    let target: Target = url.parse().expect("a target");
    assert_eq!(verdict(&checks(&url), "engine"), Verdict::Refused);
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    let message = report.message.expect("a sentence");
    assert_eq!((report.reason, report.totals.slices), (Some(FailureKind::Unsupported), 0), "{message}");
    assert!(message.contains(&format!("{name} gains nothing from a scan")), "{message}");
    let estimated =
        keysweep_engine::estimate(&Plain, &target, &keysweep_engine::EstimateRequest::default(), &Stop::new());
    let failure = estimated.expect_err("nothing to count");
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert!(failure.message.contains(name), "{failure}");
}

//! The rights in docs/servers.md suffice, and a missing one is named before the sweep begins.

use keysweep_engine::{FailureKind, Options, Outcome, Report, Stop, Target, Verdict, check, sweep};
use keysweep_harness::{Cluster, DataSet, Flavor, Server, VendorProxy, Words};
use rstest::rstest;

use crate::common::{documented, set_user};

fn without(rights: &[String], right: &str) -> Vec<String> {
    rights.iter().filter(|other| *other != right).cloned().collect()
}

/// Returns the messages of the checks and the sweep, in upper case.
fn messages(target: &Target) -> String {
    let checks = match check(&keysweep_engine::link::Plain, target, Options::default().limits, &Stop::new()) {
        Ok(checks) => {
            checks.iter().filter(|check| check.verdict != Verdict::Refused).map(|check| check.finding.clone()).collect()
        }
        Err(failure) => vec![failure.message],
    };
    let report = sweep(target, &Options::default(), &(), &Stop::new());
    // A missing right either is named before the sweep begins, or prevents it.
    assert!(report.outcome == Outcome::Done || report.totals.slices == 0, "it failed half-way: {report:?}");
    [checks, report.warnings, report.message.into_iter().collect()].concat().join("\n").to_uppercase()
}

/// Asserts that each missing right is named by its command. CLIENT SETNAME is left out: only the name is lost without it.
fn assert_each_is_named(rights: &[String], mut set: impl FnMut(&[String]), target: &Target) {
    for right in rights.iter().filter(|right| right.starts_with('+') && *right != "+client|setname") {
        set(&without(rights, right));
        let messages = messages(target);
        let name = right.trim_start_matches('+').replace('|', " ").to_uppercase();
        let (command, whole) = (name.split(' ').next().unwrap_or_default(), name.as_str());
        assert!(
            messages.contains(whole) || messages.contains(command) && command != "CLUSTER",
            "without {right}:\n{messages}"
        );
    }
}

#[rstest]
fn the_documented_rule_sweeps_a_server(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(20).stale(30).database(1).stale(5).load(&server);
    // Only the lines for every server: those for clusters are not needed here.
    let rights: Vec<String> =
        documented("sweeper").into_iter().filter(|right| !right.starts_with("+cluster")).collect();
    set_user(&server, "sweeper", &rights);
    let target: Target = format!("redis://sweeper:PASSWORD@{}", server.address()).parse().expect("a target");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true),
        "{report:?}"
    );
    let refused = |warning: &String| warning.contains("refused");
    assert!(!report.warnings.iter().any(refused), "{:?}", report.warnings);
}

#[test]
fn each_right_of_the_rule_is_named_where_it_is_missing() {
    // Subscribers are only asked for where events are published.
    let server = Server::with(Flavor::Valkey91).arg("--notify-keyspace-events", "Ex").start();
    DataSet::new().live(20).database(1).live(5).load(&server);
    let rights: Vec<String> =
        documented("sweeper").into_iter().filter(|right| !right.starts_with("+cluster")).collect();
    let target: Target = format!("redis://sweeper:PASSWORD@{}", server.address()).parse().expect("a target");
    assert_each_is_named(&rights, |rights| set_user(&server, "sweeper", rights), &target);
}

#[test]
fn the_documented_rule_sweeps_a_cluster_and_each_right_is_named_where_it_is_missing() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 2, false);
    let (live, stale) = cluster.load(200, 100);
    let rights = documented("sweeper");
    let set = |rights: &[String]| cluster.nodes().iter().for_each(|node| set_user(node, "sweeper", rights));
    set(&rights);
    let address = cluster.node(0).address();
    let target: Target = format!("redis-cluster://sweeper:PASSWORD@{address}").parse().expect("a target");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, stale), "{report:?}");
    let cluster_rights: Vec<String> = rights.iter().filter(|right| right.starts_with("+cluster")).cloned().collect();
    for right in cluster_rights {
        set(&without(&rights, &right));
        let messages = messages(&target);
        let name = right.trim_start_matches('+').replace('|', " ").to_uppercase();
        assert!(messages.contains(&name), "without {right}:\n{messages}");
    }
    assert_eq!(cluster.held(), live);
}

#[test]
fn the_documented_rules_sweep_a_primary_behind_sentinels() {
    let primary = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(20).stale(30).load(&primary);
    let rights: Vec<String> =
        documented("sweeper").into_iter().filter(|right| !right.starts_with("+cluster")).collect();
    set_user(&primary, "sweeper", &rights);
    let sentinel = Server::with(Flavor::Valkey91).sentinel_of("main", &primary, 1).start();
    let rights = documented("watcher");
    set_user(&sentinel, "watcher", &rights);
    let url = format!("redis-sentinel://sweeper:PASSWORD@{}/main", sentinel.address());
    let mut target: Target = url.parse().expect("a target");
    let credentials =
        keysweep_engine::Credentials { username: Some("watcher".into()), password: Some("PASSWORD".to_owned().into()) };
    target.mode =
        keysweep_engine::Mode::Sentinel { name: "main".into(), credentials, tls: keysweep_engine::SentinelTls::Same };
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{report:?}");

    set_user(&sentinel, "watcher", &without(&rights, "+sentinel|get-master-addr-by-name"));
    let message = sweep(&target, &Options::default(), &(), &Stop::new()).message.expect("a sentence");
    assert!(message.contains("get-master-addr-by-name"), "{message}");
}

/// Servers before 6.0 have neither ACL nor HELLO; the engine uses neither.
#[test]
fn a_server_without_acl_and_hello_is_swept() {
    let mut launch = Server::with(Flavor::Redis62);
    for command in ["ACL", "HELLO", "ROLE", "MULTI"] {
        launch = launch.without(command);
    }
    let server = launch.start();
    let loaded = DataSet::new().live(20).stale(30).load(&server);
    let report = sweep(&server.url().parse().expect("a target"), &Options::default(), &(), &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, false),
        "{report:?}"
    );
    assert!(report.warnings.iter().any(|warning| warning.contains("MULTI, ROLE")), "{:?}", report.warnings);
}

fn scan(url: &str) -> Report {
    sweep(&url.parse().expect("a target"), &Options::default(), &(), &Stop::new())
}

/// Starts a proxy that refuses these commands as two vendors do.
fn refusing(server: &Server, commands: &'static [&'static str]) -> VendorProxy {
    VendorProxy::before(server, |command| {
        let name = command[0].as_str();
        let number = commands.iter().position(|refused| *refused == name)?;
        Some(Words::Error(match number % 2 {
            0 => format!("ERR command {name} not support for normal user"),
            _ => format!("ERR unsupported command '{name}' for your account"),
        }))
    })
}

#[test]
fn commands_refused_in_a_vendors_words_are_done_without_and_what_is_lost_is_said() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(300).stale(200).load(&server);
    let proxy = refusing(&server, &["CLIENT", "ROLE", "DBSIZE", "TIME", "CONFIG", "PUBSUB", "MULTI", "SELECT"]);
    let report = scan(&proxy.url());
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, false), "{report:#?}");
    assert_eq!(server.held(), loaded.live);
    for words in
        ["MULTI, ROLE, DBSIZE, SELECT", "cannot be counted", "a demotion", "TIME is refused", "PUBSUB is refused"]
    {
        assert!(report.warnings.iter().any(|warning| warning.contains(words)), "{words}: {:#?}", report.warnings);
    }
}

#[test]
fn info_refused_in_a_vendors_words_leaves_no_database_out() {
    let server = Server::start(Flavor::Redis70);
    let loaded = DataSet::new().live(20).stale(30).database(9).stale(5).load(&server);
    let report = scan(&refusing(&server, &["INFO"]).url());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{report:#?}");
    assert!(report.warnings.iter().any(|warning| warning.contains("INFO is refused")), "{:?}", report.warnings);

    let report = scan(&refusing(&server, &["INFO", "SELECT"]).url());
    let message = report.message.unwrap_or_default();
    assert_eq!((report.reason, message.contains("INFO and SELECT")), (Some(FailureKind::Denied), true), "{message}");
}

/// Valkey since 9.1 has rights for each database, and a database that a user may not select is not absent.
#[test]
fn a_database_that_the_user_may_not_select_is_not_taken_for_absent() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().stale(5).load(&server);
    DataSet::new().database(1).stale(7).load(&server);
    let rules = ["on", ">p", "~*", "&*", "+@all", "-info", "resetdbs", "db=0"];
    redis::cmd("ACL").arg("SETUSER").arg("sweeper").arg(&rules).exec(&mut server.connection()).expect("a user");
    let url = format!("redis://sweeper:p@{}", server.address());
    assert_eq!(scan(&url).reason, Some(FailureKind::Denied));
    assert_eq!(scan(&format!("{url}/0")).outcome, Outcome::Done);
}

#[test]
fn scan_refused_in_a_vendors_words_is_named_before_the_first_slice() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().stale(10).load(&server);
    let report = scan(&refusing(&server, &["SCAN"]).url());
    let message = report.message.unwrap_or_default();
    assert_eq!((report.reason, report.totals.slices), (Some(FailureKind::Denied), 0), "{message}");
    assert!(message.contains("SCAN is refused") && message.contains("not support for normal user"), "{message}");
}

#[rstest]
fn a_renamed_command_is_done_without_or_named(#[values("EXEC", "PING", "SCAN")] command: &str) {
    let server = Server::with(Flavor::Redis70).without(command).start();
    let loaded = DataSet::new().live(20).stale(30).load(&server);
    let report = scan(&server.url());
    let message = report.message.clone().unwrap_or_default();
    match command {
        "SCAN" => assert!(message.contains("does not know SCAN") && message.contains("rename-command"), "{message}"),
        _ => assert_eq!((report.outcome, server.held()), (Outcome::Done, loaded.live), "{report:#?}"),
    }
    assert_eq!(report.totals.exact, command != "EXEC");
}

#[test]
fn every_database_of_thousands_is_scanned_where_info_is_refused_or_the_scan_fails_with_the_cause() {
    let server = Server::with(Flavor::Redis70).arg("--databases", "12000").start();
    let loaded = DataSet::new().live(20).stale(30).database(11_999).live(5).stale(7).load(&server);
    let set = |refused: &[&str]| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("sweeper").arg("reset").arg(&["on", ">p", "~*", "&*", "+@all"]).arg(refused);
        command.exec(&mut server.connection())
    };
    let url = format!("redis://sweeper:p@{}", server.address());

    set(&["-info", "-dbsize"]).expect("a user");
    let report = scan(&url);
    let message = report.message.unwrap_or_default();
    assert_eq!(
        (report.reason, message.contains("more than 10000 databases")),
        (Some(FailureKind::Denied), true),
        "{message}"
    );

    set(&["-info"]).expect("a user");
    let report = scan(&url);
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{report:#?}");
    assert_eq!((report.shards[0].databases.as_slice(), server.held()), ([0, 11_999].as_slice(), loaded.live));
}

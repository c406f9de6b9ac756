//! Primaries behind Sentinels, and their failovers.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use keysweep_engine::{
    Credentials, FailureKind, HoldLevel, HoldPolicy, Holder, Mode, Options, Outcome, SentinelTls, Stop, Target,
    restore, sweep,
};
use keysweep_harness::{Churn, DataSet, Flavor, Monitored, Server, eventually, free_port};
use redis::Connection;
use rstest::rstest;

use crate::{
    common::{Once, slow},
    memory::Memory,
};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Remark of a restore after which the configuration file may contain a temporary value.
const IN_FILE: &str = "its configuration file may contain a value that keysweep wrote";

fn monitored(flavor: Flavor) -> Monitored {
    let monitored = Monitored::of(Server::start(flavor));
    // As on the primary, so that its keys can be counted once it is one.
    redis::cmd("DEBUG")
        .arg("SET-ACTIVE-EXPIRE")
        .arg(0)
        .exec(&mut monitored.replica.connection())
        .expect("DEBUG is allowed");
    monitored
}

fn target(monitored: &Monitored) -> Target {
    monitored.url().parse().expect("a target")
}

#[rstest]
fn the_primary_behind_sentinels_is_swept_also_when_one_of_them_is_down(
    #[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor,
) {
    let mut monitored = monitored(flavor);
    let loaded = DataSet::new().live(500).stale(300).load(&monitored.primary);
    let mut target = target(&monitored);
    target.seeds.insert(0, format!("127.0.0.1:{}", free_port()).parse().expect("an address"));
    monitored.sentinels[0].kill();
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{report:?}");
    assert_eq!(
        report.shards[0].address.as_ref().map(ToString::to_string),
        Some(monitored.primary.address().to_string())
    );
}

#[rstest]
fn heavy_a_failover_by_sentinels_during_a_sweep_is_followed(
    #[values(Flavor::Redis62, Flavor::Valkey81)] flavor: Flavor,
    #[values(true, false)] planned: bool,
) {
    survive_a_failover(flavor, planned, 0.2);
}

fn survive_a_failover(flavor: Flavor, planned: bool, at: f64) {
    let monitored = monitored(flavor);
    let loaded = DataSet::new().live(10_000).stale(10_000).load(&monitored.primary);
    let target = target(&monitored);
    let shared = Mutex::new(monitored);
    let fail = Once::between(at..0.9, |_| {
        let mut monitored = shared.lock().expect("no panic");
        if planned {
            monitored.fail_over();
        } else {
            monitored.primary.kill();
        }
    });
    let report = sweep(&target, &slow(6_000), &fail, &Stop::new());
    assert!(fail.was_done());
    let monitored = shared.into_inner().expect("no panic");
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(
        report.shards[0].address.as_ref().map(ToString::to_string),
        Some(monitored.replica.address().to_string()),
        "{report:?}"
    );
    assert_eq!(monitored.replica.held(), loaded.live, "{report:?}");
}

#[test]
fn an_announced_name_that_does_not_resolve_is_told_with_its_announcer_and_can_be_mapped() {
    let primary = Server::start(Flavor::Redis70);
    let (name, port) = ("redis-master.invalid", primary.port());
    let sentinel = Server::with(Flavor::Redis70).sentinel_of_host("main", name, port).start();
    let replica = Server::start(Flavor::Redis70);
    redis::cmd("REPLICAOF").arg(name).arg(port).exec(&mut replica.connection()).expect("a replica");
    let node = Server::with(Flavor::Redis70)
        .arg("--cluster-enabled", "yes")
        .arg("--cluster-announce-hostname", name)
        .arg("--cluster-preferred-endpoint-type", "hostname")
        .start();
    redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).exec(&mut node.connection()).expect("slots");
    eventually("the node serves its slots", TIMEOUT, || {
        let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut node.connection()).expect("an answer");
        info.contains("cluster_state:ok").then_some(())
    });
    // A name may come to resolve during a failover, so that it is tried again for this long.
    let options = Options { reconnect_timeout: Duration::from_millis(200), ..Options::default() };
    for (url, announcer, server) in [
        (format!("redis-sentinel://{}/main", sentinel.address()), "which the Sentinels announce", &primary),
        (replica.url(), "which the replica names as its primary", &primary),
        (format!("redis-cluster://{}", node.address()), "which the cluster announces", &node),
    ] {
        let target: Target = url.parse().expect("a target");
        let report = sweep(&target, &options, &(), &Stop::new());
        let message = report.message.expect("a sentence");
        assert_eq!(report.reason, Some(FailureKind::Unreachable), "{message}");
        for words in [name, announcer, "--address-map redis-master.invalid=HOST"] {
            assert!(message.contains(words), "{words:?} is not in {message}");
        }
        let mapped = Target { address_map: format!("{name}=127.0.0.1").parse().expect("a map"), ..target.clone() };
        let loaded = DataSet::new().prefix(announcer).live(4).stale(3).load(server);
        let report = sweep(&mapped, &options, &(), &Stop::new());
        assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{url}: {report:?}");

        let misled = Target { address_map: format!("{name}=other.invalid").parse().expect("a map"), ..target };
        let message = sweep(&misled, &options, &(), &Stop::new()).message.expect("a sentence");
        assert!(message.contains("other.invalid") && message.contains("correct the address map"), "{message}");
    }
}

/// The server hangs while its connections stay open: only the Sentinels show that it is no longer the primary.
#[test]
fn heavy_after_a_primary_hangs_the_one_that_sentinels_promote_is_swept() {
    survive_a_hanging_primary(Flavor::Valkey91, 0.2);
}

fn survive_a_hanging_primary(flavor: Flavor, at: f64) {
    let monitored = monitored(flavor);
    let loaded = DataSet::new().live(10_000).stale(10_000).load(&monitored.primary);
    let target = target(&monitored);
    let shared = Mutex::new(monitored);
    let hang = Once::between(at..0.9, |_| shared.lock().expect("no panic").primary.pause());
    let begun = std::time::Instant::now();
    let report = sweep(&target, &slow(6_000), &hang, &Stop::new());
    let took = begun.elapsed();
    assert!(hang.was_done());
    let monitored = shared.into_inner().expect("no panic");
    assert_eq!((report.outcome, monitored.replica.held()), (Outcome::Done, loaded.live), "{report:?}");
    assert!(took < Duration::from_secs(25), "a reply is waited for for 30 s; this took {took:?}");
}

/// CONFIG SET is not replicated: the new primary has its own settings, and the old one keeps what was written, also in its file,
/// since the Sentinels send it CONFIG REWRITE.
#[test]
fn heavy_a_primary_that_sentinels_demote_gets_its_own_settings_back_also_after_a_restart_from_its_rewritten_file() {
    let mut monitored = Monitored::of(Server::with(Flavor::Valkey91).config_file().start());
    let effort = |server: &Server| -> Vec<String> {
        redis::cmd("CONFIG").arg("GET").arg("active-expire-effort").query(&mut server.connection()).expect("a value")
    };
    let own = effort(&monitored.primary);
    let churn = Churn::start(&monitored.primary, 1_500, Duration::from_secs(8));
    let policy = HoldPolicy {
        level: HoldLevel::Hold,
        below: 0.05,
        interval_seconds: 1,
        settle_floor_seconds: 1,
        ..HoldPolicy::default()
    };
    let (target, host, stop, mut holder) = (target(&monitored), Memory::default(), Stop::new(), Holder::new(policy));
    let dialer = target.dialer().expect("a dialer");
    let mut round = || {
        std::thread::sleep(Duration::from_millis(500));
        // During a failover the Sentinels may name no primary for a moment.
        let _ = holder.round(&*dialer, &target, &host, &stop);
        holder.statuses().into_iter().map(|node| node.status.sentence).collect::<Vec<_>>().join("\n")
    };
    eventually("the effort is raised", TIMEOUT * 3, || {
        round();
        (effort(&monitored.primary) != own).then_some(())
    });
    assert_eq!(effort(&monitored.replica), own, "CONFIG SET is not replicated");
    let (raised, file) = (effort(&monitored.primary), configuration_file(&monitored.primary));
    assert_ne!(raised, own);
    drop(churn);
    monitored.fail_over();
    let written = eventually("the Sentinels rewrite the configuration file", TIMEOUT, || written_effort(&file));
    assert_eq!(written, raised[1], "what was temporary is permanent");
    let mut said = String::new();
    eventually("the demoted node has its own settings", TIMEOUT, || {
        said = round();
        (effort(&monitored.primary) == own).then_some(())
    });
    assert!(said.contains(IN_FILE), "{said}");
    let records = host.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].baseline.setting().effort.to_string(), own[1]);
    let restored = holder.finish(&*dialer, &target, &host);
    assert!(restored.iter().all(keysweep_engine::Restored::is_done), "{restored:?}");
    assert_eq!((effort(&monitored.primary), effort(&monitored.replica)), (own.clone(), own.clone()));
    // The file is not corrected: each restart brings the value back, and each restore replaces it.
    monitored.primary.kill();
    monitored.primary.restart();
    assert_eq!(effort(&monitored.primary), raised, "the file was rewritten");
    let record = host.records()[0].clone();
    let (restored, _) = restore(&*dialer, &target, &record.address, &stop, |_| Ok(((), record.clone())));
    assert!(restored.is_done() && restored.to_string().contains(IN_FILE), "{restored}");
    assert_eq!(effort(&monitored.primary), own);
}

fn configuration_file(server: &Server) -> PathBuf {
    let info: String = redis::cmd("INFO").arg("server").query(&mut server.connection()).expect("an answer");
    info.lines().find_map(|line| line.strip_prefix("config_file:")).expect("a file").into()
}

/// Returns the effort in a configuration file, if it was rewritten with one.
fn written_effort(path: &Path) -> Option<String> {
    let file = std::fs::read_to_string(path).expect("the server's file");
    file.lines().find_map(|line| line.strip_prefix("active-expire-effort ")).map(str::to_owned)
}

#[test]
fn an_unknown_name_is_reported_with_the_known_ones() {
    let monitored = Monitored::of(Server::start(Flavor::Valkey91));
    let mut target = target(&monitored);
    target.mode = Mode::Sentinel { name: "mian".into(), credentials: Credentials::default(), tls: SentinelTls::Same };
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!(report.reason, Some(FailureKind::Unsupported));
    let message = report.message.expect("a sentence");
    assert!(message.contains("\"mian\"") && message.contains("it monitors: main"), "{message}");
}

#[test]
fn sentinels_have_a_password_of_their_own() {
    let primary = Server::with(Flavor::Valkey91).password("data").start();
    let loaded = DataSet::new().live(50).stale(50).load(&primary);
    let sentinel = Server::with(Flavor::Valkey91).sentinel_of("main", &primary, 1).password("watch").start();
    let url = format!("redis-sentinel://:data@{}/main", sentinel.address());
    let target: Target = url.parse().expect("a target");

    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!(report.reason, Some(FailureKind::Denied));
    let message = report.message.expect("a sentence");
    assert!(message.contains("--sentinel-password-file"), "{message}");

    let credentials = Credentials { username: None, password: Some("watch".into()) };
    let target = Target { mode: Mode::Sentinel { name: "main".into(), credentials, tls: SentinelTls::Same }, ..target };
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{report:?}");
}

#[test]
fn a_server_that_is_not_a_sentinel_is_reported() {
    let server = Server::start(Flavor::Redis70);
    let target: Target = format!("redis-sentinel://{}/main", server.address()).parse().expect("a target");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!(report.reason, Some(FailureKind::Unsupported));
    assert!(report.message.as_ref().is_some_and(|message| message.contains("is not a Sentinel")), "{report:?}");
    let _: Connection = server.connection();
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_every_failover_at_every_point(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    for at in [0.1, 0.5, 0.8] {
        survive_a_failover(flavor, true, at);
        survive_a_failover(flavor, false, at);
        survive_a_hanging_primary(flavor, at);
    }
}

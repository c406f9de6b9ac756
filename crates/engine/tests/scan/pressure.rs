//! A server with everything that deletes can affect: a replica, an append-only file, a subscriber, a snapshot.

use std::{sync::Mutex, time::Duration};

use keysweep_engine::{Checkpoint, Monitor, Options, Outcome, Progress, Stop, Verdict, check, link::Plain, sweep};
use keysweep_harness::{DataSet, Flavor, Server, eventually};
use rstest::rstest;

/// Enough for a sweep of seconds: what it reclaims before it notices a snapshot stays well below a tenth.
const STALE: u64 = 200_000;

fn info(server: &Server, section: &str, field: &str) -> u64 {
    let text: String = redis::cmd("INFO").arg(section).query(&mut server.connection()).expect("INFO");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {field} in\n{text}"))
}

fn snapshot(server: &Server) {
    redis::cmd("BGSAVE").exec(&mut server.connection()).expect("BGSAVE begins");
}

/// Returns the bytes that the last snapshot's child process copied, once it has ended.
fn copied(server: &Server) -> u64 {
    eventually("the snapshot ends", Duration::from_secs(60), || {
        (info(server, "persistence", "rdb_bgsave_in_progress") == 0).then_some(())
    });
    info(server, "persistence", "rdb_last_cow_size")
}

/// Starts a snapshot as soon as the sweep has started.
struct SnapshotMeanwhile<'a>(&'a Server, Mutex<bool>);

impl Monitor for SnapshotMeanwhile<'_> {
    fn progress(&self, progress: &Progress, _: &Checkpoint) {
        let mut begun = self.1.lock().expect("no panic");
        if !*begun && progress.keys_reclaimed > 0 {
            *begun = true;
            snapshot(self.0);
        }
    }
}

#[test]
fn alone_a_snapshot_during_a_sweep_costs_a_tenth_and_no_client_is_dropped() {
    // A setting for tests gives the snapshot some seconds: a sleep after about every eighth key.
    let primary = Server::with(Flavor::Valkey91)
        .arg("--appendonly", "yes")
        .arg("--appendfsync", "everysec")
        // The only background save of this test is the snapshot.
        .arg("--auto-aof-rewrite-percentage", "0")
        .arg("--notify-keyspace-events", "Ex")
        .arg("--rdb-key-save-delay", "-8")
        .start();
    let replica = primary.replica();
    DataSet::new().live(120_000).value_bytes(400).load(&primary);
    snapshot(&primary);
    let idle = copied(&primary);
    let syncs = info(&primary, "stats", "sync_full");

    let grown = |throttle_on_save: bool, prefix: &str| {
        let loaded = DataSet::new().prefix(prefix).value_bytes(400).stale(STALE).load(&primary);
        let mut connection = primary.connection();
        let mut subscriber = connection.as_pubsub();
        subscriber.psubscribe("__keyevent@*__:expired").expect("a subscription");
        let mut options = Options { throttle_on_save, ..Options::default() };
        // Some seconds in total, without the limit for subscribers.
        options.limits.reclaims_per_second = Some(50_000);
        let meanwhile = SnapshotMeanwhile(&primary, Mutex::new(false));
        let report = sweep(&primary.url().parse().expect("a target"), &options, &meanwhile, &Stop::new());
        assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale));
        assert!(*meanwhile.1.lock().expect("no panic"), "the snapshot began in mid-sweep");
        assert_eq!(throttle_on_save, report.totals.throttled.fork > 0.3, "{:?}", report.totals.throttled);
        for _ in 0..loaded.stale {
            subscriber.get_message().expect("every event arrives: the subscriber was not dropped");
        }
        copied(&primary).saturating_sub(idle)
    };
    let unguarded = grown(false, "a:");
    assert!(
        unguarded > 10_000_000,
        "{unguarded} bytes: without the guard the snapshot is costly, or this measures nothing"
    );
    let is_tenth = |prefix| {
        let guarded = grown(true, prefix);
        eprintln!("{guarded} bytes with the guard, {unguarded} without, {idle} without a sweep");
        guarded * 10 < unguarded
    };
    // A snapshot is noticed within some 50 ms, in which up to 8 % are copied; more on a busy machine: then two of three count.
    assert!(is_tenth("b:") || (is_tenth("c:") && is_tenth("d:")), "more than a tenth");
    assert_eq!(info(&primary, "stats", "sync_full"), syncs, "no full synchronisation");
    assert_eq!(info(&primary, "replication", "connected_slaves"), 1);
    eventually("the replica has followed", Duration::from_secs(20), || {
        let held: u64 = redis::cmd("DBSIZE").query(&mut replica.connection()).expect("a size");
        (held == 120_000).then_some(())
    });
}

/// Redis before 7.2 answers OOM to every command in a transaction while used_memory is above maxmemory, and serves a plain SCAN.
#[rstest]
fn a_server_above_maxmemory_is_scanned_without_transactions_until_memory_is_below_the_limit(
    #[values(Flavor::Redis62, Flavor::Redis70)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().value_bytes(1_000).live(2_000).stale(4_000).load(&server);
    let limit = info(&server, "memory", "used_memory") - 1_500_000;
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).exec(&mut server.connection()).expect("a limit");
    let target = server.url().parse().expect("a target");
    let checks = check(&Plain, &target, Options::default().limits, &Stop::new()).expect("a server to check");
    let memory = checks.iter().find(|check| check.name == "memory").expect("a check of memory");
    assert!(memory.verdict == Verdict::Warning && memory.finding.contains("OOM"), "{memory:?}");
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut server.connection()).expect("RESETSTAT");

    let mut options = Options::default();
    options.limits.keys_per_second = Some(12_000);
    let report = sweep(&target, &options, &(), &Stop::new());

    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, false), "{report:?}");
    assert_eq!(server.held(), loaded.live);
    assert!(report.warnings.iter().any(|warning| warning.contains("OOM")), "{:?}", report.warnings);
    let count = |section, field| -> u64 {
        let text: String = redis::cmd("INFO").arg(section).query(&mut server.connection()).expect("INFO");
        let line =
            text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_else(|| panic!("{field} in {text}"));
        line.trim().split(',').next().and_then(|number| number.parse().ok()).expect("a number")
    };
    let (executed, refused) =
        (count("commandstats", "cmdstat_exec:calls="), count("errorstats", "errorstat_EXECABORT:count="));
    assert!(executed > refused + 10, "{executed} transactions, of which {refused} were refused");
    assert!(refused < report.totals.slices, "a transaction is tried again only now and then: {refused}");
}

/// Settings with which a server refuses writes, closes idle connections or moves keys, on the newest versions.
#[rstest]
fn settings_that_hinder_clients_leave_a_scan_complete_and_exact(
    #[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::with(flavor).arg("--io-threads", "2").start();
    let loaded = DataSet::new().live(3_000).stale(3_000).load(&server);
    for (setting, value) in
        [("min-replicas-to-write", "1"), ("maxmemory", "1"), ("timeout", "1"), ("activerehashing", "no")]
    {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(setting).arg(value).exec(&mut server.connection()).expect("a setting");
    }
    let write: redis::RedisResult<()> = redis::cmd("SET").arg("k").arg("v").query(&mut server.connection());
    assert!(write.is_err(), "writes are refused");
    let mut options = Options::default();
    options.limits.keys_per_second = Some(4_000);
    let report = sweep(&server.url().parse().expect("a target"), &options, &(), &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true),
        "{report:?}"
    );
    assert_eq!(server.held(), loaded.live);
}

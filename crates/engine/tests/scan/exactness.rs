//! After a sweep no key that had expired before it began is left, and the count of reclaimed keys is exact.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use keysweep_engine::{
    Checkpoint, FailureKind, Monitor, Options, Outcome, Preset, Progress, Report, Stop, Target, sweep,
};
use keysweep_harness::{DataSet, Flavor, Kind, Names, Server, Stalls, eventually};
use rstest::rstest;

use crate::common::StopWhen;

fn target(server: &Server) -> Target {
    server.url().parse().expect("a target")
}

fn scan(server: &Server) -> Report {
    sweep(&target(server), &Options::default(), &(), &Stop::new())
}

fn size(server: &Server, database: u32) -> u64 {
    let mut connection = server.connection();
    redis::cmd("SELECT").arg(database).exec(&mut connection).expect("the database exists");
    redis::cmd("DBSIZE").query(&mut connection).expect("a size")
}

#[rstest]
fn every_stale_key_of_every_type_and_database_is_reclaimed_and_counted(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::with(flavor).arg("--lazyfree-lazy-expire", "yes").start();
    let mut data = DataSet::new().live(20_000).stale(5_000);
    for (database, kind) in Kind::ALL.into_iter().enumerate() {
        data = data.database(database as u32).kind(kind).prefix("kinds:").live(300).stale(200);
    }
    let data = data.database(9).kind(Kind::String).names(Names::Binary).live(200).stale(300);
    let data = data.database(15).names(Names::Long).live(20).stale(30);
    let loaded = data.load(&server);

    let report = scan(&server);

    assert_eq!((report.outcome, &report.message), (Outcome::Done, &None));
    assert_eq!((report.totals.keys_reclaimed, report.totals.exact), (loaded.stale, true));
    for (database, counts) in &loaded.per_database {
        assert_eq!(size(&server, *database), counts.live, "database {database}");
    }
    let swept: Vec<u32> = loaded.per_database.keys().copied().collect();
    assert_eq!(report.shards[0].databases, swept);
    // SCAN may return a key twice while the table is resized; it never returns fewer than all.
    assert!(report.totals.keys_scanned >= loaded.live + loaded.stale);
    assert_eq!(report.shards[0].server.as_deref().and_then(|server| server.split(' ').nth(1)), Some(flavor.version()));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[rstest]
fn heavy_a_hash_of_a_million_fields_is_reclaimed_too(#[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(1_000).kind(Kind::Hash).elements(1_000_000).stale(1).load(&server);
    let report = scan(&server);
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true)
    );
    assert_eq!(size(&server, 0), loaded.live);
    let (before, after) =
        (report.totals.used_memory_before.expect("a size"), report.totals.used_memory_after.expect("a size"));
    assert!(before - after > 20_000_000, "{before} bytes before, {after} after");
}

/// Fields with a TTL are not keys: a hash is reclaimed when its own TTL has passed, and stays unchanged until then.
#[test]
fn a_hash_is_reclaimed_by_its_own_ttl_and_not_by_that_of_its_fields() {
    const FIELDS: u64 = 50;
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().kind(Kind::Hash).live(100).stale(100).load(&server);
    let mut connection = server.connection();
    let fill = |key: &str| {
        let mut pipe = redis::pipe();
        for field in 0..FIELDS {
            pipe.cmd("HSET").arg(key).arg(format!("f{field}")).arg("v").ignore();
            let ttl = if field % 2 == 0 { 1 } else { 600_000 };
            pipe.cmd("HPEXPIRE").arg(key).arg(ttl).arg("FIELDS").arg(1).arg(format!("f{field}")).ignore();
        }
        pipe
    };
    fill("living").exec(&mut connection).expect("fields take a TTL");
    fill("dying").cmd("PEXPIRE").arg("dying").arg(1).exec(&mut connection).expect("so does the hash");
    // The last field that expires, after the last hash.
    fill("witness").exec(&mut connection).expect("fields take a TTL");
    eventually("the TTL has passed", Duration::from_secs(10), || {
        let last = format!("f{}", FIELDS - 2);
        let ttl: Vec<i64> =
            redis::cmd("HPTTL").arg("witness").arg("FIELDS").arg(1).arg(last).query(&mut connection).expect("a TTL");
        (ttl == [-2]).then_some(())
    });
    let report = scan(&server);
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale + 1, true)
    );
    assert_eq!(size(&server, 0), loaded.live + 2);
    let fields: u64 = redis::cmd("HLEN").arg("living").query(&mut connection).expect("a size");
    assert_eq!(fields, FIELDS, "expired fields are left to the server");
}

#[test]
fn only_the_named_database_is_swept() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(10).stale(20).database(3).live(30).stale(40).load(&server);
    let target: Target = format!("{}/3", server.url()).parse().expect("a target");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.totals.keys_reclaimed, report.shards[0].databases.clone()), (40, vec![3]));
    assert_eq!(size(&server, 0), loaded.per_database[&0].live + loaded.per_database[&0].stale);
}

#[test]
fn an_empty_server_is_done_at_once() {
    let report = scan(&Server::start(Flavor::Redis70));
    assert_eq!(
        (report.outcome, report.totals.keys_scanned, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, 0, 0, true)
    );
}

/// Clients write, read and delete, and the server's own cycle is on: the stale keys are reclaimed, and the count of the sweep
/// plus the keys that clients and the cycle expired is the total that the server reports.
#[rstest]
fn with_clients_and_the_servers_own_cycle_the_sums_still_add_up(
    #[values(Flavor::Redis70, Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    // A tenth is stale: at that share the server's own cycle is slow, and leaves some to the sweep.
    let loaded = DataSet::new().live(45_000).stale(5_000).load(&server);
    assert_eq!(loaded.stale_held_by(&server), loaded.stale, "the stale keys are there before the sweep");
    let stop_clients = AtomicBool::new(false);

    let (report, expired) = thread::scope(|scope| {
        let clients = scope.spawn(|| churn(&server, &stop_clients));
        let mut connection = server.connection();
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut connection).expect("counters start at 0");
        redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(1).exec(&mut connection).expect("debug is allowed");
        let report = scan(&server);
        let info: String = redis::cmd("INFO").arg("stats").query(&mut connection).expect("INFO");
        stop_clients.store(true, Ordering::Relaxed);
        clients.join().expect("the clients end");
        let expired: u64 =
            info.lines().find_map(|line| line.strip_prefix("expired_keys:")?.parse().ok()).expect("a counter");
        (report, expired)
    });

    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, true));
    assert!(
        report.totals.keys_reclaimed <= expired,
        "we counted {} of {expired} expired keys",
        report.totals.keys_reclaimed
    );
    assert_eq!(loaded.stale_held_by(&server), 0, "no key is left that was stale before the sweep");
    quiesce(&server);
    assert_eq!(size(&server, 0), loaded.live, "the clients' keys have expired, the live keys of the data set are left");
    assert!(report.totals.keys_reclaimed > 0 && expired >= loaded.stale);
}

/// Sets keys that live for a moment, reads them, deletes some.
fn churn(server: &Server, stop: &AtomicBool) {
    let mut connection = server.connection();
    for round in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut pipeline = redis::pipe();
        for number in 0..20 {
            let key = format!("churn:{}", (round * 20 + number) % 5_000);
            pipeline.cmd("SET").arg(&key).arg("v").arg("PX").arg(20 + number).ignore();
            pipeline.cmd("GET").arg(format!("churn:{}", (round * 7 + number) % 5_000)).ignore();
            pipeline.cmd("DEL").arg(format!("churn:{}", (round * 13) % 5_000)).ignore();
        }
        pipeline.exec(&mut connection).expect("the server serves");
    }
}

/// Waits until the clients' keys have expired: a second sweep reclaims the rest.
fn quiesce(server: &Server) {
    eventually("no key with a short TTL is left", Duration::from_secs(10), || {
        let report = scan(server);
        (report.totals.keys_reclaimed == 0).then_some(())
    });
}

#[rstest]
fn a_stopped_sweep_resumes_from_its_checkpoint(
    #[values(Flavor::Redis70, Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(10_000).stale(10_000).database(2).live(5_000).stale(5_000).load(&server);
    let mut options = Options::default();
    options.limits.keys_per_second = Some(20_000);
    // More than the last calls of chunks return twice.
    let early = StopWhen::new(|progress| progress.keys_scanned > 2_000);

    let first = sweep(&target(&server), &options, &early, &early.stop);
    assert_eq!((first.reason, first.totals.exact), (Some(FailureKind::Interrupted), true));
    assert!(
        first.totals.keys_reclaimed > 0 && first.totals.keys_reclaimed < loaded.stale,
        "{} reclaimed",
        first.totals.keys_reclaimed
    );
    let held = size(&server, 0) + size(&server, 2);
    assert_eq!(
        held + first.totals.keys_reclaimed,
        loaded.live + loaded.stale,
        "the report counts the keys that are gone"
    );

    let checkpoint = early.last();
    let rest = sweep(&target(&server), &Options { checkpoint, ..Options::default() }, &(), &Stop::new());
    assert_eq!((rest.outcome, rest.totals.keys_reclaimed, rest.totals.exact), (Outcome::Done, loaded.stale, true));
    assert!(
        rest.totals.keys_scanned < loaded.live + loaded.stale + first.totals.keys_scanned,
        "the first part is not swept again"
    );
    assert_eq!(size(&server, 0) + size(&server, 2), loaded.live);
}

#[test]
fn with_a_checkpoint_of_another_process_the_shard_starts_again() {
    let mut server = Server::start(Flavor::Valkey91);
    DataSet::new().live(20_000).stale(20_000).load(&server);
    let mut options = Options::default();
    options.limits.keys_per_second = Some(20_000);
    let early = StopWhen::new(|progress| progress.keys_scanned > 0);
    let first = sweep(&target(&server), &options, &early, &early.stop);
    server.kill();
    server.restart();
    let loaded = DataSet::new().live(300).stale(200).load(&server);

    let checkpoint = early.last();
    let rest = sweep(&target(&server), &Options { checkpoint, ..Options::default() }, &(), &Stop::new());

    assert_eq!((rest.outcome, size(&server, 0)), (Outcome::Done, loaded.live));
    assert_eq!(
        rest.totals.keys_reclaimed,
        first.totals.keys_reclaimed + loaded.stale,
        "what the first process reclaimed still counts"
    );
}

#[test]
fn a_timeout_fails_the_sweep_and_keeps_its_results() {
    let server = Server::start(Flavor::Redis70);
    let loaded = DataSet::new().live(5_000).stale(5_000).load(&server);
    let mut options = Options { timeout: Some(Duration::from_millis(300)), ..Options::default() };
    options.limits.keys_per_second = Some(5_000);
    let report = sweep(&target(&server), &options, &(), &Stop::new());
    assert_eq!(report.reason, Some(FailureKind::Timeout));
    assert!(report.totals.elapsed_seconds < 2.0, "{} s", report.totals.elapsed_seconds);
    assert_eq!(size(&server, 0) + report.totals.keys_reclaimed, loaded.live + loaded.stale);
}

#[test]
fn a_server_that_is_lost_and_returns_is_swept_to_the_end() {
    let server = Mutex::new(Server::start(Flavor::Valkey91));
    let loaded = DataSet::new().live(20_000).stale(20_000).load(&server.lock().expect("no panic"));
    let target = target(&server.lock().expect("no panic"));
    let mut options = Options::default();
    options.limits.keys_per_second = Some(12_000);
    let cut = CutConnections { server: &server, done: AtomicBool::new(false) };

    let report = sweep(&target, &options, &cut, &Stop::new());

    assert!(cut.done.load(Ordering::Relaxed), "the connections were cut while the sweep ran");
    assert_eq!((report.outcome, &report.message), (Outcome::Done, &None));
    assert_eq!(size(&server.lock().expect("no panic"), 0), loaded.live);
    // Back to the last sample, which is at most a second and some slices old, and not to the start.
    assert!(report.totals.keys_scanned < 40_000 + 18_000, "{} keys scanned", report.totals.keys_scanned);
}

/// Closes every client's connection once.
struct CutConnections<'a> {
    server: &'a Mutex<Server>,
    done: AtomicBool,
}

impl Monitor for CutConnections<'_> {
    fn progress(&self, progress: &Progress, _: &Checkpoint) {
        if progress.fraction > 0.7 && progress.fraction < 0.95 && !self.done.swap(true, Ordering::Relaxed) {
            let mut connection = self.server.lock().expect("no panic").connection();
            redis::cmd("CLIENT")
                .arg("KILL")
                .arg("TYPE")
                .arg("normal")
                .exec(&mut connection)
                .expect("others are cut off");
        }
    }
}

#[test]
fn the_capped_rate_is_kept_over_the_whole_sweep() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(5_000).load(&server);
    let mut options = Options { pace: Preset::Max.to_string(), limits: Preset::Max.limits(), ..Options::default() };
    options.limits.keys_per_second = Some(5_000);
    let stalls = Stalls::watch();
    let report = sweep(&target(&server), &options, &(), &Stop::new());
    let (took, stalled) = (report.totals.elapsed_seconds, stalls.end().as_secs_f64());
    assert!((0.9..2.0 + stalled).contains(&took), "5,000 keys at 5,000/s took {took} s, {stalled} of them stalled");
}

#[test]
fn the_connection_has_a_name_in_the_client_list() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(20_000).load(&server);
    let mut options = Options { client_name: "keysweep:task-1".into(), ..Options::default() };
    options.limits.keys_per_second = Some(20_000);
    let seen = Mutex::new(String::new());
    struct ServerState<'a>(&'a Server, &'a Mutex<String>);
    impl Monitor for ServerState<'_> {
        fn progress(&self, _: &Progress, _: &Checkpoint) {
            let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut self.0.connection()).expect("a list");
            self.1.lock().expect("no panic").push_str(&list);
        }
    }
    sweep(&target(&server), &options, &ServerState(&server, &seen), &Stop::new());
    assert!(seen.lock().expect("no panic").contains("name=keysweep:task-1"));
}

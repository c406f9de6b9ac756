//! A scan that reclaimed nothing says so: switches that hide stale keys from it are found out, and what cannot be reclaimed
//! ends as incomplete.

mod broken_server;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use broken_server::{Answers, BrokenServer};
use keysweep_engine::{
    Check, Checkpoint, FailureKind, Monitor, Options, Order, Outcome, Preset, Progress, Report, SlotSet, Stop, Target,
    Verdict, check, link::Plain, sweep,
};
use keysweep_harness::{Cluster, DataSet, Flavor, Launch, Loaded, Server};
use rstest::rstest;

use crate::common::{Once, StopWhen, slow};

const NESTED: &str = "lazyexpire-nested-arbitrary-keys";

fn run(server: &Server, command: &str) {
    let mut words = command.split(' ');
    let mut query = redis::cmd(words.next().expect("a command"));
    let query = words.fold(&mut query, |query, word| query.arg(word));
    query.exec(&mut server.connection()).unwrap_or_else(|error| panic!("{command}: {error}"));
}

fn target(url: &str) -> Target {
    url.parse().expect("a target")
}

fn scan(url: &str, options: &Options) -> Report {
    sweep(&target(url), options, &(), &Stop::new())
}

/// Returns the URL of a user who may do everything but read settings, as on managed servers.
fn without_config(server: &Server) -> String {
    run(server, "ACL SETUSER sweeper on >p ~* &* +@all -config");
    format!("redis://sweeper:p@127.0.0.1:{}", server.port())
}

fn is_warned_of(report: &Report, word: &str) -> bool {
    report.warnings.iter().any(|warning| warning.contains(word))
}

fn assert_fails(report: &Report, kind: FailureKind, words: &[&str]) {
    let message = report.message.clone().unwrap_or_default();
    assert_eq!((report.outcome, report.reason), (Outcome::Failed, Some(kind)), "{report:#?}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

fn without_nested_expiry() -> Launch {
    Server::with(Flavor::Redis82).arg(&format!("--{NESTED}"), "no")
}

fn load(server: &Server) -> Loaded {
    DataSet::new().live(3_000).stale(1_500).database(3).live(200).stale(100).load(server)
}

#[rstest]
fn keys_that_transactions_do_not_reclaim_are_reclaimed_by_plain_slices(#[values(true, false)] may_read_settings: bool) {
    let server = without_nested_expiry().start();
    let loaded = load(&server);
    let url = if may_read_settings { server.url() } else { without_config(&server) };

    let report = scan(&url, &Options::default());

    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, false),
        "{report:#?}"
    );
    assert_eq!(server.held(), loaded.live);
    assert!(is_warned_of(&report, NESTED), "{:?}", report.warnings);
}

#[test]
fn a_switch_that_is_turned_in_mid_scan_leaves_no_stale_key() {
    let server = Server::start(Flavor::Redis82);
    let loaded = DataSet::new().live(15_000).stale(15_000).load(&server);
    let turn = Once::between(0.2..0.8, |_| run(&server, &format!("CONFIG SET {NESTED} no")));

    let report = sweep(&target(&server.url()), &slow(15_000), &turn, &Stop::new());

    assert!(turn.was_done());
    assert_eq!(
        (report.outcome, report.totals.exact, server.held()),
        (Outcome::Done, false, loaded.live),
        "{report:#?}"
    );
    assert!(is_warned_of(&report, NESTED), "{:?}", report.warnings);
}

/// Adds keys at an even rate, so that more are added during a scan than it could miss.
fn add_keys(server: &Server, stop: &AtomicBool) {
    let mut connection = server.connection();
    for first in (0_u64..).step_by(20) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut pipeline = redis::pipe();
        for number in first..first + 20 {
            pipeline.cmd("SET").arg(format!("added:{number}")).arg("v").arg("EX").arg(3_600).ignore();
        }
        pipeline.exec(&mut connection).expect("the server serves");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn keys_that_transactions_do_not_reclaim_are_found_while_clients_write() {
    let server = without_nested_expiry().start();
    let loaded = DataSet::new().live(3_000).stale(600).load(&server);
    let (url, over) = (without_config(&server), AtomicBool::new(false));
    let report = thread::scope(|scope| {
        scope.spawn(|| add_keys(&server, &over));
        let report = scan(&url, &slow(6_000));
        over.store(true, Ordering::Relaxed);
        report
    });
    assert_eq!(
        (report.outcome, report.totals.exact, loaded.stale_held_by(&server)),
        (Outcome::Done, false, 0),
        "{report:#?}"
    );
    assert!(report.totals.keys_reclaimed > 0, "{report:#?}");
    assert!(is_warned_of(&report, NESTED), "{:?}", report.warnings);
}

/// Replaces live keys of the half of the keyspace that begins at a cursor by new ones once a scan of the other half has begun:
/// half of these land in that other half, so that the scan misses as many, and the size stays the same.
fn replace_keys(server: &Server, keys: usize, from: u64) {
    let mut connection = server.connection();
    let (mut cursor, mut replaced) = (from, Vec::new());
    // The first page may begin with 0 as well.
    while replaced.is_empty() || (replaced.len() < keys && cursor != 0) {
        let page: (u64, Vec<String>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(500).query(&mut connection).expect("a page");
        cursor = page.0;
        replaced.extend(page.1);
    }
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    for (number, key) in replaced.into_iter().take(keys).enumerate() {
        pipeline.cmd("DEL").arg(key).ignore().cmd("SET").arg(format!("new:{number}")).arg("v").ignore();
    }
    pipeline.exec(&mut connection).expect("the server serves");
}

/// Replaces keys once, and keeps the order of the last pass.
struct Replace<'a> {
    server: &'a Server,
    from: u64,
    was_done: AtomicBool,
    order: Mutex<Option<Order>>,
}

impl Monitor for Replace<'_> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        let database = checkpoint.shards.first().and_then(|shard| shard.databases.first());
        if let Some(order) = database.and_then(|database| database.order.clone()) {
            *self.order.lock().expect("no panic") = Some(order);
        }
        if (0.1..0.45).contains(&progress.fraction) && !self.was_done.swap(true, Ordering::SeqCst) {
            replace_keys(self.server, 2_000, self.from);
        }
    }
}

/// Scans while clients replace keys that the scan has not come to yet. Returns the order of its last pass as well.
fn scan_while_keys_are_replaced(server: &Server, url: &str, rate: u64, from: u64) -> (Report, Option<Order>) {
    let replace = Replace { server, from, was_done: AtomicBool::new(false), order: Mutex::default() };
    let report = sweep(&target(url), &slow(rate), &replace, &Stop::new());
    assert!(replace.was_done.into_inner());
    (report, replace.order.into_inner().expect("no panic"))
}

/// A forward scan begins with the first half of the keyspace, one in chunks with the second.
#[rstest]
#[case::in_one_go(15_000, 1, Order::Backward { bits: 0 })]
#[case::in_chunks(24_000, 0, Order::Backward { bits: 6 })]
fn clients_that_write_cost_a_server_without_config_neither_its_exact_count_nor_its_chunks(
    #[case] live: u64,
    #[case] from: u64,
    #[case] order: Order,
) {
    let server = Server::start(Flavor::Redis82);
    let loaded = DataSet::new().live(live).stale(300).load(&server);
    let (report, last) = scan_while_keys_are_replaced(&server, &without_config(&server), live, from);
    let once = (loaded.live + loaded.stale) * 11 / 10;
    assert!(report.totals.keys_scanned > once, "the database is scanned again: {report:#?}");
    assert_eq!(last, Some(order), "missing keys say nothing about cursors");
    assert_eq!((report.outcome, report.totals.exact, server.held()), (Outcome::Done, true, loaded.live), "{report:#?}");
    assert!(report.warnings.iter().all(|warning| !warning.contains(NESTED)), "{:?}", report.warnings);
}

#[test]
fn keys_that_clients_may_have_removed_are_a_warning_and_not_said_to_have_expired() {
    let server = Server::start(Flavor::Redis82);
    let loaded = DataSet::new().live(15_000).stale(300).load(&server);
    let (report, _) = scan_while_keys_are_replaced(&server, &server.url(), 15_000, 1);
    let once = (loaded.live + loaded.stale) * 11 / 10;
    assert!(report.totals.keys_scanned < once, "another pass could prove no more: {report:#?}");
    assert_eq!((report.outcome, report.totals.exact, server.held()), (Outcome::Done, true, loaded.live), "{report:#?}");
    assert!(is_warned_of(&report, "clients that add and delete keys"), "{:?}", report.warnings);
    assert!(report.totals.remaining.is_some_and(|left| left.in_doubt), "{report:#?}");
}

#[test]
fn a_cluster_whose_transactions_reclaim_nothing_is_scanned_with_plain_slices() {
    let mut cluster = Cluster::launch(&without_nested_expiry(), 2, false);
    let (live, stale) = cluster.load(500, 500);
    let report = scan(&cluster.url(), &Options::default());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, stale, false),
        "{report:#?}"
    );
    assert_eq!(cluster.held(), live);
}

#[test]
fn slots_that_come_later_are_scanned_with_plain_slices_where_transactions_reclaim_nothing() {
    let mut cluster = Cluster::launch(&without_nested_expiry(), 2, false);
    cluster.nodes().iter().for_each(|node| drop(without_config(node)));
    let url = cluster.url().replace("redis-cluster://", "redis-cluster://sweeper:p@");
    let monitor = StopWhen::new(|_| false);
    assert_eq!(sweep(&target(&url), &Options::default(), &monitor, &monitor.stop).outcome, Outcome::Done);
    let (live, stale) = cluster.load(500, 500);
    let mut checkpoint = monitor.last().expect("a checkpoint");
    for shard in &mut checkpoint.shards {
        // As if all slots had come after the scan.
        shard.covered = SlotSet::default();
    }
    let report =
        sweep(&target(&url), &Options { checkpoint: Some(checkpoint), ..Options::default() }, &(), &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, stale, false),
        "{report:#?}"
    );
    assert_eq!(cluster.held(), live);
}

#[test]
fn the_checks_name_the_switch_before_a_scan() {
    let server = without_nested_expiry().start();
    let checks =
        check(&Plain, &target(&server.url()), Options::default().limits, &Stop::new()).expect("a server to check");
    let found = checks.iter().find(|check| check.finding.contains(NESTED)).expect("a check names it");
    assert_eq!(found.verdict, Verdict::Warning, "{found:?}");
}

#[rstest]
fn a_server_in_import_mode_is_refused_before_the_first_slice(
    #[values(Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::with(flavor).arg("--import-mode", "yes").start();
    let loaded = load(&server);
    let checks =
        check(&Plain, &target(&server.url()), Options::default().limits, &Stop::new()).expect("a server to check");
    let refused: Vec<&Check> = checks.iter().filter(|check| check.verdict == Verdict::Refused).collect();
    assert!(matches!(refused.as_slice(), [check] if check.finding.contains("import-mode")), "{checks:#?}");

    let report = scan(&server.url(), &Options::default());

    assert_fails(&report, FailureKind::Refused, &["import-mode"]);
    assert_eq!((report.totals.keys_scanned, server.held()), (0, loaded.live + loaded.stale));
}

#[rstest]
fn import_mode_that_begins_in_mid_scan_ends_it(#[values(Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(15_000).stale(15_000).load(&server);
    let begin = Once::between(0.2..0.8, |_| run(&server, "CONFIG SET import-mode yes"));

    let report = sweep(&target(&server.url()), &slow(15_000), &begin, &Stop::new());

    assert!(begin.was_done());
    assert_fails(&report, FailureKind::Refused, &["import-mode"]);
    assert!(report.totals.exact, "{report:#?}");
    assert_eq!(server.held() + report.totals.keys_reclaimed, loaded.live + loaded.stale);
}

#[rstest]
fn keys_that_are_neither_returned_nor_reclaimed_are_no_success(
    #[values(Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::with(flavor).arg("--import-mode", "yes").start();
    // One key in database 3: nothing that the server counts explains even that.
    DataSet::new().live(3_000).stale(1_500).database(3).live(2_000).stale(1).load(&server);
    let report = scan(&without_config(&server), &Options::default());
    assert_fails(&report, FailureKind::Incomplete, &["1500 keys in database 0", "1 key in database 3"]);
    assert_eq!(report.totals.keys_reclaimed, 0);
}

#[rstest]
fn heavy_a_pause_without_an_end_is_no_success_where_the_server_does_not_show_it(
    #[values(Flavor::Redis62, Flavor::Redis70)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    DataSet::new().live(500).stale(500).load(&server);
    run(&server, "CLIENT PAUSE 60000 WRITE");
    let report = scan(&server.url(), &Options::default());
    assert_fails(&report, FailureKind::Incomplete, &["500 keys", "CLIENT PAUSE"]);
}

fn as_fast_as_it_goes() -> Options {
    Options { limits: Preset::Max.limits(), pace: Preset::Max.to_string(), ..Options::default() }
}

/// The cursor of a table with far more buckets than keys.
fn one_bucket_on(cursor: u64) -> u64 {
    cursor.reverse_bits().saturating_add(1 << 20).reverse_bits()
}

fn circle(cursor: u64) -> u64 {
    if cursor >= 96 { 1 } else { cursor + 1 }
}

/// Forward on Redis 7.0, and in chunks on Redis 8.2.
#[rstest]
#[case::that_stays_where_it_is("7.0.15", 1_000, |_| 7, |_, count| count, "a second time")]
#[case::that_turns_in_a_circle("7.0.15", 1_000, circle, |_, count| count, "comes to no end")]
#[case::that_never_ends("7.0.15", 1_000, one_bucket_on, |_, count| count, "holds 1000 keys")]
#[case::that_never_ends_without_a_key("7.0.15", 1_000, one_bucket_on, |_, _| 0, "calls in a row without a key")]
#[case::that_stays_outside_of_its_chunk("8.2.3", 20_000, |_| 7, |_, count| count, "a second time")]
#[case::that_turns_in_a_circle_outside_of_its_chunk("8.2.3", 20_000, circle, |_, count| count, "comes to no end")]
#[case::that_never_leaves_its_chunk("8.2.3", 20_000, one_bucket_on, |_, count| 10 * count, "holds 20000 keys")]
#[case::that_never_leaves_an_empty_chunk("8.2.3", 20_000, one_bucket_on, |_, _| 0, "calls in a row without a key")]
fn a_cursor(
    #[case] version: &'static str,
    #[case] keys: u64,
    #[case] next: fn(u64) -> u64,
    #[case] returned: fn(u64, usize) -> usize,
    #[case] words: &str,
) {
    let server = BrokenServer::start(Answers { version, keys, next, returned });
    let begun = Instant::now();
    let report = scan(&server.url(), &as_fast_as_it_goes());
    assert_fails(&report, FailureKind::Incomplete, &[words]);
    assert!(begun.elapsed() < Duration::from_secs(20), "given up after {:?}", begun.elapsed());
}

/// Each of the 64 chunks of 312 keys is followed by another 312 keys, which belong to the next one.
#[test]
fn a_count_is_not_exact_where_more_keys_may_be_missing_than_the_estimate_of_the_repeated_ones_is_good_for() {
    const CHUNK: u64 = 1 << 58;
    let server = BrokenServer::start(Answers {
        version: "8.2.3",
        keys: 20_000,
        next: |cursor| cursor.reverse_bits().checked_add(2 * CHUNK).map_or(0, u64::reverse_bits),
        returned: |cursor, _| if cursor.reverse_bits() < 63 * CHUNK { 625 } else { 312 },
    });
    let report = scan(&server.url(), &as_fast_as_it_goes());
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, false), "{report:#?}");
    assert!(report.totals.keys_repeated.abs_diff(19_700) < 100, "{report:#?}");
    assert!(is_warned_of(&report, "keys of database 0 twice"), "{:?}", report.warnings);
}

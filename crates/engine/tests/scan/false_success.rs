//! A scan that reclaimed nothing says so: switches that hide stale keys from it are found out, and what cannot be reclaimed
//! ends as incomplete.

mod broken_server;

use std::time::{Duration, Instant};

use broken_server::BrokenServer;
use keysweep_engine::{
    Check, FailureKind, Options, Outcome, Preset, Report, SlotSet, Stop, Target, Verdict, check, link::Plain, sweep,
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

/// Replaces live keys of the second half of the keyspace by new ones once the scan has begun: half of these land in the
/// first half, so that the scan misses as many, and the size stays the same.
fn replace_keys(server: &Server, keys: usize) {
    let mut connection = server.connection();
    let (mut cursor, mut replaced) = (1, Vec::new());
    while replaced.len() < keys && cursor != 0 {
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

#[test]
fn clients_that_write_do_not_cost_a_server_without_config_its_exact_count() {
    let server = Server::start(Flavor::Redis82);
    let loaded = DataSet::new().live(15_000).stale(300).load(&server);
    let replace = Once::between(0.1..0.45, |_| replace_keys(&server, 2_000));

    let report = sweep(&target(&without_config(&server)), &slow(15_000), &replace, &Stop::new());

    assert!(replace.was_done());
    assert!(report.totals.keys_scanned > loaded.live + loaded.stale, "the database is scanned again: {report:#?}");
    assert_eq!((report.outcome, report.totals.exact, server.held()), (Outcome::Done, true, loaded.live), "{report:#?}");
    assert!(report.warnings.iter().all(|warning| !warning.contains(NESTED)), "{:?}", report.warnings);
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

#[rstest]
#[case::that_stays_where_it_is(|_| 7, "comes to no end")]
#[case::that_turns_in_a_circle(|cursor| if cursor >= 96 { 1 } else { cursor + 1 }, "comes to no end")]
#[case::that_never_ends(|cursor: u64| (cursor.reverse_bits() + (1 << 20)).reverse_bits(), "holds 1000 keys")]
fn a_cursor(#[case] next: fn(u64) -> u64, #[case] words: &str) {
    let server = BrokenServer::start(1_000, next);
    let begun = Instant::now();
    let report = scan(&server.url(), &as_fast_as_it_goes());
    assert_fails(&report, FailureKind::Incomplete, &[words]);
    assert!(begun.elapsed() < Duration::from_secs(20), "given up after {:?}", begun.elapsed());
}

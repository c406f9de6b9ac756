//! Servers at a distance: a proxy delays every byte, as a network between regions does.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{Checkpoint, Monitor, Options, Outcome, Progress, Stop, Target, sweep};
use keysweep_harness::{DataSet, Delay, Flavor, Proxy, Server};
use rstest::rstest;

use crate::{
    common::{Once, StopWhen, slow},
    cpu_limit::cpu,
};

const MILLI: Duration = Duration::from_millis(1);

/// Queries at fixed intervals would take all of the time from a round trip of 20 ms on.
#[test]
fn a_scan_over_a_long_path_comes_to_its_end() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(1_000).stale(500).load(&server);
    let proxy = Proxy::at_distance(&server, Delay::round_trip(22 * MILLI, MILLI));
    let target: Target = proxy.url().parse().expect("a target");
    let options = Options { timeout: Some(Duration::from_secs(20)), ..Options::default() };
    let report = sweep(&target, &options, &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, true), "{report:?}");
    assert_eq!((report.totals.keys_reclaimed, server.held()), (loaded.stale, loaded.live));
}

/// Asks a server for its size 2,000 times a second until `over`. Returns the p90 of the round trips.
fn felt(server: &Server, over: &AtomicBool) -> Duration {
    let (mut connection, mut round_trips) = (server.connection(), Vec::new());
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        next += MILLI / 2;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        // From the time at which it should have been sent: a server that stalls shows in all that wait.
        let _: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
        round_trips.push(next.elapsed());
    }
    round_trips.sort();
    round_trips[round_trips.len() * 9 / 10]
}

/// What clients next to the server feel of a scan at pace normal over a path: in jitter, slices of four cursors may arrive together.
#[rstest]
#[ignore = "for make soak: a minute and a half"]
fn alone_soak_clients_beside_a_scan_over_a_path_wait_for_twice_the_pause_limit_at_most(
    #[values(Flavor::Valkey91, Flavor::Redis82, Flavor::Redis70)] flavor: Flavor,
    #[values((1_300, 200), (2_700, 500), (8_000, 0), (22_000, 0))] (round_trip, jitter): (u64, u64),
) {
    let server = Server::start(flavor);
    DataSet::new().live(225_000).stale(75_000).load(&server);
    let delay = Delay::round_trip(Duration::from_micros(round_trip), Duration::from_micros(jitter));
    let proxy = Proxy::at_distance(&server, delay);
    let during = |work: &dyn Fn()| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let felt = scope.spawn(|| felt(&server, &over));
            work();
            over.store(true, Ordering::Relaxed);
            felt.join().expect("no panic")
        })
    };
    let alone = during(&|| thread::sleep(Duration::from_secs(1)));
    let beside = during(&|| {
        let report = sweep(&proxy.url().parse().expect("a target"), &Options::default(), &(), &Stop::new());
        assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    });
    let case = format!("{flavor:?} at {round_trip} ± {jitter} µs: p90 {alone:?} alone, {beside:?} beside the scan");
    eprintln!("{case}");
    assert!(beside < alone + 2 * Options::default().limits.max_slice + MILLI / 20, "{case}");
}

/// Returns how long a plain loop of SCAN COUNT 1000 takes over a path.
fn plain_loop(proxy: &Proxy) -> Duration {
    let client = redis::Client::open(("127.0.0.1", proxy.address().port())).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let (begun, mut cursor) = (Instant::now(), 0u64);
    loop {
        let page: (u64, Vec<Vec<u8>>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(1_000).query(&mut connection).expect("a page");
        cursor = page.0;
        if cursor == 0 {
            return begun.elapsed();
        }
    }
}

/// Pairs of a loop and a scan: a busy machine may disturb the one and not the other.
const ATTEMPTS: u32 = 3;

fn check_speed(flavor: Flavor, round_trip: Duration, jitter: Duration) {
    let is_fast = (0..ATTEMPTS).any(|_| is_not_slower_than_a_plain_loop(flavor, round_trip, jitter));
    assert!(is_fast, "slower than a plain loop in each of {ATTEMPTS} attempts");
}

/// Sweeps 60,000 keys over a path at pace normal, and compares the time with that of a plain loop over as many.
fn is_not_slower_than_a_plain_loop(flavor: Flavor, round_trip: Duration, jitter: Duration) -> bool {
    let (server, plain) = (Server::start(flavor), Server::start(flavor));
    let loaded = DataSet::new().live(45_000).stale(15_000).load(&server);
    DataSet::new().live(60_000).load(&plain);
    let delay = Delay::round_trip(round_trip, jitter);
    let looped = plain_loop(&Proxy::at_distance(&plain, delay));
    let proxy = Proxy::at_distance(&server, delay);
    let options = Options { timeout: Some(Duration::from_secs(60)), ..Options::default() };
    let (begun, before) = (Instant::now(), cpu(&server));
    let report = sweep(&proxy.url().parse().expect("a target"), &options, &(), &Stop::new());
    let (took, used) = (begun.elapsed(), cpu(&server) - before);
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, true), "{report:?}");
    assert_eq!((report.totals.keys_reclaimed, server.held()), (loaded.stale, loaded.live));
    let cpu_limit = Duration::from_secs_f64(used / options.limits.max_cpu);
    let case = format!(
        "{flavor:?} at {round_trip:?} ± {jitter:?}: {took:?} in {} slices, a plain loop {looped:?}, the CPU limit alone {cpu_limit:?}",
        report.totals.slices
    );
    eprintln!("{case}");
    // Next to the server the loop takes hardly longer than that.
    let baseline = if round_trip.is_zero() { BASELINE } else { Duration::ZERO };
    took < looped.mul_f64(1.5) + cpu_limit + baseline
}

/// The time in which latency and load are measured before the first slice: twenty PINGs, one every 3 ms.
const BASELINE: Duration = Duration::from_millis(60);

#[rstest]
fn alone_a_scan_over_a_distance_is_not_slower_than_a_plain_loop(
    #[values((Flavor::Valkey91, 2_700, 500), (Flavor::Redis70, 8_000, 500))] (flavor, round_trip, jitter): (
        Flavor,
        u64,
        u64,
    ),
) {
    check_speed(flavor, Duration::from_micros(round_trip), Duration::from_micros(jitter));
}

#[rstest]
#[ignore = "for make soak: a minute"]
fn alone_soak_a_scan_over_any_distance_is_not_slower_than_a_plain_loop(
    #[values(Flavor::Valkey91, Flavor::Redis82, Flavor::Redis70)] flavor: Flavor,
    #[values((0, 0), (1_300, 200), (2_700, 500), (8_000, 0), (22_000, 0), (45_000, 0))] (round_trip, jitter): (
        u64,
        u64,
    ),
) {
    check_speed(flavor, Duration::from_micros(round_trip), Duration::from_micros(jitter));
}

/// Counts the connections of the sweep, at most.
struct Connections<'a>(&'a Server, AtomicUsize);

impl Monitor for Connections<'_> {
    fn progress(&self, _: &Progress, _: &Checkpoint) {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut self.0.connection()).expect("a list");
        let own = clients.lines().filter(|line| line.contains(" name=keysweep ")).count();
        self.1.fetch_max(own, Ordering::SeqCst);
    }
}

#[rstest]
fn several_cursors_share_a_long_path_where_the_client_limit_has_room(
    #[values((Flavor::Redis70, 10_000, 4), (Flavor::Valkey91, 10_000, 4), (Flavor::Valkey91, 12, 1))]
    (flavor, max_clients, expected): (Flavor, u32, usize),
) {
    let server = Server::with(flavor).arg("--maxclients", &max_clients.to_string()).start();
    let loaded = DataSet::new().live(16_000).stale(5_000).load(&server);
    // With these a twelfth is free, which is less than the tenth that stays so.
    let _others: Vec<_> = (0..9).map(|_| server.connection()).collect();
    let proxy = Proxy::at_distance(&server, Delay::round_trip(10 * MILLI, MILLI));
    let connections = Connections(&server, AtomicUsize::new(0));
    let report = sweep(&proxy.url().parse().expect("a target"), &Options::default(), &connections, &Stop::new());
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, true), "{report:?}");
    assert_eq!((report.totals.keys_reclaimed, server.held()), (loaded.stale, loaded.live));
    assert_eq!(connections.1.into_inner(), expected);
}

#[test]
fn a_scan_of_several_cursors_that_is_stopped_goes_on_where_each_of_them_was() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(30_000).stale(20_000).load(&server);
    let proxy = Proxy::at_distance(&server, Delay::round_trip(10 * MILLI, MILLI));
    let target: Target = proxy.url().parse().expect("a target");
    let half = StopWhen::new(|progress| progress.fraction > 0.4);
    // Several reports of progress before the end.
    let options = slow(40_000);
    let first = sweep(&target, &options, &half, &half.stop);
    assert_eq!(first.outcome, Outcome::Failed, "{first:?}");
    let checkpoint = half.last().expect("a checkpoint");
    let done = first.totals.keys_reclaimed;
    assert!(done > 0 && done < loaded.stale, "{done}");
    let second = sweep(&target, &Options { checkpoint: Some(checkpoint), ..options }, &(), &Stop::new());
    assert_eq!((second.outcome, second.totals.exact), (Outcome::Done, true), "{second:?}");
    assert_eq!((second.totals.keys_reclaimed, server.held()), (loaded.stale, loaded.live));
    assert!(second.totals.keys_scanned < 70_000, "{} scanned", second.totals.keys_scanned);
}

#[test]
fn connections_of_several_cursors_that_break_are_opened_again() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(30_000).stale(10_000).load(&server);
    let proxy = Proxy::at_distance(&server, Delay::round_trip(10 * MILLI, MILLI));
    let cut = Once::between(0.2..0.9, |_| proxy.cut());
    let report = sweep(&proxy.url().parse().expect("a target"), &slow(40_000), &cut, &Stop::new());
    assert!(cut.was_done());
    assert_eq!((report.outcome, server.held()), (Outcome::Done, loaded.live), "{report:?}");
    assert!(!report.totals.exact || report.totals.keys_reclaimed == loaded.stale, "{report:?}");
}

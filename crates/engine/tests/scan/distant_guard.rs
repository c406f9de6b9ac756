//! The guard over a distance: it backs off from a server that stalls, also beside busy clients, and from no jitter of the network.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{Checkpoint, Monitor, Options, Outcome, Progress, Report, Stop, sweep};
use keysweep_harness::{DataSet, Delay, Flavor, Proxy, Server};
use rstest::rstest;

use crate::common::{Once, set_user, slow};

const MILLI: Duration = Duration::from_millis(1);
/// By how much the presets let the p90 of a PING rise.
const TOLERANCE: Duration = MILLI;

/// Lets something happen in the first half of a scan, and keeps the round trips of its PINGs.
struct Watched<F> {
    once: Once<F>,
    pings: Mutex<Vec<Duration>>,
}

impl<F: Fn(&Progress) + Sync> Monitor for Watched<F> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.once.progress(progress, checkpoint);
    }

    fn probe(&self, round_trip: Duration) {
        self.pings.lock().expect("no panic").push(round_trip);
    }
}

/// Scans over a path of 22 ms for four seconds, under the guard, beside so many requests a second of another client. `user`: of the
/// scan, with its password, as it stands in a URL. Returns the report, and the round trips of its PINGs.
fn guarded_scan(
    server: &Server,
    proxy: &Proxy,
    user: &str,
    requests: u32,
    action: &(dyn Fn() + Sync),
) -> (Report, Vec<Duration>) {
    let loaded = DataSet::new().live(16_000).stale(4_500).load(server);
    // Slices 50 ms apart leave time for a PING between any two, and no query of background saves takes its place.
    let options = Options { throttle_on_save: false, ..slow(5_000) };
    let url = proxy.url().replacen("redis://", &format!("redis://{user}"), 1);
    let watched = Watched { once: Once::between(0.1..0.5, |_: &Progress| action()), pings: Mutex::default() };
    let over = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        if requests > 0 {
            scope.spawn(|| ask(server, requests, &over));
        }
        let report = sweep(&url.parse().expect("a target"), &options, &watched, &Stop::new());
        over.store(true, Ordering::Relaxed);
        report
    });
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale), "{report:?}");
    assert!(watched.once.was_done());
    (report, watched.pings.into_inner().expect("no panic"))
}

/// Asks the server for its size so many times a second.
fn ask(server: &Server, requests: u32, over: &AtomicBool) {
    let (mut connection, mut next) = (server.connection(), Instant::now());
    while !over.load(Ordering::Relaxed) {
        next += Duration::from_secs(1) / requests;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let _: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
    }
}

/// Attempts of a scan in which a busy machine may keep the server waiting, which is a reason to back off.
const ATTEMPTS: u32 = 3;

/// A client of the last two makes thousands of requests a second meanwhile, so that their event loops are busy.
#[rstest]
fn jitter_of_the_network_that_rises_during_a_scan_is_no_reason_to_back_off(
    #[values((Flavor::Redis62, 0), (Flavor::Redis70, 0), (Flavor::Redis82, 2_500), (Flavor::Valkey91, 2_500))]
    (flavor, requests): (Flavor, u32),
) {
    let is_undisturbed = (0..ATTEMPTS).any(|_| {
        let server = Server::start(flavor);
        let proxy = Proxy::at_distance(&server, Delay::round_trip(22 * MILLI, MILLI));
        let rise = || proxy.set_delay(Delay::round_trip(30 * MILLI, 20 * MILLI));
        let (report, pings) = guarded_scan(&server, &proxy, "", requests, &rise);
        println!("{} backoffs; {pings:?}", report.totals.backoffs);
        let spread = pings.iter().max().zip(pings.iter().min()).map(|(longest, shortest)| *longest - *shortest);
        assert!(spread > Some(10 * TOLERANCE), "too little jitter to prove anything: {pings:?}");
        report.totals.backoffs == 0
    });
    // With a guard of PINGs, or one that does not compare both ways, each attempt has a backoff.
    assert!(is_undisturbed);
}

/// Lets a scan run while a command stalls the server for so long, again and again with a pause. Returns how often it backed off.
fn backoffs_from_stalls(server: &Server, user: &str, requests: u32, stall: Duration, pause: Duration) -> u64 {
    let proxy = Proxy::at_distance(server, Delay::round_trip(22 * MILLI, MILLI));
    let (begun, stalling, over) = (Instant::now(), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = server.connection();
            while !over.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(30) {
                if stalling.load(Ordering::Relaxed) {
                    redis::cmd("DEBUG").arg("SLEEP").arg(stall.as_secs_f64()).exec(&mut connection).expect("a sleep");
                }
                thread::sleep(pause);
            }
        });
        let begin = || stalling.store(true, Ordering::Relaxed);
        let (report, _) = guarded_scan(server, &proxy, user, requests, &begin);
        over.store(true, Ordering::Relaxed);
        report.totals.backoffs
    })
}

/// In the mean of thousands of iterations a second of the event loop such stalls are not seen.
#[rstest]
fn a_command_that_stalls_a_busy_server_is_backed_off_from_over_a_distance(
    #[values(Flavor::Redis70, Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    assert!(backoffs_from_stalls(&server, "", 2_500, 50 * MILLI, 200 * MILLI) > 0);
}

/// By its clock alone: INFO, which counts commands, is refused.
#[test]
fn alone_a_server_that_stalls_is_backed_off_from_over_a_distance_by_its_clock() {
    let server = Server::start(Flavor::Redis70);
    set_user(&server, "modest", &["on", ">secret", "~*", "+@all", "-info"].map(String::from));
    // Long enough a pause for slices that do not wait: the scan's round trips fall into step with the stalls.
    assert!(backoffs_from_stalls(&server, "modest:secret@", 0, 150 * MILLI, 60 * MILLI) > 0);
}

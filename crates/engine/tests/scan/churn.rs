//! Under churn a slow scan must not make things worse: with a forward scan the stale share doubles where the server's own
//! expiry cycle walks in the order of SCAN, with a scan in chunks it hardly changes.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{Outcome, Stop, Target, sweep};
use keysweep_harness::{Flavor, Server};
use rstest::rstest;

use crate::common::slow;

/// Keys that a client sets a second, and the longest of their TTLs.
const RATE: u64 = 10_000;
const LONGEST_TTL: Duration = Duration::from_secs(40);
/// Keys a second of the scans: slower than the keys expire.
const SCAN_RATE: u64 = 6_000;
/// Five times the time constant of the stale share, and the time over which the share is averaged.
const SETTLING: Duration = Duration::from_secs(60);
const MEASURED: Duration = Duration::from_secs(25);

/// What the client has set: the keys that expire in each millisecond since its start.
struct Ledger {
    started: Instant,
    expiring: Mutex<Vec<u32>>,
}

impl Ledger {
    fn new() -> Self {
        Self { started: Instant::now(), expiring: Mutex::new(vec![0; 1_000_000]) }
    }

    /// Returns how many keys live now.
    fn living(&self) -> u64 {
        let now = self.started.elapsed().as_millis() as usize;
        self.expiring.lock().expect("no panic")[now..].iter().map(|keys| u64::from(*keys)).sum()
    }

    /// Sets keys with TTLs of 1 to 40 seconds at an even rate.
    fn churn(&self, server: &Server, stop: &AtomicBool) {
        let (mut connection, mut set) = (server.connection(), 0);
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
            let elapsed = self.started.elapsed();
            let due = (elapsed.as_secs_f64() * RATE as f64) as u64;
            if due == set {
                continue;
            }
            let mut pipeline = redis::pipe();
            let mut expiring = self.expiring.lock().expect("no panic");
            for number in set..due {
                // Scattered evenly, in no relation to the order of the keys.
                let ttl = 1_000 + number.wrapping_mul(7_919) % 39_000;
                expiring[elapsed.as_millis() as usize + ttl as usize] += 1;
                pipeline.cmd("SET").arg(format!("churn:{number}")).arg("v").arg("PX").arg(ttl).ignore();
            }
            drop(expiring);
            pipeline.exec(&mut connection).expect("the server serves");
            set = due;
        }
    }

    /// Returns the mean stale share while the churn goes on.
    fn stale_share(&self, server: &Server) -> f64 {
        let (mut connection, started, mut shares) = (server.connection(), Instant::now(), Vec::new());
        while started.elapsed() < MEASURED {
            thread::sleep(Duration::from_millis(200));
            let keys: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
            shares.push(1.0 - self.living() as f64 / keys as f64);
        }
        shares.iter().sum::<f64>() / shares.len() as f64
    }
}

/// Scans forward for ever, as tools with a rate do.
fn scan_forward(server: &Server, stop: &AtomicBool) {
    let (mut connection, started) = (server.connection(), Instant::now());
    let (mut cursor, mut calls) = (0_u64, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_secs_f64((calls * 100) as f64 / SCAN_RATE as f64);
        thread::sleep(due.saturating_sub(started.elapsed()));
        let reply: (u64, Vec<Vec<u8>>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(100).query(&mut connection).expect("SCAN answers");
        (cursor, calls) = (reply.0, calls + 1);
    }
}

/// Scans with the engine, again and again.
fn scan_in_chunks(server: &Server, stop: &Stop) {
    let target: Target = server.url().parse().expect("a target");
    let mut options = slow(SCAN_RATE);
    options.limits.guard = None;
    while !stop.is_raised() {
        let report = sweep(&target, &options, &(), stop);
        assert!(report.outcome == Outcome::Done || stop.is_raised(), "{report:?}");
    }
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_a_slow_scan_in_chunks_hardly_changes_the_stale_share_and_a_forward_scan_raises_it(
    #[values((Flavor::Redis82, 1.6), (Flavor::Valkey91, 1.4))] (flavor, forward_at_least): (Flavor, f64),
) {
    let share = |scan: &dyn Fn(&Server, &AtomicBool, &Stop)| {
        let server = Server::start(flavor);
        let (ledger, over, stop) = (Ledger::new(), AtomicBool::new(false), Stop::new());
        thread::scope(|scope| {
            scope.spawn(|| ledger.churn(&server, &over));
            thread::sleep(LONGEST_TTL);
            let measured = scope.spawn(|| {
                thread::sleep(SETTLING);
                let share = ledger.stale_share(&server);
                over.store(true, Ordering::Relaxed);
                stop.raise();
                share
            });
            scan(&server, &over, &stop);
            measured.join().expect("no panic")
        })
    };
    let alone = share(&|_, _, _| {});
    let forward = share(&|server, over, _| scan_forward(server, over));
    let chunks = share(&|server, _, stop| scan_in_chunks(server, stop));
    println!("{flavor:?}: stale {alone:.3} alone, {forward:.3} with a forward scan, {chunks:.3} with a scan in chunks");
    assert!(chunks <= alone * 1.2, "{chunks} with a scan in chunks, {alone} alone");
    assert!(forward >= alone * forward_at_least, "{forward} with a forward scan, {alone} alone");
}

//! Under churn a slow scan must not make things worse: with a forward scan the stale share doubles where the server's own
//! expiry cycle walks in the order of SCAN, with a scan in chunks it hardly changes. The forward scan is the same one behind a proxy
//! that hides cursors, so that only the order differs.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{Outcome, Stop, Target, sweep};
use keysweep_harness::{Flavor, Server, eventually};
use rstest::rstest;

use crate::{
    common::{StopWhen, slow},
    opaque_proxy::{Hiding, OpaqueProxy},
};

/// A server under churn that is scanned.
#[derive(Debug, Clone, Copy)]
struct Scene {
    /// Keys that a client sets a second.
    rate: u64,
    /// The longest of their TTLs, milliseconds; the shortest is one second.
    longest_ttl: u64,
    /// Keys a second of the scans: slower than the keys expire.
    scan_rate: u64,
    /// Five times the time constant of the stale share.
    settling: Duration,
    /// Time over which the share is averaged.
    measured: Duration,
}

const WHOLE: Scene = Scene {
    rate: 10_000,
    longest_ttl: 40_000,
    scan_rate: 6_000,
    settling: Duration::from_secs(60),
    measured: Duration::from_secs(25),
};

/// As many keys as are divided into chunks, with TTLs so short that the share settles in seconds.
const SMALL: Scene = Scene {
    rate: 8_000,
    longest_ttl: 6_000,
    scan_rate: 4_800,
    settling: Duration::from_secs(7),
    measured: Duration::from_secs(5),
};

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

    /// Sets keys at an even rate.
    fn churn(&self, scene: Scene, server: &Server, stop: &AtomicBool) {
        let (mut connection, mut set) = (server.connection(), 0);
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
            let elapsed = self.started.elapsed();
            let due = (elapsed.as_secs_f64() * scene.rate as f64) as u64;
            if due == set {
                continue;
            }
            let mut pipeline = redis::pipe();
            let mut expiring = self.expiring.lock().expect("no panic");
            for number in set..due {
                // Scattered evenly, in no relation to the order of the keys.
                let ttl = 1_000 + number.wrapping_mul(7_919) % (scene.longest_ttl - 1_000);
                expiring[elapsed.as_millis() as usize + ttl as usize] += 1;
                pipeline.cmd("SET").arg(format!("churn:{number}")).arg("v").arg("PX").arg(ttl).ignore();
            }
            drop(expiring);
            pipeline.exec(&mut connection).expect("the server serves");
            set = due;
        }
    }

    /// Returns the mean stale share while the churn goes on.
    fn stale_share(&self, server: &Server, measured: Duration) -> f64 {
        let (mut connection, started, mut shares) = (server.connection(), Instant::now(), Vec::new());
        while started.elapsed() < measured {
            thread::sleep(Duration::from_millis(200));
            let keys: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
            shares.push(1.0 - self.living() as f64 / keys as f64);
        }
        shares.iter().sum::<f64>() / shares.len() as f64
    }
}

/// Scans with the engine, again and again.
fn scan(url: &str, rate: u64, stop: &Stop) {
    let target: Target = url.parse().expect("a target");
    let mut options = slow(rate);
    options.limits.guard = None;
    while !stop.is_raised() {
        let report = sweep(&target, &options, &(), stop);
        assert!(report.outcome == Outcome::Done || stop.is_raised(), "{report:?}");
    }
}

/// How a server is scanned.
#[derive(Debug, Clone, Copy)]
enum Scanned {
    Never,
    InChunks,
    Forward,
}

/// Returns the mean stale share of a server.
fn stale_share(flavor: Flavor, scene: Scene, scanned: Scanned) -> f64 {
    let server = Server::start(flavor);
    let (ledger, over, stop) = (Ledger::new(), AtomicBool::new(false), Stop::new());
    thread::scope(|scope| {
        scope.spawn(|| ledger.churn(scene, &server, &over));
        thread::sleep(Duration::from_millis(scene.longest_ttl));
        let measured = scope.spawn(|| {
            thread::sleep(scene.settling);
            let share = ledger.stale_share(&server, scene.measured);
            over.store(true, Ordering::Relaxed);
            stop.raise();
            share
        });
        match scanned {
            Scanned::Never => {}
            Scanned::InChunks => scan(&server.url(), scene.scan_rate, &stop),
            Scanned::Forward => {
                let proxy = OpaqueProxy::before(&server, Hiding::Scrambled);
                scan(&proxy.url(), scene.scan_rate, &stop);
            }
        }
        measured.join().expect("no panic")
    })
}

/// Returns the stale shares without a scan, with one in chunks and with the same one forward.
fn stale_shares(flavor: Flavor, scene: Scene) -> [f64; 3] {
    let orders = [Scanned::Never, Scanned::InChunks, Scanned::Forward];
    let shares = thread::scope(|scope| {
        let measured = orders.map(|scanned| {
            let measured = scope.spawn(move || stale_share(flavor, scene, scanned));
            // Minutes of churn on all servers at once would measure the machine.
            match scene.settling > SMALL.settling {
                true => Ok(measured.join().expect("no panic")),
                false => Err(measured),
            }
        });
        measured.map(|share| share.unwrap_or_else(|measured| measured.join().expect("no panic")))
    });
    let [alone, chunks, forward] = shares;
    println!("{flavor:?}: stale {alone:.3} alone, {chunks:.3} with a scan in chunks, {forward:.3} with a forward scan");
    shares
}

#[test]
fn heavy_a_slow_scan_in_chunks_spares_the_servers_own_cycle_and_the_same_scan_forward_does_not() {
    let [alone, chunks, forward] = stale_shares(Flavor::Redis82, SMALL);
    assert!(chunks <= alone * 1.4, "{chunks} with a scan in chunks, {alone} alone");
    assert!(forward >= chunks * 1.2, "{forward} with a forward scan, {chunks} with one in chunks");
}

/// The mean since the server's start knows nothing of it: its counters are reset just before the scan.
#[test]
fn what_expires_at_the_moment_decides_whether_a_scan_is_too_slow_for_its_chunks() {
    let scene = Scene { rate: 6_000, longest_ttl: 1_500, ..SMALL };
    let server = Server::start(Flavor::Valkey91);
    let mut connection = server.connection();
    redis::cmd("DEBUG").arg("POPULATE").arg(25_000).exec(&mut connection).expect("keys");
    let (ledger, over) = (Ledger::new(), AtomicBool::new(false));
    let report = thread::scope(|scope| {
        scope.spawn(|| ledger.churn(scene, &server, &over));
        eventually("keys expire", Duration::from_secs(20), || {
            let stats: String = redis::cmd("INFO").arg("stats").query(&mut connection).expect("INFO");
            let expired = stats.lines().find_map(|line| line.strip_prefix("expired_keys:")?.trim().parse::<u64>().ok());
            (expired? > 5_000).then_some(())
        });
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut connection).expect("a reset");
        let begun = StopWhen::new(|progress| progress.keys_scanned > 0);
        let report = sweep(&server.url().parse().expect("a target"), &slow(50), &begun, &begun.stop);
        over.store(true, Ordering::Relaxed);
        report
    });
    let warned = report.warnings.iter().find_map(|warning| {
        let (_, rest) = warning.split_once("50 keys a second are too slow for ")?;
        rest.split_once(" while ")?.1.split_once(" a second expire")?.0.parse::<u64>().ok()
    });
    assert!(warned.is_some_and(|expired| (1_000..12_000).contains(&expired)), "{:?}", report.warnings);
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_a_slow_scan_in_chunks_hardly_changes_the_stale_share_and_a_forward_scan_raises_it(
    #[values((Flavor::Redis82, 1.6), (Flavor::Valkey91, 1.4))] (flavor, forward_at_least): (Flavor, f64),
) {
    let [alone, chunks, forward] = stale_shares(flavor, WHOLE);
    assert!(chunks <= alone * 1.2, "{chunks} with a scan in chunks, {alone} alone");
    assert!(forward >= alone * forward_at_least, "{forward} with a forward scan, {alone} alone");
}
